"""Dual attention matching (Wu et al. 2019): compares segments with the whole clip in the other modality."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.config import option
from avel.heads.config import HEADS
from avel.heads.models.head import VGG, HeadOutput, Published, Widths
from avel.heads.models.parts import AGVA_MAP, AttentionMap, at_least_float32, attend_cells, key_padding
from avel.heads.models.relevance import RelevanceConfig, RelevanceHead, category_loss, relevance_loss
from avel.nn import AGVA, mean_over_time

D = 256


@HEADS.register("dam")
class DAM(RelevanceHead):
    """Matches each segment with the other modality's self-attended clip; the paper leaves the sizes open."""

    @dataclass(frozen=True)
    class Config(RelevanceConfig):
        """Settings of DAM; only `category_weight` is in its paper."""

        category_weight: float = option(
            0.5, "Lambda: weight of the category loss; the relevance loss has 1 - lambda.", low=0, high=1
        )
        dropout: float = option(0.2, "Fraction dropped in training, in the classifier.", low=0, high=0.99)
        lr_decay: float = 1.0
        milestones: tuple[int, ...] = ()

    source = "Wu et al. 2019; sizes of an unofficial implementation"
    published = (Published(74.5, "full", VGG, "Wu et al. 2019", checked=False),)
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (
        AGVA_MAP,
        AttentionMap("self_a", "audio", "audio"),
        AttentionMap("self_v", "visual", "visual"),
    )
    takes_differing_lengths = True
    weak = False

    config: Config

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.agva = AGVA(widths.audio, widths.visual, widths.cells) if widths.cells else None
        self.audio, self.visual = nn.Linear(widths.audio, D), nn.Linear(widths.visual, D)
        self.attend_a = nn.MultiheadAttention(D, 1, batch_first=True)
        self.attend_v = nn.MultiheadAttention(D, 1, batch_first=True)
        self.category = nn.Sequential(
            nn.Linear(2 * D, 2 * D),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(2 * D, 2 * D),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(2 * D, widths.classes - 1),
        )

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), attention over time."""
        visual, extras = attend_cells(self.agva, audio, visual)
        f_a, f_v = self.audio(audio), self.visual(visual)
        attended_a, extras["self_a"] = self.attend_a(f_a, f_a, f_a, key_padding(mask))
        attended_v, extras["self_v"] = self.attend_v(f_v, f_v, f_v, key_padding(mask))
        g_a, g_v = mean_over_time(attended_a, mask), mean_over_time(attended_v, mask)
        extras["fused"] = torch.cat((f_a, f_v), -1)  # for plots; no layer reads both
        return self.decided(matching(f_a, f_v, g_a, g_v), self.category(torch.cat((g_a, g_v), -1)), extras)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Returns lambda category loss + (1 - lambda) relevance loss: (B, T, K), (B, T) -> scalar."""
        weight, classes = self.config.category_weight, self.widths.classes
        category = category_loss(output.extras["category"], labels, classes)
        relevance = relevance_loss(output.extras["relevance"], labels, classes, output.mask)
        return weight * category + (1 - weight) * relevance


def matching(f_a: Tensor, f_v: Tensor, g_a: Tensor, g_v: Tensor) -> Tensor:
    """Returns the logit of p = (sigmoid(f_a g_v) + sigmoid(f_v g_a)) / 2: twice (B, T, D), (B, D) -> (B, T).

    log p and log(1 - p) are computed from the dot products, since p itself may round to 0 or 1.
    """
    dots = torch.stack((f_a @ g_v.unsqueeze(-1), f_v @ g_a.unsqueeze(-1))).squeeze(-1)
    dots = at_least_float32(dots)
    # Both p and 1 - p have the factor 1/2, which cancels
    p, rest = functional.logsigmoid(dots).logsumexp(0), functional.logsigmoid(-dots).logsumexp(0)
    return p - rest
