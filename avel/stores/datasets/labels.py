"""Turns events into labels of segments; the only place that does so.

A segment has a class if the events of that class cover at least half of it. If it may have one label only and
two classes each cover exactly half, it has the one that begins first in the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from avel.errors import DatasetError

Table = TypeVar("Table", bound=Any)
UNKNOWN = -1
"""Label of every segment of a sample whose events are not known."""
PADDED = -2
"""Label of every segment after the end of a clip that is shorter than others."""
NO_CLASS = -1
"""Video label of a sample that has no event class, or several."""
ROUNDING_SECONDS = 1e-9
"""Tolerance of sums of seconds: far less than one audio sample, far more than float64's rounding."""


def in_clip(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Returns True for the segments before the end of their clip: labels (R, T) or (R, T, K) -> (R, T)."""
    return np.asarray((labels if labels.ndim == 2 else labels[..., 0]) != PADDED)


def events_known(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Returns True for the samples whose events are known: labels (R, T) or (R, T, K) -> (R,)."""
    return np.asarray((labels != UNKNOWN).reshape(len(labels), -1).all(1))


def whole_segments(seconds: NDArray[Any] | float, segments: int, segment_seconds: float) -> NDArray[np.int64]:
    """Returns how many segments clips cover by half or more, 1 at least and T at most: (...) -> (...).

    >>> whole_segments(np.array([0.2, 3.5, 99]), segments=10, segment_seconds=1.0)
    array([ 1,  4, 10])
    """
    covered = np.floor(np.asarray(seconds) / segment_seconds + 0.5)
    return np.clip(covered, 1, segments).astype(np.int64)


def take(table: Table, chosen: Any) -> Table:
    """Returns a dataclass of columns with some rows; fields of text stay."""
    columns = {name: value for name, value in vars(table).items() if not isinstance(value, str)}
    return replace(table, **{name: column[chosen] for name, column in columns.items()})


@dataclass(frozen=True)
class EventTable:
    """E events of R samples, as columns.

    Attributes:
        sample: (E,) int64, index of the event's sample, 0 to R - 1.
        category: (E,) int64, class id.
        onset_seconds, offset_seconds: (E,) float64, from the clip's start.
        modality: (E,) int64, place in `sample.MODALITIES`; 0 is both visible and audible.
    """

    sample: NDArray[np.int64]
    category: NDArray[np.int64]
    onset_seconds: NDArray[np.float64]
    offset_seconds: NDArray[np.float64]
    modality: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sample)


@dataclass(frozen=True)
class ClassTable:
    """Classes of samples whose events are not known, as columns; R samples in all.

    Attributes:
        known: (R,) bool, whether this table says which classes a sample holds, be it none.
        sample: (n,) int64, index of a sample.
        category: (n,) int64, a class that it holds somewhere.
    """

    known: NDArray[np.bool_]
    sample: NDArray[np.int64]
    category: NDArray[np.int64]


@dataclass(frozen=True)
class Overlap:
    """First seconds in which a sample has events of two classes at once; `sample` is its index."""

    sample: int
    categories: tuple[int, int]
    onset_seconds: float
    offset_seconds: float


def covered_seconds(
    onset_seconds: NDArray[np.float64],
    offset_seconds: NDArray[np.float64],
    segments: int,
    segment_seconds: float,
) -> NDArray[np.float64]:
    """Returns the seconds of each segment that each interval covers: (E,), (E,) -> (E, T)."""
    begin = np.arange(segments) * segment_seconds
    end = np.minimum(offset_seconds[:, None], begin + segment_seconds)
    return np.asarray(np.maximum(end - np.maximum(onset_seconds[:, None], begin), 0), np.float64)


