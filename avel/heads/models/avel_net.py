"""AVEL's networks (Tian et al. 2018): audio-guided visual attention, Bi-LSTMs, concatenation or DMRN."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.config import option
from avel.heads.config import HEADS, HeadConfig
from avel.heads.models.head import VGG, Head, HeadOutput, Published, Widths
from avel.heads.models.layout import AGVA_NAMES, Layout, nested
from avel.heads.models.parts import AGVA_MAP, BiLSTM, attend_cells, xavier
from avel.heads.tasks.single_label import as_fractions
from avel.nn import AGVA, amax_over_time

HIDDEN = 256


@HEADS.register("avel")
class AVELNet(Head):
    """Audio and attended visual ("A+V-att"), or the dual multimodal residual network with `fusion="dmrn"`."""

    @dataclass(frozen=True)
    class Config(HeadConfig):
        """Settings of AVEL and its training, as in its code."""

        fusion: Literal["concatenate", "dmrn"] = option("concatenate", "How the two streams are fused.")
        lr_decay: float = 0.1
        milestones: tuple[int, ...] = (288,)  # 15000 steps in its code
        epochs: int = 300
        weak_defaults: ClassVar = {"epochs": 250}

    source = "Tian et al. 2018"
    published = (Published(71.3, "full", VGG, "Ran et al. 2022, Table 2"),)
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (AGVA_MAP,)
    takes_differing_lengths = True

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.agva = AGVA(widths.audio, widths.visual, widths.cells) if widths.cells else None
        self.audio, self.visual = BiLSTM(widths.audio), BiLSTM(widths.visual)
        self.dmrn = DMRN(HIDDEN) if config.fusion == "dmrn" else None
        if self.dmrn is None:
            self.classify = nn.Sequential(
                nn.ReLU(), nn.Linear(2 * HIDDEN, 64), nn.ReLU(), nn.Linear(64, widths.classes)
            )
        else:
            self.classify = nn.Sequential(nn.Linear(HIDDEN, widths.classes))
        # As published, the network with DMRN has only its last layer so initialised
        xavier(self.agva if self.dmrn is None else None, self.classify)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), AGVA's weights."""
        visual, extras = attend_cells(self.agva, audio, visual)
        hidden_a, hidden_v = self.audio(audio, mask), self.visual(visual, mask)
        if self.dmrn is None:
            joined = torch.cat((hidden_v, hidden_a), -1)
        else:
            hidden_v, hidden_a = self.dmrn(hidden_v, hidden_a)
            joined = (hidden_v + hidden_a) / 2
        return HeadOutput(self.classify(joined), extras)

    def layout(self) -> Layout:
        """Returns the names in AVE-ECCV18: the same for full and weak networks, others for DMRN."""
        names = nested("", AGVA_NAMES, own="agva.")
        names |= {"audio.lstm": "lstm_audio", "visual.lstm": "lstm_video"}
        if self.dmrn is not None:
            names |= {"dmrn.U_v": "U_v", "dmrn.U_a": "U_a", "classify.0": "L2"}
            return Layout("YapengTian/AVE-ECCV18, TBMRF_Net of one block", names)
        names |= {"classify.1": "L1", "classify.3": "L2"}
        # Its first layer reads audio, then visual; this one visual, then audio
        swapped = {"classify.1.weight": lambda weight: torch.roll(weight, HIDDEN, 1)}
        return Layout("YapengTian/AVE-ECCV18, att_Net", names, changed=swapped)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Returns `segment_soft_margin`, as published: (B, T, K), (B, T) -> scalar."""
        return segment_soft_margin(output, labels)

    def weak_loss(self, output: HeadOutput, video_labels: Tensor) -> Tensor:
        """Returns `soft_margin` of the highest scores over time: (B, T, K), (B,) or (B, K) -> scalar.

        The published code takes the maximum, its paper says the mean.
        """
        return soft_margin(amax_over_time(output.logits, output.mask), video_labels)


class DMRN(nn.Module):
    """Dual multimodal residual block; the residuals cross, as in the published code."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.U_a = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
        self.U_v = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))

    def forward(self, visual: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Returns tanh(a + merged) as v, tanh(v + merged) as a: v, a (..., D) -> the same shapes."""
        merged = (self.U_v(visual) + self.U_a(audio)) / 2
        return torch.tanh(audio + merged), torch.tanh(visual + merged)


def segment_soft_margin(output: HeadOutput, labels: Tensor) -> Tensor:
    """Returns `soft_margin` over all segments within clips: (B, T, K), (B, T) -> scalar."""
    if output.mask is None:
        return soft_margin(output.logits.flatten(0, 1), labels.flatten())
    return soft_margin(output.logits[output.mask], labels[output.mask])


def soft_margin(logits: Tensor, classes: Tensor) -> Tensor:
    """Returns the multi-label soft-margin loss of softmax scores: (R, K), (R,) or (R, K) -> scalar."""
    targets = as_fractions(classes, logits.shape[-1]).to(logits.dtype)
    return functional.multilabel_soft_margin_loss(torch.softmax(logits, -1), targets)
