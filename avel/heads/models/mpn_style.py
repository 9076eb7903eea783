"""A reconstruction of MPN (Yu et al. 2021) from its outline: networks for category and for relevance."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avel.config import option
from avel.heads.config import HEADS
from avel.heads.models.cmran import AttentionLayer
from avel.heads.models.head import VGG, HeadOutput, Published, Widths
from avel.heads.models.parts import CROSS_MAPS, TimeConvolutions
from avel.heads.models.relevance import RelevanceConfig, RelevanceHead
from avel.nn import mean_over_time

D = 256


@HEADS.register("mpn_style")
class MPNStyle(RelevanceHead):
    """Co-attention for the category, bottleneck gates for relevance; layers and sizes are guesses."""

    @dataclass(frozen=True)
    class Config(RelevanceConfig):
        """Settings of the reconstruction; none is in the paper."""

        feedforward: int = option(1024, "Width within the attention layers.", low=1)
        dropout: float = option(0.1, "Fraction dropped in training, in attention layers.", low=0, high=0.99)
        lr_decay: float = 1.0
        milestones: tuple[int, ...] = ()

    source = "after Yu et al. 2021; a reconstruction"
    published = (Published(75.2, "full", VGG, "Ran et al. 2022, Table 3, of MPN"),)
    inputs = ("maps", "cnn", "encoded")
    attention_maps = CROSS_MAPS
    takes_differing_lengths = True

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.co_attention = CoAttention(widths, config)
        self.category = nn.Linear(2 * D, widths.classes - 1)
        self.gate_a, self.gate_v = BottleneckGate(widths.audio), BottleneckGate(widths.visual)
        self.relevance = nn.Linear(2 * D, 1)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), attention over time."""
        visual = visual.mean((2, 3)) if visual.ndim == 5 else visual
        whole, extras = self.co_attention(audio, visual, mask)
        local = torch.cat((self.gate_a(audio, mask), self.gate_v(visual, mask)), -1)
        return self.decided(self.relevance(local).squeeze(-1), self.category(whole), extras)


class CoAttention(nn.Module):
    """Each modality attends to itself, then to the other one; averaged over the clip."""

    def __init__(self, widths: Widths, config: MPNStyle.Config) -> None:
        super().__init__()
        self.audio, self.visual = nn.Linear(widths.audio, D), nn.Linear(widths.visual, D)
        self.self_a, self.self_v, self.cross_a, self.cross_v = (
            AttentionLayer(config.feedforward, config.dropout) for _ in range(4)
        )

    def forward(
        self, audio: Tensor, visual: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Attends: (B, T, D), (B, T, D) -> (B, 512), weights on the other modality (B, T, T)."""
        a, v = self.audio(audio), self.visual(visual)
        (a, _), (v, _) = self.self_a(a, a, mask), self.self_v(v, v, mask)
        (both_a, W_av), (both_v, W_va) = self.cross_a(a, v, mask), self.cross_v(v, a, mask)
        whole = torch.cat([mean_over_time(both, mask) for both in (both_a, both_v)], -1)
        return whole, {"W_av": W_av, "W_va": W_va}


class BottleneckGate(nn.Module):
    """Bottleneck attention (BAM) of one modality: gates over channels and segments, 16 channels wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, D)
        self.channels = nn.Sequential(nn.Linear(D, 16), nn.ReLU(), nn.Linear(16, D))
        self.segments = TimeConvolutions(
            nn.Conv1d(D, 16, 1),
            nn.ReLU(),
            nn.Conv1d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(16, 1, 1),
        )

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns F (1 + M) with gates M between 0 and 1: (B, T, D) -> (B, T, 256)."""
        F: Tensor = self.project(features)
        of_channels = self.channels(mean_over_time(F, mask).unsqueeze(1))
        return F * (1 + torch.sigmoid(of_channels + self.segments(F, mask)))
