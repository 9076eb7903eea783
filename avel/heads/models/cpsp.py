"""CPSP (Zhou et al. 2022): positive sample propagation, with contrastive losses on segments and videos."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.config import option
from avel.heads.config import HEADS
from avel.heads.models.head import VGG, HeadOutput, Published, Widths
from avel.heads.models.layout import Layout
from avel.heads.models.parts import AGVA_MAP, AttentionMap, BiLSTM, at_least_float32, attend_cells, xavier
from avel.heads.models.psp import Propagation, bottleneck, pair_loss, psp_names
from avel.heads.models.relevance import RelevanceConfig, RelevanceHead
from avel.heads.tasks.single_label import clip_category, holds_event
from avel.nn import AGVA, mean_over_time, zero_padding

HIDDEN = 256
SEGMENT_TEMPERATURE = 0.6


@HEADS.register("cpsp")
class CPSP(RelevanceHead):
    """PSP's propagation, relevance and category, and three losses on similarities of segments and videos."""

    @dataclass(frozen=True)
    class Config(RelevanceConfig):
        """Settings of CPSP and its training, as in its code."""

        threshold: float = option(0.099, "Attention that a pair must exceed to count.", low=0, high=1)
        pair_loss: float = option(100.0, "Weight of the pair-similarity loss; full supervision only.", low=0)
        segment_loss: float = option(
            0.01, "Weight of the contrastive loss on segments; full supervision only.", low=0
        )
        video_loss: float = option(1.0, "Weight of the contrastive loss on the videos of a batch.", low=0)
        margin: float = option(0.2, "Margin of the loss on videos.", low=0)
        dropout: float = option(0.1, "Fraction of activations dropped in training.", low=0, high=0.99)
        clip_norm: float = 0.1
        epochs: int = 45
        weak_defaults: ClassVar = {"threshold": 0.095, "margin": 0.6, "milestones": (5, 20, 40)}

    source = "Zhou et al. 2022"
    published = (
        Published(78.6, "full", VGG, "Zhou et al. 2022", checked=False),
        Published(74.2, "weak", VGG, "Zhou et al. 2022", checked=False),
    )
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (AGVA_MAP, AttentionMap("gamma_va", "visual", "audio"))
    takes_differing_lengths = True

    config: Config

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.agva = AGVA(128, widths.visual, widths.cells) if widths.cells else None
        self.audio = bottleneck(widths.audio)
        self.visual = bottleneck(widths.visual)
        self.audio_lstm, self.visual_lstm = BiLSTM(128), BiLSTM(128)
        self.propagate = Propagation(config.threshold, config.dropout)
        self.category, self.relevance = nn.Linear(HIDDEN, widths.classes - 1), nn.Linear(HIDDEN, 1)
        xavier(self.agva, self.propagate)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), extras for losses."""
        audio = self.audio(audio)
        visual, extras = attend_cells(self.agva, audio, visual)
        hidden_v, hidden_a = self.visual_lstm(self.visual(visual), mask), self.audio_lstm(audio, mask)
        fused_v, fused_a, extras["gamma_va"] = self.propagate(hidden_v, hidden_a, mask)
        fused_v, fused_a = at_least_float32(fused_v), at_least_float32(fused_a)
        extras["similarity"] = functional.cosine_similarity(fused_v, fused_a, dim=-1)
        fused = (fused_v + fused_a) / 2
        extras["fused"] = functional.normalize(fused, dim=-1)
        category = self.category(mean_over_time(fused, mask))
        return self.decided(self.relevance(fused).squeeze(-1), category, extras)

    def layout(self) -> Layout:
        """Returns the names in CPSP."""
        names = psp_names() | {"relevance": "event_classifier.0", "category": "category_classifier.0"}
        unused = ("linear_v", "v_classify", "a_classify", "L1", "L2")
        kind = "weakly_psp_net" if self.is_weak else "fully_psp_net"
        return Layout(f"jasongief/CPSP, {kind}", names, unused)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Returns the sum of relevance, category and contrastive losses: (B, T, K), (B, T) -> scalar."""
        config, classes, fused = self.config, self.widths.classes, output.extras["fused"]
        event = holds_event(labels, classes).to(fused.dtype)
        loss = super().loss(output, labels)
        loss = loss + config.pair_loss * pair_loss(output.extras["similarity"], event, output.mask)
        loss = loss + config.segment_loss * segment_contrast(fused, event, output.mask)
        videos = mean_over_time(fused, output.mask)
        contrast = video_contrast(videos, clip_category(labels, classes), config.margin, 3)
        return loss + config.video_loss * contrast

    def weak_loss(self, output: HeadOutput, video_labels: Tensor) -> Tensor:
        """Returns `multiple_instance_loss` plus the loss on videos: (B, T, K), (B,) -> scalar."""
        videos = mean_over_time(output.extras["fused"], output.mask)
        contrast = video_contrast(videos, video_labels, self.config.margin, 4)
        return super().weak_loss(output, video_labels) + self.config.video_loss * contrast


def segment_contrast(fused: Tensor, event: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pulls the event segments of a clip together and away from background: (B, T, D), (B, T) -> scalar.

    For each event segment, -log(P / (P + N)): P is the sum of exp(cosine / 0.6) over the clip's event
    segments, itself included, N its mean over those of background. The loss is the mean over all event
    segments of the batch. The published code sums over the other axis, which leaves a constant without a
    gradient.
    """
    similarity = torch.exp(fused @ fused.transpose(1, 2) / SEGMENT_TEMPERATURE)
    background = zero_padding(1 - event, mask)
    positive = (similarity * event.unsqueeze(1)).sum(-1)
    negative = (similarity * background.unsqueeze(1)).sum(-1) / background.sum(-1, keepdim=True).clamp_min(1)
    # Other segments have no part in the mean; adding 1 there only avoids a division by 0
    losses = torch.log1p(negative / (positive + 1 - event))
    return (losses * event).sum() / event.sum().clamp_min(1)


def video_contrast(videos: Tensor, categories: Tensor, margin: float, n_nearest: int) -> Tensor:
    """Pulls videos of one class closer than those of others: (B, D), (B,) -> scalar.

    For each video, max(0, margin + distance to the furthest of its class - mean distance to the nearest
    `n_nearest` of other classes); 0 for a batch of a single class. The published code takes the nearest 3,
    under weak supervision 4.
    """
    distance = torch.cdist(videos, videos, compute_mode="donot_use_mm_for_euclid_dist")
    same = categories.unsqueeze(1) == categories
    furthest = torch.where(same, distance, 0).amax(1)
    nearest = torch.where(same, torch.inf, distance).topk(min(n_nearest, len(videos)), largest=False).values
    is_there = nearest.isfinite()
    mean = torch.where(is_there, nearest, 0).sum(1) / is_there.sum(1).clamp_min(1)
    losses = torch.relu(margin + furthest - mean) * is_there.any(1)
    return losses.mean()
