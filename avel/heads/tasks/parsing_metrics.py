"""Metrics of audio-visual video parsing (Tian et al. 2020, and their code). Shapes: M tracks, C classes.

Per clip, F1 of each class that is in labels or predictions, averaged over these classes; 1 where there is
none. A split has the mean over its clips. Types are audio, visual, and audio-visual, which is what
both hold at once; Type@AV is the mean over types, Event@AV counts the events of all tracks together.
"""

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

TYPE, EVENT = "Type@AV", "Event@AV"
OVERLAP = 0.5
"""Intersection over union from which a predicted event is a true one."""
Array = TypeVar("Array", "NDArray[np.float64]", "Tensor")


def segment_f1(predicted: Array, labels: Array) -> Array:
    """Returns F1 of each clip and track over segments: 1 or 0, twice (..., T, M, C) -> (..., M)."""
    return f1(*segment_counts(predicted, labels))


def segment_counts(predicted: Array, labels: Array) -> tuple[Array, Array]:
    """Counts segments found, and missed or invented: twice (..., T, M, C) -> twice (..., M, C)."""
    found = (predicted * labels).sum(-3)
    return found, (predicted + labels).sum(-3) - 2 * found


def overlap_counts(
    predicted: NDArray[np.float64], labels: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts events found, and missed or invented: twice (R, T, M, C) -> twice (R, M, C).

    An event is a run of segments that hold a class. It is found if one of the other side overlaps it by half
    of the seconds that either covers; no two events of one class can overlap a third so much.
    """
    shape = (labels.shape[0], *labels.shape[2:])
    found, wrong = np.zeros(shape), np.zeros(shape)
    for clip, track, number in np.argwhere((predicted + labels).any(1)).tolist():
        guessed, true = (find_runs(side[clip, :, track, number]) for side in (predicted, labels))
        matched = sum(any(overlap(one, other) >= OVERLAP for other in true) for one in guessed)
        found[clip, track, number] = matched
        wrong[clip, track, number] = len(guessed) + len(true) - 2 * matched
    return found, wrong


def f1(found: Array, wrong: Array) -> Array:
    """Returns the mean F1 over classes with any count, 1 where there is none: twice (..., C) -> (...)."""
    counted = (found + wrong > 0).sum(-1)
    values = 2 * found / (2 * found + wrong).clip(min=1)
    mean: Array = values.sum(-1) / counted.clip(min=1) + (counted == 0) * 1.0
    return mean


def find_runs(segments: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Returns first and end of each run of ones: (T,).

    >>> find_runs(np.array([1, 1, 0, 1]))
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([0], segments, [0]))))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def overlap(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Returns the intersection of two runs over their union.

    >>> overlap((0, 4), (2, 6))
    0.3333333333333333
    """
    both = shared(one, other)
    return both / (one[1] - one[0] + other[1] - other[0] - both)


def shared(one: tuple[int, int], other: tuple[int, int]) -> int:
    """Returns how many segments two runs have in common."""
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))
