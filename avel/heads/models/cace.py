"""CACE-Net (He et al. 2024): CMBS with visually guided audio too, and a contrastive loss on segments."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.config import option
from avel.heads.config import HEADS
from avel.heads.models.cmbs import SelfAttention, SuppressionConfig, SuppressionHead
from avel.heads.models.cmran import CELL, HIDDEN, UNUSED_TEMPLATES, mask_of_both
from avel.heads.models.head import VGG, HeadOutput, Published, Widths
from avel.heads.models.layout import Layout
from avel.heads.models.parts import CROSS_MAPS, AttentionMap, at_least_float32
from avel.heads.tasks.single_label import holds_event
from avel.nn import mean_over_segments, only_inside


@HEADS.register("cace")
class CACE(SuppressionHead):
    """CMBS with co-guided attention; after an eighth of the epochs also refinement and a contrastive loss."""

    @dataclass(frozen=True)
    class Config(SuppressionConfig):
        """Settings of CACE-Net and its training, as in its code."""

        psi: float = option(0.3, "How much visual guidance strengthens audio features.", low=0)
        refinement: float = option(0.6, "Weight of refined features in relevance.", low=0)
        refine_after: float = option(0.125, "Fraction of the epochs without refinement.", low=0, high=1)
        contrast_loss: float = option(1.0, "Weight of the contrastive loss on refined segments.", low=0)
        contrast_noise: float = option(0.1, "Std of the noise on the second view of each segment.", low=0)
        temperature: float = option(0.01, "Temperature of the contrastive loss.", low=1e-3)

    source = "He et al. 2024"
    published = (Published(80.8, "full", VGG, "README of its code, at the best test epoch"),)
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (
        AttentionMap("cells", "audio", "cells"),
        AttentionMap("own_cells", "visual", "cells"),
        AttentionMap("guidance", "visual", "audio"),
        *CROSS_MAPS,
    )
    takes_differing_lengths = True
    weak = False
    cross_width: ClassVar[int] = 512

    config: Config
    refines: Tensor

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.relate = SelfAttention(CELL, 128) if widths.cells else None
        self.guide = Guidance(widths.audio)
        self.refine = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
        self.register_buffer("refines", torch.tensor(1.0))

    def begin_epoch(self, epoch: int) -> None:
        """Turns refinement on after the fraction `refine_after` of the epochs; `epoch` counts from 1."""
        self.refines.fill_(float(epoch - 1 >= self.config.refine_after * self.config.epochs))

    def guided(self, audio: Tensor, cells: Tensor, extras: dict[str, Tensor], mask: Tensor | None) -> Tensor:
        """Strengthens audio by visual guidance: (B, T, D), (B, T, N, 512) -> (B, T, D)."""
        visual = cells if self.relate is None else self.watch.related(cells, self.relate)
        guidance, extras["guidance"] = self.guide(audio, visual.mean(2), mask)
        return audio * (1 + self.config.psi * torch.sigmoid(guidance))

    def relevance_input(self, fused: Tensor, extras: dict[str, Tensor]) -> Tensor:
        """Adds refined to fused features, puts views for the loss in `extras`: (B, T, 256) -> (B, T, 256)."""
        refined = self.refine(fused)
        noise = torch.randn_like(fused) if self.training else torch.zeros_like(fused)
        noisy = self.refine(fused + self.config.contrast_noise * noise)
        extras["refined"] = functional.normalize(at_least_float32(refined), dim=-1)
        extras["noisy"] = functional.normalize(at_least_float32(noisy), dim=-1)
        extras["fused"] = fused + self.config.refinement * self.refines * refined  # for plots
        return extras["fused"]

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Returns CMBS's loss and, with refinement, the contrastive loss: (B, T, K), (B, T) -> scalar."""
        event, extras = holds_event(labels, self.widths.classes), output.extras
        contrast = two_view_contrast(
            extras["refined"], extras["noisy"], event, self.config.temperature, output.mask
        )
        return super().loss(output, labels) + self.config.contrast_loss * self.refines * contrast

    def layout(self) -> Layout:
        """Returns the names in CACE-Net; `refines` keeps its value, since that code does not save it."""
        attention = "spatial_channel_att."
        names = self.suppression_names() | {
            "watch.norm": f"{attention}v_norm",
            "guide.norm": f"{attention}a_norm",
        }
        for own, theirs in (("relate", "video_{}2"), ("guide.relate", "audio_{}")):
            names |= {f"{own}.{name}": attention + theirs.format(name) for name in ("query", "key", "value")}
        names |= {f"guide.{name}": f"{attention}vaudio_{name}" for name in ("key", "value")}
        names |= {"guide.query": f"{attention}v_query", "refine.0": "localize_module.encoder_q.0"}
        unused = ("a_fc", f"{attention}ave_bottleneck", f"{attention}v_norm2")
        code = "Brain-Cog-Lab/CACE-Net, supv_main_model with Co-Guide"
        return Layout(code, names, (*UNUSED_TEMPLATES, *unused), head_only=("refines",))


class Guidance(nn.Module):
    """Attention from visual to audio features over time."""

    def __init__(self, audio: int) -> None:
        super().__init__()
        self.relate, self.norm = SelfAttention(audio, audio), nn.LayerNorm(audio)
        self.query = nn.Linear(CELL, audio)
        self.key, self.value = nn.Linear(audio, audio), nn.Linear(audio, audio)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attends: (B, T, D), (B, T, 512) -> (B, T, D), weights (B, T visual, T audio)."""
        related = self.norm(audio + self.relate(audio, mask))
        scores = at_least_float32(self.query(visual) @ self.key(related).transpose(1, 2))
        weights, value = only_inside(scores, mask).softmax(-1), self.value(related)
        return weights.to(value.dtype) @ value, weights


def two_view_contrast(
    refined: Tensor, noisy: Tensor, event: Tensor, temperature: float, mask: Tensor | None = None
) -> Tensor:
    """Returns a contrastive loss over two views of each segment: twice (B, T, D), (B, T) -> scalar.

    Both views have unit length; together they are 2 T rows a clip. The loss of a row is
    -log(mean of exp(cosine / temperature) over its positives / sum of the same over all other rows). Its
    positives are the other view of the segment and, for an event segment, all other rows with an event.
    """
    rows = torch.cat((refined, noisy), 1)
    # As logarithms throughout, since exp(1 / 0.01) is beyond float32
    similarity = only_inside(rows @ rows.transpose(1, 2) / temperature, mask_of_both(mask))
    both, segments = event.repeat(1, 2), event.shape[1]
    itself = torch.eye(2 * segments, dtype=torch.bool, device=rows.device)
    positive = (both.unsqueeze(2) & both.unsqueeze(1) | itself.roll(segments, 1)) & ~itself
    mean = similarity.masked_fill(~positive, -torch.inf).logsumexp(-1) - positive.sum(-1).to(rows.dtype).log()
    losses = similarity.masked_fill(itself, -torch.inf).logsumexp(-1) - mean
    return mean_over_segments(losses, mask_of_both(mask))