def class_segments(
    events: EventTable, segments: int, segment_seconds: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Returns samples (P,) and classes (P,) of the P pairs that have events, and in which segments: (P, T).

    The last is True where a segment of the sample has the class. Pairs are in the order of samples, then of
    first onsets. Seconds that several events of one class cover count once.
    """
    order = np.lexsort((events.onset_seconds, events.category, events.sample))
    sorted_events = take(events, order)
    onset, offset = sorted_events.onset_seconds.copy(), sorted_events.offset_seconds
    pairs = np.stack((sorted_events.sample, sorted_events.category), 1)
    first = np.ones(len(events), bool)
    first[1:] = (pairs[1:] != pairs[:-1]).any(1)
    reached = 0.0
    for place in range(len(events)):  # cut from each event the seconds that earlier ones of its class cover
        onset[place] = onset[place] if first[place] else max(onset[place], reached)
        reached = offset[place] if first[place] else max(offset[place], reached)
    seconds = covered_seconds(onset, offset, segments, segment_seconds)
    starts = np.flatnonzero(first)
    has = np.add.reduceat(seconds, starts, 0) if len(starts) else seconds
    has = has >= segment_seconds / 2 - ROUNDING_SECONDS
    sample, category = pairs[starts].T
    by_onset = np.lexsort((sorted_events.onset_seconds[starts], sample))
    return sample[by_onset], category[by_onset], has[by_onset]


@dataclass(frozen=True)
class EventsOnGrid:
    """Events of R samples on a grid of T segments.

    Attributes:
        known: (R,) whether a sample's events are known; where not, all its labels are UNKNOWN.
        categories: names of the classes, by their ids.
        name_of: index of a sample -> its name for an error.
        lengths: (R,) segments of each clip, after which labels are PADDED; None where all have T.
    """

    known: NDArray[np.bool_]
    events: EventTable
    categories: tuple[str, ...]
    segments: int
    segment_seconds: float
    name_of: Callable[[int], str]
    lengths: NDArray[np.int64] | None

    def labels(self) -> NDArray[np.int64]:
        """Returns one class per segment, background where it has none: int64 (R, T).

        Raises:
            DatasetError: events of two classes of a sample overlap, or are only visible or only audible.
        """
        of_one = np.flatnonzero(self.events.modality)
        if len(of_one):
            raise DatasetError(
                f"{self.name_of(int(self.events.sample[of_one[0]]))}: has events that are only visible or "
                "only audible, and a segment has one label for both",
                hint="avel train-head with --task multi_label trains on them",
            )
        found = next(overlaps(self.events, self.segments * self.segment_seconds), None)
        if found is not None:
            one, other = (self.categories[number] for number in found.categories)
            raise DatasetError(
                f"{self.name_of(found.sample)}: {one!r} and {other!r} overlap from {found.onset_seconds:g} s "
                f"to {found.offset_seconds:g} s, and a segment has one label",
                hint="shorten one of them, leave one out, or train with --task multi_label",
            )
        labels = np.full((len(self.known), self.segments), len(self.categories), np.int64)
        sample, category, has = class_segments(self.events, self.segments, self.segment_seconds)
        for place in reversed(range(len(sample))):  # the class that comes first is written last: it wins ties
            labels[sample[place], has[place]] = category[place]
        return self._mark_unlabelled(labels)

    def segment_classes(self, modalities: Sequence[int]) -> NDArray[np.int8]:
        """Returns 1 where a segment holds a class, else 0, for each of M modalities: int8 (R, T, M, C).

        `modalities` are places in `sample.MODALITIES`; an event of both is in each.
        """
        shape = len(self.known), self.segments, len(modalities), len(self.categories)
        labels = np.zeros(shape, np.int8)
        for place, modality in enumerate(modalities):
            chosen = take(self.events, (self.events.modality == modality) | (self.events.modality == 0))
            sample, category, has = class_segments(chosen, self.segments, self.segment_seconds)
            labels[sample, :, place, category] = has
        return self._mark_unlabelled(labels)

    def _mark_unlabelled(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Writes UNKNOWN and PADDED into labels, in place: (R, T, ...) -> (R, T, ...)."""
        labels[~self.known] = UNKNOWN
        return mark_padding(labels, self.lengths)


def mark_padding(labels: NDArray[Any], lengths: NDArray[np.int64] | None) -> NDArray[Any]:
    """Marks what is after the end of each clip, in place: (R, T, ...), (R,) -> (R, T, ...)."""
    if lengths is not None:
        labels[np.arange(labels.shape[1]) >= lengths[:, None]] = PADDED
    return labels


def video_labels(held: EventTable | ClassTable, samples: int) -> NDArray[np.int64]:
    """Returns the class that each sample holds, NO_CLASS where it holds none or several: int64 (R,)."""
    labels = np.full(samples, NO_CLASS, np.int64)
    pairs = np.unique(np.stack((held.sample, held.category), 1), axis=0)
    sample, counts = np.unique(pairs[:, 0], return_counts=True)
    one = np.isin(pairs[:, 0], sample[counts == 1])
    labels[pairs[one, 0]] = pairs[one, 1]
    return labels


def video_classes(events: EventTable, classes: ClassTable, categories: int) -> NDArray[np.int8]:
    """Returns which classes each sample holds, by its events or as a table says: 1 or 0, int8 (R, C)."""
    labels = np.zeros((len(classes.known), categories), np.int8)
    labels[events.sample, events.category] = 1
    labels[classes.sample, classes.category] = 1
    return labels


def overlaps(events: EventTable, seconds: float) -> Iterator[Overlap]:
    """Yields, for each sample in which events of two classes overlap within `seconds`, the first overlap."""
    order = np.lexsort((events.onset_seconds, events.sample))
    columns = (events.sample, events.category, events.onset_seconds, events.offset_seconds)
    current, found = -1, False
    active: list[tuple[int, float]] = []
    for sample, category, onset, offset in zip(*(column[order].tolist() for column in columns), strict=True):
        if sample != current:
            current, found, active = sample, False, []
        offset = min(offset, seconds)
        if found or not onset < offset:
            continue
        active = [(other, end) for other, end in active if end > onset + ROUNDING_SECONDS]
        for other, end in active:
            if other != category:
                found = True
                yield Overlap(sample, (other, category), onset, min(end, offset))
                break
        active.append((category, offset))
