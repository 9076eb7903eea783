"""Heads that ask when (relevance, a segment) and what (category, a clip): their decoder and their losses."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from avel.config import option
from avel.heads.config import HeadConfig
from avel.heads.models.head import Head, HeadOutput, Widths
from avel.heads.models.parts import at_least_float32


@dataclass(frozen=True)
class RelevanceConfig(HeadConfig):
    """What these heads share: a threshold, and a learning rate halved after 10, 20 and 30 epochs."""

    event_threshold: float = option(
        0.5, "Relevance that a segment must exceed to hold the event.", low=0.01, high=0.99
    )
    lr_decay: float = 0.5
    milestones: tuple[int, ...] = (10, 20, 30)


class RelevanceHead(Head):
    """Base of heads with one relevance logit a segment and one set of category scores a clip.

    A subclass ends its `forward` with `decided`. Its category scores are of the K - 1 events, or of all K
    classes in those published weak networks that score background too.
    """

    def __init__(self, widths: Widths, config: RelevanceConfig, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.from_videos = weak
        self.event_threshold = config.event_threshold

    def decided(self, relevance: Tensor, category: Tensor, extras: dict[str, Tensor]) -> HeadOutput:
        """Scores and what the losses read: (B, T), (B, C) -> logits (B, T, K), `relevance` and `category`."""
        relevance, category = at_least_float32(relevance), at_least_float32(category)
        logits = decision_scores(relevance, category, self.widths.classes, self.event_threshold)
        return HeadOutput(logits, extras | {"relevance": relevance, "category": category})

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """When and what, L_rel: (B, T, K), (B, T) -> scalar."""
        when = relevance_loss(output.extras["relevance"], labels, self.widths.classes)
        return when + category_loss(output.extras["category"], labels, self.widths.classes)

    def weak_loss(self, output: HeadOutput, categories: Tensor) -> Tensor:
        """What, judged at the segments that matter: (B, T, K), (B,) -> scalar."""
        relevance, category = output.extras["relevance"], output.extras["category"]
        return multiple_instance_loss(relevance, category, categories, self.widths.classes)


def decision_scores(relevance: Tensor, category: Tensor, classes: int, threshold: float) -> Tensor:
    """Scores whose arg-max is the published decision: (B, T), (B, C) -> (B, T, K).

    The decision is the clip's best category where sigmoid(relevance) > threshold, else background. With the
    margin m = relevance - logit(threshold), the best category scores m, the others less by as much as they
    are behind it, and background 0. So the share that the best category has of its own probability and
    background's is sigmoid(m), and both of avel's decoders decide as published. Where C = K, background
    competes among the categories too, and keeps the better of its two scores.
    """
    margin = relevance - math.log(threshold / (1 - threshold))
    scores = (category - category.amax(-1, keepdim=True)).unsqueeze(1) + margin.unsqueeze(-1)
    nothing = torch.zeros_like(margin).unsqueeze(-1)
    if category.shape[-1] == classes:
        scores, background = scores[..., :-1], scores[..., -1:]
        nothing = torch.maximum(nothing, background)
    return torch.cat((scores, nothing), -1)


def holds_event(labels: Tensor, classes: int) -> Tensor:
    """Whether each segment holds an event; background is the last class: (B, T) -> (B, T)."""
    return labels < classes - 1


def clip_category(labels: Tensor, classes: int) -> Tensor:
    """The event of each clip, the last class if it has several, else background: (B, T) -> (B,)."""
    last = torch.where(holds_event(labels, classes), labels, -1).amax(-1)
    return torch.where(last < 0, classes - 1, last)


def relevance_loss(relevance: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Binary cross-entropy of the logits, averaged over segments: (B, T), (B, T) -> scalar."""
    wanted = holds_event(labels, classes).to(relevance.dtype)
    return functional.binary_cross_entropy_with_logits(relevance, wanted)


def category_loss(category: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Cross-entropy of the clip's event, averaged over the clips that hold one: (B, C), (B, T) -> scalar."""
    events = clip_category(labels, classes)
    known = events < classes - 1
    losses = functional.cross_entropy(category, torch.where(known, events, 0), reduction="none")
    return (losses * known).sum() / known.sum().clamp_min(1)


def multiple_instance_loss(relevance: Tensor, category: Tensor, categories: Tensor, classes: int) -> Tensor:
    """Soft margin of the softmax of the largest weighted scores: (B, T), (B, C), (B,) -> scalar.

    A clip without an event wants no category where C leaves out background.
    """
    weighted = torch.sigmoid(relevance).unsqueeze(-1) * category.unsqueeze(1)
    scores = torch.softmax(weighted.amax(1), -1)
    wanted = functional.one_hot(categories, classes)[:, : category.shape[-1]].to(scores.dtype)
    return functional.multilabel_soft_margin_loss(scores, wanted)
