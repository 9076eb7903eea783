"""Pieces that several heads share, such as the three-layer MLP and the Bi-LSTM."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.config import option
from avel.heads.config import HeadConfig
from avel.nn import AGVA, has_bfloat16_lstm, recur


@dataclass(frozen=True)
class PaperConfig(HeadConfig):
    """Training as in Section 4.1 of Ran et al., which names no number of epochs, on standardised features."""

    standardise: ClassVar[bool] = True
    lr: float = 1e-4
    lr_decay: float = 0.98
    lr_decay_every: int = 10
    batch_size: int = 128
    epochs: int = 300
    dropout: float = option(0.0, "Fraction dropped in training, in the classifier.", low=0, high=0.99)


def at_least_float32(values: Tensor) -> Tensor:
    """Returns bfloat16 as float32, since its three digits are too few for a softmax or a loss."""
    return values.float() if values.dtype == torch.bfloat16 else values


class ClassifierMLP(nn.Sequential):
    """Three layers D-128-64-K, the classification layer of Figure 4: (..., D) -> (..., K)."""

    def __init__(self, width: int, classes: int, dropout: float = 0.0) -> None:
        first, second = nn.Linear(width, 128), nn.Linear(128, 64)
        super().__init__(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True), nn.Linear(64, classes))
        self.dropout = dropout

    def forward(self, features: Tensor) -> Tensor:
        """Returns scores of every class: (..., D) -> (..., K)."""
        # Flatten to 2-D first: a 3-D Linear returns a view, and in-place ReLU on it would copy.
        scores = features.flatten(0, -2)
        for layer in self:
            scores = layer(scores)
            if self.dropout and isinstance(layer, nn.ReLU):
                scores = functional.dropout(scores, self.dropout, self.training)
        return scores.view(*features.shape[:-1], scores.shape[-1])


class BiLSTM(nn.Module):
    """Bidirectional LSTM, by default one layer of H = 128 per direction: (B, T, D) -> (B, T, 2 H).

    Under autocast to bfloat16 it computes in bfloat16 where the device has such an LSTM, else in float32.
    """

    def __init__(self, width: int, hidden: int = 128, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, layers, dropout=dropout, batch_first=True, bidirectional=True)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns hidden states of both directions: (B, T, D) -> (B, T, 2 H)."""
        return self.unrolled(features, mask=mask)[0]

    def unrolled(
        self, features: Tensor, start: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Returns hidden states and each direction's last (h, c); begins with `start`, or with zeros.

        With L layers: (B, T, D), twice (2 L, B, H) -> (B, T, 2 H), twice (2 L, B, H). With `mask` (B, T) a
        clip ends where its mask does; after that its states are 0.
        """
        device = features.device
        if torch.is_autocast_enabled(device.type) and not has_bfloat16_lstm(device):
            with torch.autocast(device.type, enabled=False):
                begun = None if start is None else (start[0].float(), start[1].float())
                return recur(self.lstm, features.float(), mask, begun)
        return recur(self.lstm, features, mask, start)


class TimeConvolutions(nn.Sequential):
    """Layers over time one after the other, Conv1d among them: (B, T, D) -> (B, T', D')."""

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the last layer's output; with `mask` (B, T) each Conv1d reads 0 after the end of a clip."""
        hidden = features.mT
        for layer in self:
            if mask is not None and isinstance(layer, nn.Conv1d):
                hidden = hidden * mask.unsqueeze(1)
            hidden = layer(hidden)
        return hidden.mT


def cells_of(visual: Tensor) -> Tensor:
    """Flattens a map's cells; a vector is one cell: (B, T, H, W, C) or (B, T, C) -> (B, T, N, C)."""
    return visual.flatten(2, 3) if visual.ndim == 5 else visual.unsqueeze(2)


def key_padding(mask: Tensor | None) -> Tensor | None:
    """Returns the mask that torch's attention takes, True after the end of a clip: (B, T) -> (B, T)."""
    return None if mask is None else ~mask


class AttentionMap(NamedTuple):
    """Entry of `HeadOutput.extras` that is an attention map, and what its rows and columns stand for.

    Rows and columns are segments of a modality, or of both: (B, T, T). Columns may be cells of the visual
    map, (B, T, N). A map with one row for the clip has the shape (B, T).
    """

    name: str
    rows: Literal["audio", "visual", "both", "clip"]
    columns: Literal["audio", "visual", "both", "cells"]


AGVA_MAP = AttentionMap("agva", "audio", "cells")
"""Attention map that `attend_cells` returns."""
CROSS_MAPS = (AttentionMap("W_av", "audio", "visual"), AttentionMap("W_va", "visual", "audio"))
"""Attention of each modality's segments to those of the other."""


def attend_cells(agva: AGVA | None, audio: Tensor, visual: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Reduces maps (B, T, H, W, C) to vectors by AGVA, and returns its weights; without AGVA vectors stay."""
    if agva is None:
        return visual, {}
    vectors, weights = agva(audio, visual.flatten(2, 3))
    return vectors, {"agva": weights}


def sinusoids(count: int, width: int) -> Tensor:
    """Returns sinusoidal position codes (Vaswani et al. 2017), sines and cosines in turn: -> (T, D)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
    angles = torch.arange(count).unsqueeze(1) * rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def xavier(*modules: nn.Module | None) -> None:
    """Draws the weights of all Linears in modules by `xavier_uniform_`; biases stay, None is skipped."""
    for layer in (layer for module in modules if module is not None for layer in module.modules()):
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
