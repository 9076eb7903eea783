"""AVIN (Ramaswamy 2020): bilinear fusion of both modalities, beside attention within and across them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.config import option
from avel.heads.config import HEADS, HeadConfig
from avel.heads.models.avel_net import soft_margin
from avel.heads.models.head import VGG, Head, HeadOutput, Published, Widths
from avel.heads.models.parts import AttentionMap, BiLSTM, at_least_float32, attend_cells
from avel.nn import AGVA, mean_over_time, only_inside

HIDDEN = 256
SMALL = 1e-8
"""Keeps the slope of the square root finite where dropout has left 0."""


@dataclass(frozen=True)
class BilinearConfig(HeadConfig):
    """Settings of heads with bilinear pooling; the papers name none of the numbers."""

    factors: int = option(5, "Products that are summed for each value of the bilinear pooling.", low=1)
    dropout: float = option(0.1, "Fraction of the products that is dropped in training.", low=0, high=0.99)


@HEADS.register("avin")
class AVIN(Head):
    """Factorised bilinear pooling beside intra- and inter-modality attention; the paper leaves sizes open."""

    @dataclass(frozen=True)
    class Config(BilinearConfig):
        """Settings of AVIN."""

        pooling: Literal["mean", "agva"] = option("mean", "How a map's cells become one vector.")

    source = "Ramaswamy 2020; sizes are avel's"
    published = (
        Published(75.2, "full", VGG, "Ran et al. 2022, Table 3"),
        Published(69.4, "weak", VGG, "JustinYuu.github.io, notes on Ramaswamy 2020"),
    )
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (
        AttentionMap("intra_a", "clip", "audio"),
        AttentionMap("intra_v", "clip", "visual"),
        AttentionMap("inter_a", "clip", "audio"),
        AttentionMap("inter_v", "clip", "visual"),
    )
    takes_differing_lengths = True

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        attends = widths.cells and config.pooling == "agva"
        self.agva = AGVA(widths.audio, widths.visual, widths.cells) if attends else None
        self.audio, self.visual = BiLSTM(widths.audio), BiLSTM(widths.visual)
        self.bilinear = BilinearPooling(config.factors, config.dropout)
        self.classify = nn.Linear(5 * HIDDEN, widths.classes)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), weights (B, T)."""
        if self.agva is None and visual.ndim == 5:
            visual = visual.mean((2, 3))
        visual, extras = attend_cells(self.agva, audio, visual)
        F_a, F_v = self.audio(audio, mask), self.visual(visual, mask)
        A, extras["intra_a"] = weighted(F_a, F_a, mask)
        V, extras["intra_v"] = weighted(F_v, F_v, mask)
        A_inter, extras["inter_a"] = weighted(F_a, V, mask)
        V_inter, extras["inter_v"] = weighted(F_v, A, mask)
        joined = torch.cat((A, V, A_inter, V_inter, self.bilinear(F_a, F_v)), -1)
        return HeadOutput(self.classify(joined), extras)

    def weak_loss(self, output: HeadOutput, video_labels: Tensor) -> Tensor:
        """Returns `soft_margin` of the scores averaged over time: (B, T, K), (B,) or (B, K) -> scalar."""
        return soft_margin(mean_over_time(output.logits, output.mask), video_labels)


class BilinearPooling(nn.Module):
    """Multi-modal factorised bilinear pooling (MFB): sums of `factors` products, square root, unit length."""

    def __init__(self, factors: int, dropout: float) -> None:
        super().__init__()
        self.audio = nn.Linear(HIDDEN, HIDDEN * factors, bias=False)
        self.visual = nn.Linear(HIDDEN, HIDDEN * factors, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        """Returns fused vectors of unit length: (B, T, 256), (B, T, 256) -> (B, T, 256)."""
        products = self.dropout(at_least_float32(self.audio(audio) * self.visual(visual)))
        summed = products.unflatten(-1, (HIDDEN, -1)).sum(-1)
        return functional.normalize(summed / (summed.abs() + SMALL).sqrt(), dim=-1)


def weighted(features: Tensor, query: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weighs segments by how similar each is to the mean of `query`: twice (B, T, D) -> (B, T, D), (B, T)."""
    scores = at_least_float32(features @ mean_over_time(query, mask).unsqueeze(-1)).squeeze(-1)
    weights = only_inside(scores, mask).softmax(-1)
    return weights.unsqueeze(-1) * features, weights
