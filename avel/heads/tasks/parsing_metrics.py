"""Metrics of audio-visual video parsing (Tian et al. 2020, and their code). Shapes: M tracks, C classes.

A clip's F1 is the mean over the classes that its labels or predictions hold, and 1 where these hold none; a
split has the mean over its clips. Types are audio, visual, and audio-visual, which is what both hold at once;
Type@AV is the mean over types, Event@AV counts the events of all tracks together.
"""

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

TYPE, EVENT = "Type@AV", "Event@AV"
MATCHING_IOU = 0.5
"""Intersection over union from which a predicted event is a true one."""
Array = TypeVar("Array", "NDArray[np.float64]", "Tensor")


def segment_f1(predicted: Array, labels: Array) -> Array:
    """Returns each clip's F1 of segments by track, from ones and zeros: twice (..., T, M, C) -> (..., M)."""
    return f1(*segment_counts(predicted, labels))


def segment_counts(predicted: Array, labels: Array) -> tuple[Array, Array]:
    """Counts segments found, and missed or invented: twice (..., T, M, C) -> twice (..., M, C)."""
    found = (predicted * labels).sum(-3)
    return found, (predicted + labels).sum(-3) - 2 * found


def overlap_counts(
    predicted: NDArray[np.float64], labels: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts events found, and missed or invented: twice (R, T, M, C) -> twice (R, M, C).

    An event is a run of segments that hold a class. A predicted one finds a labelled one if their
    intersection is at least half of their union. It never finds two: there is a gap between labelled runs.
    """
    found, wrong = np.zeros((2, len(labels), *labels.shape[2:]))
    for clip, track, number in np.argwhere((predicted + labels).any(1)).tolist():
        guessed, true = (find_runs(side[clip, :, track, number]) for side in (predicted, labels))
        matched = sum(any(run_iou(one, other) >= MATCHING_IOU for other in true) for one in guessed)
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
    """Returns the first segment of each run of ones, and the one after its last: (T,).

    >>> find_runs(np.array([1, 1, 0, 1]))
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([0], segments, [0]))))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def run_iou(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Returns the intersection of two runs over their union.

    >>> run_iou((0, 4), (2, 6))
    0.3333333333333333
    """
    both = run_overlap(one, other)
    return both / (one[1] - one[0] + other[1] - other[0] - both)


def run_overlap(one: tuple[int, int], other: tuple[int, int]) -> int:
    """Returns how many segments two runs have in common."""
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))
