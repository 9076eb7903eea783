"""Counts what predictions get right and wrong: segments by class, and whole events by kind of mistake.

Labels and predictions are masks, True where a segment of a track holds a class: (R, T, M, C), or C + 1 with
background. Predictions have one mask for each seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avel.heads.tasks.metrics import ratio
from avel.heads.tasks.parsing_metrics import find_runs, run_overlap

Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class over segments, of all tracks and seeds; None where nothing was counted.

    Attributes:
        segments: number of segments whose labels hold the class.
    """

    name: str
    segments: int
    precision_percent: float | None
    recall_percent: float | None
    f1_percent: float | None


@dataclass(frozen=True)
class EventErrors:
    """Numbers of labelled events by how they were found, and of invented ones; means over seeds.

    A labelled event is compared with the predicted event of its class that overlaps it most. It is missed if
    none does, and exact if both begin and end with the same segments; else the predicted one begins or ends
    early or late, or both. A predicted event is invented if no labelled one of its class overlaps it.
    """

    events: float
    exact: float
    begin_early: float
    begin_late: float
    end_early: float
    end_late: float
    missed: float
    invented: float


def class_scores(predicted: Sequence[Masks], label: Masks, names: Sequence[str]) -> list[ClassScore]:
    """Returns the scores of each class, by name."""
    axes = (0, 1, 2)
    true = label.sum(axes).astype(float)
    guessed = np.sum([mask.sum(axes) for mask in predicted], 0, dtype=float)
    both = np.sum([(mask & label).sum(axes) for mask in predicted], 0, dtype=float)
    of_all = true * len(predicted)
    columns = [
        np.where(whole > 0, 100 * ratio(part, whole), np.nan)
        for part, whole in ((both, guessed), (both, of_all), (2 * both, guessed + of_all))
    ]
    return [
        ClassScore(name, int(count), *(None if np.isnan(value) else float(value) for value in values))
        for name, count, *values in zip(names, true, *columns, strict=True)
    ]


def event_errors(predicted: Sequence[Masks], label: Masks) -> EventErrors:
    """Counts events by their mistakes."""
    counts = np.zeros(8)
    for mask in predicted:
        for clip, track, number in np.argwhere((mask | label).any(1)).tolist():
            true, guessed = (find_runs(side[clip, :, track, number].astype(float)) for side in (label, mask))
            counts += _count_errors(true, guessed)
    return EventErrors(*(counts / max(1, len(predicted))).tolist())


def _count_errors(true: list[tuple[int, int]], guessed: list[tuple[int, int]]) -> NDArray[np.float64]:
    """Counts the events of one class in one clip and track, in the order of `EventErrors`: -> (8,)."""
    counts = np.zeros(8)
    for onset, offset in true:
        near = max(guessed, key=lambda event: run_overlap(event, (onset, offset)), default=(0, 0))
        if not run_overlap(near, (onset, offset)):
            counts += (1, 0, 0, 0, 0, 0, 1, 0)
            continue
        begin, end = near[0] - onset, near[1] - offset
        counts += (1, begin == end == 0, begin < 0, begin > 0, end < 0, end > 0, 0, 0)
    counts[7] = sum(not any(run_overlap(event, other) for other in true) for event in guessed)
    return counts
