"""Pieces that several heads share: the three-layer MLP, the Bi-LSTM, audio-guided visual attention."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

PAPER_OPTIMISER: Mapping[str, Any] = {
    "lr": 1e-4,
    "decay": 0.98,
    "decay_every": 10,
    "batch_size": 128,
    "epochs": 300,
}
"""Section 4.1; the number of epochs is not in the paper."""


def precise(values: Tensor) -> Tensor:
    """At least float32, for what bfloat16 would spoil: softmax, exponentials, losses."""
    return values.float() if values.dtype == torch.bfloat16 else values


class ClassifierMLP(nn.Sequential):
    """Three layers D-128-64-K, the classification layer of Figure 4: (..., D) -> (..., K)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(
            nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, classes)
        )


class BiLSTM(nn.Module):
    """One bidirectional layer, 128 per direction: (B, T, D) -> (B, T, 256)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, 128, batch_first=True, bidirectional=True)

    def forward(self, features: Tensor) -> Tensor:
        """Hidden states of both directions: (B, T, D) -> (B, T, 256)."""
        hidden: Tensor = self.lstm(features)[0]
        return hidden


class AGVA(nn.Module):
    """Audio-guided visual attention (Tian et al. 2018): which cells of the map does the sound come from."""

    def __init__(self, audio: int, visual: int, cells: int, hidden: int = 512) -> None:
        super().__init__()
        self.video = nn.Sequential(nn.Linear(visual, hidden), nn.ReLU())
        self.audio = nn.Sequential(nn.Linear(audio, hidden), nn.ReLU())
        self.video_score = nn.Linear(hidden, cells, bias=False)
        self.audio_score = nn.Linear(hidden, cells, bias=False)
        self.score = nn.Linear(cells, 1, bias=False)

    def forward(self, audio: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The raw cells, summed by weight: (B, T, D), (B, T, H, W, C) -> (B, T, C), weights (B, T, H*W)."""
        cells = maps.flatten(2, 3)
        # audio has one score a cell, so it joins along the cells, as the published code does
        joined = self.video_score(self.video(cells)) + self.audio_score(self.audio(audio)).unsqueeze(-1)
        weights = torch.softmax(precise(self.score(torch.tanh(joined)).squeeze(-1)), -1)
        return torch.einsum("btn,btnc->btc", weights.to(cells.dtype), cells), weights
