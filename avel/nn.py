"""Networks that encoders and heads share, since pipeline and heads never import each other.

Of the modules beside it only `device`, `memory`, `forecast` and `temporal` import torch too.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

from avel.progress import note

AGVA_HIDDEN = 512
"""Width of AGVA's hidden layers, as published."""
ROWS_AT_ONCE = 1 << 14
"""Vectors that are turned into float64 together for their mean and std."""


class AGVA(nn.Module):
    """Audio-guided visual attention (Tian et al. 2018) over the cells of a visual map."""

    def __init__(self, audio: int, visual: int, cells: int) -> None:
        super().__init__()
        self.video = nn.Sequential(nn.Linear(visual, AGVA_HIDDEN), nn.ReLU())
        self.audio = nn.Sequential(nn.Linear(audio, AGVA_HIDDEN), nn.ReLU())
        self.video_score = nn.Linear(AGVA_HIDDEN, cells, bias=False)
        self.audio_score = nn.Linear(AGVA_HIDDEN, cells, bias=False)
        self.score = nn.Linear(cells, 1, bias=False)

    def forward(self, audio: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the weighted sum of cells: (B, T, D), (B, T, N, C) -> (B, T, C), weights (B, T, N)."""
        # As in the published code, audio gives one value for each cell, added to all scores of that cell
        joined = self.video_score(self.video(cells)) + self.audio_score(self.audio(audio)).unsqueeze(-1)
        scores = self.score(torch.tanh(joined)).squeeze(-1)
        weights = torch.softmax(scores, -1, dtype=torch.promote_types(scores.dtype, torch.float32))
        return torch.einsum("btn,btnc->btc", weights.to(cells.dtype), cells), weights


class Standard(nn.Module):
    """Standardises features, (x - mean) / std; the identity until mean and std are set."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @property
    def is_set(self) -> bool:
        """Returns True once mean and std are other than 0 and 1, so that vectors change."""
        return bool(self.mean.any()) or bool((self.std != 1).any())

    def fit(self, vectors: Tensor) -> None:
        """Sets mean and std to those of (n, D) vectors; a constant feature gets std 1."""
        mean = _sum(vectors, lambda part: part) / len(vectors)
        std = (_sum(vectors, lambda part: (part - mean) ** 2) / (len(vectors) - 1)).sqrt()
        self.set(mean, std)

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Sets mean and std of each feature, (D,); a std of 0 counts as 1."""
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-6, std, 1.0))

    def forward(self, vectors: Tensor) -> Tensor:
        """Standardises each feature: (..., D) -> (..., D)."""
        return (vectors - self.mean) / self.std

    def folded_into(self, layer: nn.Linear) -> tuple[Tensor, Tensor]:
        """Returns weight and bias with which `layer` standardises its vectors itself."""
        weight = layer.weight / self.std
        return weight, layer.bias - (weight * self.mean).sum(-1)  # not `@`, which autocast would round


def _sum(vectors: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """Sums in float64, a part at a time, since maps of a whole dataset in float64 would not fit."""
    return torch.stack([of(part.double()).sum(0) for part in torch.split(vectors, ROWS_AT_ONCE)]).sum(0)


@functools.cache
def has_bfloat16_lstm(device: torch.device) -> bool:
    """Returns True if LSTMs run on `device` under autocast to bfloat16; notes it once where they do not.

    Tries one, since only a call shows whether oneDNN or cuDNN has such an LSTM for this processor.
    """
    try:
        _try_bfloat16_lstm(device)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        note(f"{device} has no LSTM in bfloat16 ({reason}): LSTMs are computed in float32")
        return False
    return True


def _try_bfloat16_lstm(device: torch.device) -> None:
    """Trains a small Bi-LSTM and infers with it, whatever mode the caller is in.

    Float32 and bfloat16 inputs take different ways in torch, so it tries both.
    """
    # Fork the random state, so that the caller's stays as it is
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        lstm = nn.LSTM(8, 8, batch_first=True, bidirectional=True).to(device)
        for dtype in (torch.float32, torch.bfloat16):
            with torch.autocast(device.type, torch.bfloat16):
                hidden = lstm(torch.zeros(2, 3, 8, device=device, dtype=dtype))[0]
            hidden.float().sum().backward()
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
                lstm(torch.zeros(2, 3, 8, device=device, dtype=dtype))


def recur(
    network: nn.RNNBase, features: Tensor, mask: Tensor | None = None, start: Any = None
) -> tuple[Tensor, Any]:
    """Runs a recurrent network over each clip up to its end: (B, T, D), (B, T) -> (B, T, H), last states.

    States after the end of a clip are 0. Without `mask` all have T segments.
    """
    if mask is None:
        hidden, last = network(features, start)
        return hidden, last
    lengths = mask.sum(1).cpu()  # torch accepts lengths on the CPU only
    packed = rnn.pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
    states, last = network(packed, start)
    return rnn.pad_packed_sequence(states, batch_first=True, total_length=mask.shape[1])[0], last


def mask_of(lengths: Tensor, segments: int) -> Tensor:
    """Returns True before the end of each clip: (B,) -> (B, T)."""
    return torch.arange(segments, device=lengths.device) < lengths.unsqueeze(-1)


def put_inside(rows: Tensor, mask: Tensor) -> Tensor:
    """Puts rows where the mask is True, and 0 elsewhere: (n, ...), (B, T) -> (B, T, ...)."""
    whole = rows.new_zeros(*mask.shape, *rows.shape[1:])
    whole[mask] = rows
    return whole


def zero_padding(values: Tensor, mask: Tensor | None) -> Tensor:
    """Sets what is after the end of clips to 0: (B, T, ...), (B, T) -> (B, T, ...); without mask as it is."""
    return values if mask is None else values.masked_fill(~_expanded(mask, values), 0)


def mean_over_time(values: Tensor, mask: Tensor | None) -> Tensor:
    """Averages over the segments of each clip: (B, T, ...), (B, T) -> (B, ...)."""
    if mask is None:
        return values.mean(1)
    return zero_padding(values, mask).sum(1) / _expanded(mask, values).sum(1)


def amax_over_time(values: Tensor, mask: Tensor | None) -> Tensor:
    """Returns the largest of the segments of each clip: (B, T, ...), (B, T) -> (B, ...)."""
    return (values if mask is None else values.masked_fill(~_expanded(mask, values), -torch.inf)).amax(1)


def mean_over_segments(values: Tensor, mask: Tensor | None) -> Tensor:
    """Averages over the segments of all clips: (B, T), (B, T) -> scalar."""
    return values.mean() if mask is None else zero_padding(values, mask).sum() / mask.sum()


def only_inside(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Gives keys after the end of clips the score -inf, so that a softmax over the last axis leaves them out.

    (B, ..., T), (B, T) -> (B, ..., T).
    """
    if mask is None:
        return scores
    return scores.masked_fill(~mask.view(len(mask), *[1] * (scores.ndim - 2), -1), -torch.inf)


def _expanded(mask: Tensor, values: Tensor) -> Tensor:
    """Adds axes of length 1 to the mask, so that it broadcasts over values: (B, T) -> (B, T, 1, ...)."""
    return mask.view(*mask.shape, *[1] * (values.ndim - 2))
