"""Audio-guided visual attention before the visual Bi-LSTM (Tian et al. 2018; Table 4's row "w/ AGVA")."""

import torch
from torch import Tensor, nn

ATTENTION_WIDTH, SCORE_WIDTH = 512, 49
"""AVEL's widths: of the two projections, and of what is added under the tanh."""


class AudioGuidedAttention(nn.Module):
    """Weights the cells of a visual map by what is heard in the same segment."""

    def __init__(self, visual_width: int, audio_width: int) -> None:
        super().__init__()
        self.visual = nn.Sequential(nn.Linear(visual_width, ATTENTION_WIDTH), nn.ReLU())
        self.audio = nn.Sequential(nn.Linear(audio_width, ATTENTION_WIDTH), nn.ReLU())
        self.visual_score = nn.Linear(ATTENTION_WIDTH, SCORE_WIDTH, bias=False)
        self.audio_score = nn.Linear(ATTENTION_WIDTH, SCORE_WIDTH, bias=False)
        self.score = nn.Linear(SCORE_WIDTH, 1, bias=False)

    def forward(self, cnn_a: Tensor, cells: Tensor) -> Tensor:
        """Weighted sum of the raw cells: (B, T, Da), (B, T, cells, C) -> (B, T, C)."""
        heard = self.audio_score(self.audio(cnn_a))[:, :, None]
        scores = self.score(torch.tanh(self.visual_score(self.visual(cells)) + heard))
        attended: Tensor = (scores.softmax(2) * cells).sum(2)
        return attended
