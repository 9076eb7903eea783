"""Metrics of localisation, of R samples of T segments; background is the last of K classes.

Segments whose label is PADDED, after the end of a clip, are not counted anywhere, whatever was predicted.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.stores.datasets.labels import UNKNOWN, in_clip

Labels = NDArray[np.integer[Any]]
DRAWN_BYTES = 2**23
"""Numbers of a bootstrap that are drawn at once."""


def segment_accuracy(predicted: Labels, labels: Labels) -> float:
    """Returns the fraction of right segments, background included: (R, T), (R, T) -> scalar, or NaN."""
    inside = in_clip(labels)
    return float((predicted == labels)[inside].mean()) if inside.any() else float("nan")


def confusion(predicted: Labels, labels: Labels, classes: int) -> NDArray[np.int64]:
    """Counts segments by true class (rows) and predicted class (columns): (R, T), (R, T) -> (K, K)."""
    inside = in_clip(labels)
    pairs = labels[inside] * classes + predicted[inside]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def recall_by_class(counts: Labels) -> NDArray[np.float64]:
    """Returns the fraction of each class's segments that were found, NaN without any: (K, K) -> (K,)."""
    totals = counts.sum(1)
    recall = np.full(len(counts), np.nan)
    np.divide(np.diag(counts), totals, out=recall, where=totals > 0)
    return recall


def trivial_baselines(labels: Labels, background: int) -> dict[str, float]:
    """Returns rule without a model -> fraction of right segments: (R, T).

    The rules are background everywhere, and in every segment the class that its clip has there, as if the
    classes were known and only background were to be found.
    """
    always = segment_accuracy(np.full_like(labels, background), labels)
    # Labels as predictions: where the truth was background they are now wrong
    event = segment_accuracy(labels, np.where(labels == background, UNKNOWN, labels))
    return {"always background": always, "right class, never background": event}


@dataclass(frozen=True)
class EventScores:
    """Event-level counts and what follows from them; precision and recall are 0 where nothing was counted."""

    matched: int
    predicted: int
    true: int

    @property
    def precision(self) -> float:
        """Fraction of predicted events that are true ones."""
        return self.matched / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Fraction of true events that were found."""
        return self.matched / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        counted = self.predicted + self.true
        return 2 * self.matched / counted if counted else 0.0


def events_of(labels: Labels, background: int) -> list[tuple[int, int, int]]:
    """Lists the runs of equal labels that are not background: (T,) -> [(class, onset, offset)].

    The event covers the segments onset, ..., offset - 1.

    >>> events_of(np.array([2, 0, 0, 1, 2]), background=2)
    [(0, 1, 3), (1, 3, 4)]
    """
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    runs = itertools.pairwise(edges)
    return [(int(labels[onset]), onset, offset) for onset, offset in runs if labels[onset] != background]


def event_scores(
    predicted: Labels,
    labels: Labels,
    background: int,
    *,
    onset_tolerance: float = 0,
    offset_tolerance: float = 0,
) -> EventScores:
    """Sums `event_counts` over samples: (R, T), (R, T) -> counts; tolerances in segments."""
    matched, *others = event_counts(predicted, labels, background, onset_tolerance, offset_tolerance).T
    return EventScores(int(matched.sum()), *(int(counted.sum()) for counted in others))


def event_counts(
    predicted: Labels, labels: Labels, background: int, onset_tolerance: float, offset_tolerance: float
) -> Labels:
    """Counts matched, predicted and true events of each sample: (R, T), (R, T) -> (R, 3).

    Events are matched one to one by class, onset and offset, tolerances in segments. Events of one class in a
    clip do not overlap, so their onsets and offsets are in the same order, and taking the first that fits
    gives the most matches.
    """
    counts, lengths = np.zeros((len(labels), 3), np.int64), in_clip(labels).sum(1).tolist()
    for place, (predicted_row, label_row) in enumerate(zip(predicted, labels, strict=True)):
        free = events_of(predicted_row[: lengths[place]], background)
        true = events_of(label_row[: lengths[place]], background)
        counts[place, 1:] = len(free), len(true)
        for category, onset, offset in true:
            for event in free:
                near = abs(event[1] - onset) <= onset_tolerance and abs(event[2] - offset) <= offset_tolerance
                if event[0] == category and near:
                    free.remove(event)
                    counts[place, 0] += 1
                    break
    return counts


@dataclass(frozen=True)
class Tally:
    """A metric that is a ratio of two sums over samples: those of part (..., R) and whole (..., R)."""

    part: NDArray[np.float64]
    whole: NDArray[np.float64]

    @property
    def value(self) -> NDArray[np.float64]:
        """Value of the metric, sum of parts over sum of wholes, 0 where that is 0: (..., R) -> (...)."""
        return ratio(self.part.sum(-1), self.whole.sum(-1))

    @property
    def by_sample(self) -> NDArray[np.float64]:
        """Value of each sample by itself, 0 where its whole is 0: (..., R)."""
        return ratio(self.part, self.whole)


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divides; 0 where the whole is 0: (...), (...) -> (...)."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)


def accuracy_tally(predicted: Labels, labels: Labels) -> Tally:
    """Returns right segments over all, background included: (R, T), (R, T) -> (R,)."""
    inside = in_clip(labels)
    return Tally(((predicted == labels) & inside).sum(1).astype(float), inside.sum(1).astype(float))


def segment_f1_tally(predicted: Labels, labels: Labels, background: int) -> Tally:
    """Returns F1 over segments, where background does not count as found: (R, T), (R, T) -> (R,).

    A segment is found if it holds an event and its class is right.
    """
    inside = in_clip(labels)
    matched = ((predicted == labels) & (labels != background) & inside).sum(1)
    positive, true = (((values != background) & inside).sum(1) for values in (predicted, labels))
    return Tally(2.0 * matched, (positive + true).astype(float))


def event_f1_tally(
    predicted: Labels, labels: Labels, background: int, onset_tolerance: float, offset_tolerance: float
) -> Tally:
    """Returns F1 over events, matched by `event_counts`: (R, T), (R, T) -> (R,)."""
    matched, positive, true = event_counts(predicted, labels, background, onset_tolerance, offset_tolerance).T
    return Tally(2.0 * matched, (positive + true).astype(float))


def bootstrap_interval(
    right: NDArray[np.float64],
    video_id: NDArray[np.object_],
    *,
    draws: int = 2000,
    weights: NDArray[np.float64] | None = None,
) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of the mean over samples: (R,), (R,) -> low, high.

    It draws videos with replacement, not samples: samples of one video are not independent. With `weights`
    (R,) it is of the weighted mean.
    """
    _, video = np.unique(video_id.astype(str), return_inverse=True)
    count = int(video.max()) + 1
    weights = np.ones(len(right)) if weights is None else weights
    sums, sizes = (np.bincount(video, each, minlength=count) for each in (right * weights, weights))
    random = np.random.default_rng(0)
    means, at_once = np.empty(draws), max(1, DRAWN_BYTES // (8 * count))
    for start in range(0, draws, at_once):
        block = means[start : start + at_once]
        drawn = random.multinomial(count, np.full(count, 1 / count), size=len(block))
        block[:] = (drawn @ sums) / (drawn @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
