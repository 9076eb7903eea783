"""Turns vectors of CNNs into f_a and f_v: the layers of AV-BT behind its CNNs, which heads may fine-tune."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from avel.nn import AGVA, Standard, recur


@dataclass(frozen=True)
class TemporalSizes:
    """Sizes of a `Temporal`.

    Attributes:
        audio, visual: width of the CNNs' vectors, Da and Dv.
        audio_narrow, visual_narrow: input width of the Bi-LSTMs; a Linear projects wider vectors to it.
        hidden: half of D, the width of f_a and f_v.
        cells: number of cells of a visual map, over which AGVA attends; 0 without AGVA.
    """

    audio: int
    visual: int
    audio_narrow: int
    visual_narrow: int
    hidden: int
    cells: int = 0

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "TemporalSizes":
        """Returns the sizes of a `Temporal` without AGVA, by its state dict."""
        return cls(
            audio=len(state["audio_standard.mean"]),
            visual=len(state["visual_standard.mean"]),
            audio_narrow=state["audio_lstm.weight_ih_l0"].shape[1],
            visual_narrow=state["visual_lstm.weight_ih_l0"].shape[1],
            hidden=state["audio_lstm.weight_hh_l0"].shape[1],
        )


class Temporal(nn.Module):
    """Standardisation, AGVA if any, a Linear where vectors are wide, and a Bi-LSTM for each modality."""

    def __init__(self, sizes: TemporalSizes) -> None:
        super().__init__()
        self.audio_standard, self.visual_standard = Standard(sizes.audio), Standard(sizes.visual)
        self.visual_linear = narrowing(sizes.visual, sizes.visual_narrow)
        self.audio_linear = narrowing(sizes.audio, sizes.audio_narrow)
        self.attention = AGVA(sizes.audio, sizes.visual, sizes.cells) if sizes.cells else None
        self.visual_lstm = bi_lstm(sizes.visual_narrow, sizes.hidden)
        self.audio_lstm = bi_lstm(sizes.audio_narrow, sizes.hidden)

    def forward(self, cnn_a: Tensor, cnn_v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Computes f_a, f_v: (B, T, Da), (B, T, Dv) or with AGVA cells (B, T, N, Dv) -> two (B, T, D).

        Computes in float32 even under autocast, except AGVA, which autocast does affect. With `mask` (B, T) a
        clip ends where its mask does, and after that its features are 0.
        """
        audio, visual = self.narrow(cnn_a.to(self.dtype), cnn_v)
        with torch.autocast(cnn_a.device.type, enabled=False):
            return recur(self.audio_lstm, audio, mask)[0], recur(self.visual_lstm, visual, mask)[0]

    def narrow(self, cnn_a: Tensor, cnn_v: Tensor) -> tuple[Tensor, Tensor]:
        """Computes what the Bi-LSTMs read: (B, T, Da), (B, T, Dv) -> the paper's (B, T, 128), (B, T, 512)."""
        audio = self.audio_standard(cnn_a)
        if self.attention is not None:
            cnn_v = self.attend(audio, cnn_v)
        with torch.autocast(cnn_a.device.type, enabled=False):
            visual = self.visual_standard(cnn_v.to(self.dtype))
            return self.audio_linear(audio), self.visual_linear(visual)

    def attend(self, audio: Tensor, cells: Tensor) -> Tensor:
        """Attends over cells (AGVA) before they are standardised: (B, T, Da), (B, T, N, Dv) -> (B, T, Dv).

        Standardised copies of all cells, in float32, would cost more than the attention itself. So the scores
        are computed with the standardisation folded into the attention's first layer. The weighted sum is
        standardised by the caller: since the weights sum to one, that is the sum of standardised cells.
        """
        assert self.attention is not None
        layer = self.attention.video[0]
        assert isinstance(layer, nn.Linear)
        weight, bias = self.visual_standard.folded_into(layer)
        autocast = torch.is_autocast_enabled(cells.device.type)
        attended: Tensor = functional_call(
            self.attention,
            {"video.0.weight": weight, "video.0.bias": bias},
            (audio, cells if autocast else cells.to(self.dtype)),
        )[0]
        return attended

    @property
    def dtype(self) -> torch.dtype:
        """Returns the number format of the Bi-LSTMs."""
        return next(self.audio_lstm.parameters()).dtype


def narrowing(width: int, narrow: int) -> nn.Module:
    """Returns a Linear where vectors are to be narrower (ResNet-50: 2048 -> 512), else the identity."""
    return nn.Linear(width, narrow) if width > narrow else nn.Identity()


def bi_lstm(width: int, hidden: int) -> nn.LSTM:
    """Returns one bidirectional layer: (B, T, D) -> (B, T, 2 hidden)."""
    return nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
