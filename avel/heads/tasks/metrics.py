"""Metrics of localisation, of R samples of T segments; background is the last of K classes.

Segments whose label is PADDED, after the end of a clip, are not counted anywhere, whatever was predicted.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.stores.datasets.labels import in_clip

Labels = NDArray[np.integer[Any]]
DRAWN_BYTES = 2**23
"""Most memory that one block of bootstrap draws may take."""


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


def events_of(labels: Labels, background: int) -> list[tuple[int, int, int]]:
    """Lists the runs of equal labels that are not background: (T,) -> [(class, onset, offset)].

    The event covers the segments onset, ..., offset - 1.

    >>> events_of(np.array([2, 0, 0, 1, 2]), background=2)
    [(0, 1, 3), (1, 3, 4)]
    """
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    runs = itertools.pairwise(edges)
    return [(int(labels[onset]), onset, offset) for onset, offset in runs if labels[onset] != background]


def event_counts(
    predicted: Labels, labels: Labels, background: int, onset_tolerance: float, offset_tolerance: float
) -> Labels:
    """Counts matched, predicted and true events of each sample: (R, T), (R, T) -> (R, 3).

    A predicted event matches a true one of its class if onset and offset differ by at most the tolerances, in
    segments; each matches one. Events of one class in a clip do not overlap, so their onsets and offsets are
    in the same order, and taking the first that fits gives the most matches.
    """
    counts = np.zeros((len(labels), 3), np.int64)
    for place, length in enumerate(in_clip(labels).sum(1).tolist()):
        free, true = (events_of(side[place, :length], background) for side in (predicted, labels))
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
    """A metric as a ratio: the sum of `part` over samples, divided by that of `whole`; both (..., R)."""

    part: NDArray[np.float64]
    whole: NDArray[np.float64]

    @property
    def value(self) -> NDArray[np.float64]:
        """Returns the sum of the parts over the sum of the wholes, 0 where that is 0: (..., R) -> (...)."""
        return ratio(self.part.sum(-1), self.whole.sum(-1))


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divides; 0 where the whole is 0: (...), (...) -> (...)."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)


def accuracy_tally(predicted: Labels, labels: Labels) -> Tally:
    """Returns accuracy: right segments over all, background included: (R, T), (R, T) -> (R,)."""
    inside = in_clip(labels)
    return Tally(((predicted == labels) & inside).sum(1).astype(float), inside.sum(1).astype(float))


def segment_f1_tally(predicted: Labels, labels: Labels, background: int) -> Tally:
    """Returns F1 over segments, where background does not count as found: (R, T), (R, T) -> (R,)."""
    inside = in_clip(labels)
    found = ((predicted == labels) & (labels != background) & inside).sum(1)
    held, true = (((side != background) & inside).sum(1) for side in (predicted, labels))
    return Tally(2.0 * found, (held + true).astype(float))


def bootstrap_interval(
    scores: NDArray[np.float64],
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
    weights = np.ones(len(scores)) if weights is None else weights
    sums, sizes = (np.bincount(video, each, minlength=count) for each in (scores * weights, weights))
    random = np.random.default_rng(0)
    means, at_once = np.empty(draws), max(1, DRAWN_BYTES // (8 * count))
    for start in range(0, draws, at_once):
        block = means[start : start + at_once]
        drawn = random.multinomial(count, np.full(count, 1 / count), size=len(block))
        block[:] = (drawn @ sums) / (drawn @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
