"""Audio-guided visual attention (Tian et al. 2018, AVEL), for the encoders of AV-BT and for the heads.

Pipeline and heads never import each other, so what both need lies here; it imports torch, which the rest of
this level must not.
"""

import torch
from torch import Tensor, nn


class AGVA(nn.Module):
    """Which cells of a visual map does the sound come from. State dict: `video.0`, `audio.0`, the scores."""

    def __init__(self, audio: int, visual: int, cells: int, hidden: int = 512) -> None:
        super().__init__()
        self.video = nn.Sequential(nn.Linear(visual, hidden), nn.ReLU())
        self.audio = nn.Sequential(nn.Linear(audio, hidden), nn.ReLU())
        self.video_score = nn.Linear(hidden, cells, bias=False)
        self.audio_score = nn.Linear(hidden, cells, bias=False)
        self.score = nn.Linear(cells, 1, bias=False)

    def forward(self, audio: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """The raw cells, summed by weight: (B, T, D), (B, T, N, C) -> (B, T, C), weights (B, T, N)."""
        # audio has one score a cell, so it joins along the cells, as the published code does
        joined = self.video_score(self.video(cells)) + self.audio_score(self.audio(audio)).unsqueeze(-1)
        scores = self.score(torch.tanh(joined)).squeeze(-1)
        weights = torch.softmax(scores, -1, dtype=torch.promote_types(scores.dtype, torch.float32))
        return torch.einsum("btn,btnc->btc", weights.to(cells.dtype), cells), weights
