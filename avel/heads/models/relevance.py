"""Base of heads with relevance (is a segment part of the event?) and category (which event is it?)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from avel.config import option
from avel.heads.config import HeadConfig, WeakLabels
from avel.heads.models.head import Head, HeadOutput, Widths
from avel.heads.models.parts import at_least_float32
from avel.heads.tasks.single_label import clip_category, holds_event
from avel.nn import amax_over_time, mean_over_segments


@dataclass(frozen=True)
class RelevanceConfig(HeadConfig):
    """Settings of these heads: a threshold, and a learning rate halved after 10, 20 and 30 epochs."""

    event_threshold: float = option(
        0.5, "Relevance that a segment must exceed to hold the event.", low=0.01, high=0.99
    )
    lr_decay: float = 0.5
    milestones: tuple[int, ...] = (10, 20, 30)


class RelevanceHead(Head):
    """Base of heads with a relevance logit for each segment and category scores for each clip.

    The `forward` of a subclass ends with `decided`. Category scores are of the K - 1 events, or of all K
    classes where a published weak network scores background too.
    """

    weak_labels: ClassVar[tuple[WeakLabels, ...]] = ("event",)

    def __init__(self, widths: Widths, config: RelevanceConfig, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.is_weak = weak
        self.event_threshold = config.event_threshold

    def decided(self, relevance: Tensor, category: Tensor, extras: dict[str, Tensor]) -> HeadOutput:
        """Returns scores, with both inputs as extras for the losses: (B, T), (B, C) -> logits (B, T, K)."""
        relevance, category = at_least_float32(relevance), at_least_float32(category)
        logits = decision_scores(relevance, category, self.widths.classes, self.event_threshold)
        return HeadOutput(logits, extras | {"relevance": relevance, "category": category})

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Returns the sum of relevance and category loss: (B, T, K), (B, T) -> scalar."""
        relevance = relevance_loss(output.extras["relevance"], labels, self.widths.classes, output.mask)
        return relevance + category_loss(output.extras["category"], labels, self.widths.classes)

    def weak_loss(self, output: HeadOutput, video_labels: Tensor) -> Tensor:
        """Returns `multiple_instance_loss`: (B, T, K), (B,) -> scalar."""
        relevance, category = output.extras["relevance"], output.extras["category"]
        return multiple_instance_loss(relevance, category, video_labels, self.widths.classes, output.mask)


def decision_scores(relevance: Tensor, category: Tensor, classes: int, threshold: float) -> Tensor:
    """Returns scores whose arg-max is the published decision: (B, T), (B, C) -> (B, T, K).

    The decision is the clip's best category where sigmoid(relevance) > threshold, else background. With the
    margin m = relevance - logit(threshold), the best category scores m, every other one m minus its distance
    from the best, and background 0. So P(best) / (P(best) + P(background)) is sigmoid(m), and both of avel's
    decoders decide as published. Where C = K, background is a category too, and its score is at least 0.
    """
    margin = relevance - math.log(threshold / (1 - threshold))
    scores = (category - category.amax(-1, keepdim=True)).unsqueeze(1) + margin.unsqueeze(-1)
    background = torch.zeros_like(margin).unsqueeze(-1)
    if category.shape[-1] == classes:
        background = torch.maximum(background, scores[..., -1:])
        scores = scores[..., :-1]
    return torch.cat((scores, background), -1)


def relevance_loss(relevance: Tensor, labels: Tensor, classes: int, mask: Tensor | None = None) -> Tensor:
    """Returns binary cross-entropy averaged over segments: (B, T), (B, T) -> scalar."""
    targets = holds_event(labels, classes).to(relevance.dtype)
    losses = functional.binary_cross_entropy_with_logits(relevance, targets, reduction="none")
    return mean_over_segments(losses, mask)


def category_loss(category: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Returns cross-entropy averaged over the clips that hold an event: (B, C), (B, T) -> scalar."""
    events = clip_category(labels, classes)
    known = events < classes - 1
    losses = functional.cross_entropy(category, torch.where(known, events, 0), reduction="none")
    return (losses * known).sum() / known.sum().clamp_min(1)


def multiple_instance_loss(
    relevance: Tensor, category: Tensor, video_labels: Tensor, classes: int, mask: Tensor | None = None
) -> Tensor:
    """Returns the soft-margin loss of weighted scores, maximum over time: (B, T), (B, C), (B,) -> scalar.

    Where the C categories leave out background, the target of a clip without an event is all 0.
    """
    weighted = torch.sigmoid(relevance).unsqueeze(-1) * category.unsqueeze(1)
    scores = torch.softmax(amax_over_time(weighted, mask), -1)
    targets = functional.one_hot(video_labels, classes)[:, : category.shape[-1]].to(scores.dtype)
    return functional.multilabel_soft_margin_loss(scores, targets)
