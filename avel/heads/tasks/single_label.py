"""Task of AVEL: every segment has one label, the class of an event or background, which is K - 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from avel.grid import Grid
from avel.heads.tasks.metrics import (
    Labels,
    Tally,
    accuracy_tally,
    event_counts,
    ratio,
    segment_accuracy,
    segment_f1_tally,
)
from avel.heads.tasks.results import LabelSets, PredictionMetrics
from avel.heads.tasks.single_label_results import FIGURE_COLUMNS, single_label_results
from avel.heads.tasks.task import Classes, FigureColumn, Targets, Task
from avel.stores.cached_samples import CachedSamples
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.labels import NO_CLASS, PADDED, UNKNOWN, in_clip
from avel.stores.datasets.sample import Sample
from avel.stores.features import FeatureCache

if TYPE_CHECKING:
    from torch import Tensor


def decode_argmax(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """Returns the most probable class of each segment: (R, T, K) -> (R, T)."""
    return np.asarray(probabilities.argmax(-1), np.int64)


def decode_event(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """Returns for each segment its clip's one event class, or background: (R, T, K) -> (R, T).

    The clip's class is the event with the highest mean probability over time. A segment holds it where it is
    more probable than background.
    """
    background = probabilities.shape[-1] - 1
    category = probabilities[..., :background].mean(1).argmax(-1)[:, None]
    score = np.take_along_axis(probabilities, category[..., None], -1)[..., 0]
    return np.asarray(np.where(score > probabilities[..., background], category, background), np.int64)


@dataclass(frozen=True)
class SingleLabel(Task):
    """One label a segment, int64 (R, T): a class id or K - 1; a video's is that of its only class, (R,)."""

    name = "single_label"
    measure = "accuracy"
    metrics: ClassVar = {"accuracy": "segment accuracy", "segment_f1": "segment F1", "event_f1": "event F1"}
    decoders: ClassVar = {"argmax": decode_argmax, "event": decode_event}
    one_label = True

    @property
    def outputs(self) -> int:
        return len(self.categories) + 1

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.class_names

    @property
    def background(self) -> int:
        """Returns the class id of background, K - 1."""
        return len(self.categories)

    def targets(self, cache: FeatureCache, samples: CachedSamples) -> Targets:
        """Returns the labels. The video label is background without events, and missing for several classes.

        Raises:
            DatasetError: a sample in which events of two classes overlap, or events in one modality alone.
        """
        video_classes = samples.video_classes(len(self.categories))
        background = samples.labelled & ~video_classes.any(1)
        video_labels = np.where(background, self.background, samples.video_labels())
        return Targets(cache.labels(samples), video_labels, video_labels != NO_CLASS)

    def labels_of(self, dataset: Dataset, grid: Grid, samples: Sequence[Sample]) -> Labels:
        return np.asarray(dataset.labels(grid, samples))

    def as_scores(self, labels: Labels) -> NDArray[np.float32]:
        return np.eye(self.outputs, dtype=np.float32)[labels]

    @staticmethod
    def are_probabilities(scores: NDArray[np.float64]) -> bool:
        """Returns True if no score is negative, and those of a segment sum to 1."""
        return bool(scores.min() >= 0 and np.allclose(scores.sum(-1), 1, atol=1e-3))

    def background_targets(self, samples: int, segments: int) -> Targets:
        labels = np.full((samples, segments), self.background)
        return Targets(labels, labels[:, 0], np.ones(samples, bool))

    def fractions(self, labels: Tensor) -> Tensor:
        """Returns the fraction of segments of each class, background included: (R, T) -> float32 (R, K)."""
        import torch

        classes = torch.arange(self.outputs, device=labels.device)
        return (labels.unsqueeze(-1) == classes).float().sum(1) / (labels != PADDED).sum(1, keepdim=True)

    def obstacle(self, labels: Tensor) -> str:
        first = int(labels.flatten()[0])
        only = bool(((labels == first) | (labels == PADDED)).all())
        return f"one class only, {self.class_names[first]!r}" if only else ""

    @staticmethod
    def loss(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns cross-entropy over segments, Eq. 9 up to a constant: (B, T, K), (B, T) -> scalar."""
        from torch.nn import functional

        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=PADDED)

    @staticmethod
    def video_loss(logits: Tensor, video_labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns cross-entropy of the scores averaged over time: (B, T, K), (B,) or (B, K) -> scalar."""
        from torch.nn import functional

        from avel.nn import mean_over_time

        return functional.cross_entropy(mean_over_time(logits, mask), video_labels)

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        """Returns the softmax in float32: (..., K) -> (..., K)."""
        return logits.float().softmax(-1)

    def points(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Counts the segments whose most probable class is their label."""
        return (logits.argmax(-1) == labels).sum(-1)

    def video_points(self, logits: Tensor, video_labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns 1 where a video's class is right, else 0: (..., B, T, K), (B,) -> (..., B).

        The predicted class is the event with the highest mean probability; where no segment's most probable
        class is an event, it is background.
        """
        event = self.probabilities(logits)[..., : self.background].mean(-2).argmax(-1)
        silent = logits.argmax(-1) == self.background
        silent = (silent if mask is None else silent | ~mask).all(-1)
        return event.where(~silent, self.background) == video_labels

    @staticmethod
    def full_points(labels: Tensor) -> Tensor:
        return (labels != PADDED).sum(-1)

    def right(self, predicted: Labels, labels: Labels) -> NDArray[np.bool_]:
        return np.asarray(predicted == labels)

    def sample_scores(self, predicted: Labels, labels: Labels) -> NDArray[np.float64]:
        """Returns each sample's fraction of right segments: (R, T), (R, T) -> (R,)."""
        tally = accuracy_tally(predicted, labels)
        return ratio(tally.part, tally.whole)

    @staticmethod
    def weights(labels: Labels) -> NDArray[np.float64]:
        """Returns how many segments each sample has."""
        return np.asarray(in_clip(labels).sum(1), np.float64)

    def trivial_baselines(self, labels: Labels) -> dict[str, float]:
        """Returns rule without a model -> fraction of right segments: (R, T).

        One rule is background everywhere. The other knows the classes, but not where background is: it is
        right in every segment that holds an event, and wrong in all others.
        """
        background = np.full_like(labels, self.background)
        # The labels themselves, compared with this, are right in events and wrong in background
        no_background = np.where(labels == self.background, UNKNOWN, labels)
        return {
            "always background": segment_accuracy(background, labels),
            "right class, never background": segment_accuracy(labels, no_background),
        }

    def tallies(self, predicted: Labels, labels: Labels) -> dict[str, Tally]:
        matched, found, true = event_counts(predicted, labels, self.background, 1, 1).T
        return {
            "accuracy": accuracy_tally(predicted, labels),
            "segment_f1": segment_f1_tally(predicted, labels, self.background),
            "event_f1": Tally(2.0 * matched, (found + true).astype(float)),
        }

    def results(self, sets: LabelSets) -> PredictionMetrics:
        return single_label_results(sets, self.categories, self.interval_percent(sets))

    @property
    def columns(self) -> tuple[FigureColumn, ...]:
        return FIGURE_COLUMNS

    def class_masks(self, labels: Labels) -> NDArray[np.bool_]:
        return np.asarray(labels[:, :, None, None] == np.arange(self.outputs))

    def classes_of(self, labels: Labels) -> list[list[Classes]]:
        inside = labels[labels != PADDED].tolist()
        return [[() if label == self.background else (label,) for label in inside]]


def holds_event(labels: Tensor, classes: int) -> Tensor:
    """Returns True where a segment holds an event, not background: (B, T) -> (B, T)."""
    return (labels < classes - 1) & (labels != PADDED)


def clip_category(labels: Tensor, classes: int) -> Tensor:
    """Returns each clip's event class, the largest id of several, or background: (B, T) -> (B,)."""
    event = labels.where(holds_event(labels, classes), -1).amax(-1)
    return event.where(event >= 0, classes - 1)


def as_fractions(video_labels: Tensor, classes: int) -> Tensor:
    """Returns video labels as float32 fractions, a class id as 1 for it: (B,) or (B, K) -> (B, K)."""
    from torch.nn import functional

    return functional.one_hot(video_labels, classes).float() if video_labels.ndim == 1 else video_labels
