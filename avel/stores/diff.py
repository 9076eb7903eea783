"""Compares two feature caches clip by clip: `avel diff`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.errors import ConfigError, StoreError, UnknownNameError
from avel.stores.features import FeatureCache
from avel.stores.hdf5 import BLOCK_ROWS
from avel.stores.provenance import INPUTS, differing_entries
from avel.text import plural, table

WORST = 5
NOT_COMPARED = frozenset({*INPUTS, "annotations", "orders", "findings"})
"""Entries of the provenance that are not compared: paths, options, and what follows from the samples."""


@dataclass(frozen=True)
class ClipDifference:
    """Lowest cosine of a vector of one clip with the other cache's, and largest absolute difference."""

    video_id: str
    cosine: float
    difference: float


@dataclass(frozen=True)
class ArrayDifference:
    """Differences of one array over all clips that are in both caches.

    Attributes:
        equal: clips of which all numbers are equal.
        mean_cosine, lowest_cosine: over all vectors; two zero vectors have cosine 1.
        largest_difference: largest absolute difference of two numbers.
        scale: mean absolute value in the first cache, to compare the differences with.
        worst: clips of the lowest cosine.
    """

    clips: int
    equal: int
    mean_cosine: float
    lowest_cosine: float
    largest_difference: float
    scale: float
    worst: tuple[ClipDifference, ...]


@dataclass(frozen=True)
class CacheDifference:
    """Two caches compared.

    Attributes:
        same: whether the caches agree; `missing_in_a`, `missing_in_b` and the provenance do not count.
        arrays: array, or pair of arrays -> how it differs.
        incomparable: array, or pair of arrays, that cannot be compared -> why.
        only_in_a, only_in_b: videos that one cache lacks.
        missing_in_a, missing_in_b: videos that each cache lists as missing -> why.
        lengths_differ: videos in both that have another number of segments.
        samples_differ: samples that one cache lacks, or that have another video or tag there.
        events_differ: samples in both whose events, or the classes known instead of events, differ.
        splits_differ: samples in both whose split differs.
        provenance_differs: entry of the provenance that differs, "encoder.digest" -> the two values.
    """

    same: bool
    arrays: dict[str, ArrayDifference]
    incomparable: dict[str, str]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    missing_in_a: dict[str, str]
    missing_in_b: dict[str, str]
    lengths_differ: tuple[str, ...]
    samples_differ: tuple[int, ...]
    events_differ: tuple[int, ...]
    splits_differ: tuple[int, ...]
    provenance_differs: dict[str, tuple[Any, Any]]

    def headline(self) -> str:
        """Returns the result in one line."""
        if self.same:
            return "A and B hold the same"
        differences = [
            f"{name} differs in {each.clips - each.equal:,} of {plural(each.clips, 'clip')}"
            for name, each in self.arrays.items()
            if each.equal < each.clips
        ]
        differences += [f"{name} cannot be compared ({why})" for name, why in self.incomparable.items()]
        counts = (
            (self.only_in_a, "clip", "only in A"),
            (self.only_in_b, "clip", "only in B"),
            (self.lengths_differ, "clip", "of another length"),
            (self.samples_differ, "sample", "only in one, or of another clip or tag"),
            (self.events_differ, "sample", "with other events"),
            (self.splits_differ, "sample", "in another split"),
        )
        differences += [f"{plural(len(some), what)} {how}" for some, what, how in counts if some]
        if self.provenance_differs:
            differences.append(plural(len(self.provenance_differs), "difference") + " in the provenance")
        return f"A and B differ: {'; '.join(differences)}"

    def lines(self) -> list[str]:
        """Returns a table of the arrays, and one of the differing entries of the provenance."""
        rows = [
            (name, each.clips, each.equal, each.mean_cosine, each.lowest_cosine, each.largest_difference)
            for name, each in self.arrays.items()
        ]
        header = ("array", "clips", "equal", "mean cosine", "lowest cosine", "largest difference")
        pairs = [(name, str(a), str(b)) for name, (a, b) in self.provenance_differs.items()]
        return [*table(header, rows), "", *([*table(("made with", "A", "B"), pairs), ""] if pairs else [])]


def diff(
    a: Path | str, b: Path | str | None = None, arrays: Mapping[str, str] | None = None
) -> CacheDifference:
    """Compares cache `b` with cache `a`, with 64 clips in memory at once.

    >>> diff("ave.h5", arrays={"f_v": "clip"}).arrays["f_v, clip"].mean_cosine  # doctest: +SKIP

    Args:
        b: the other cache; None for the same one.
        arrays: array of `a` -> array of `b` to compare; by default all, by name.

    Raises:
        ConfigError: one cache, and no arrays.
        UnknownNameError: a cache holds no such array.
        StoreError: no cache, or the two share no video.
    """
    if b is None and not arrays:
        raise ConfigError(f"{a}: compared with itself", hint="name a second cache, or two arrays: f_v=clip")
    first, second = FeatureCache.open(a), FeatureCache.open(a if b is None else b)
    pairs = {name: (name, name) for name in sorted({*first.shapes, *second.shapes})}
    if arrays:
        pairs = {f"{left}, {right}": (left, right) for left, right in arrays.items()}
        for cache, names in ((first, arrays.keys()), (second, arrays.values())):
            for name in names:
                if name not in cache.shapes:
                    raise UnknownNameError("array", name, cache.shapes, where=str(cache.path))
    shared = set(first.video_ids) & set(second.video_ids)
    common = [video_id for video_id in first.video_ids if video_id in shared]
    if not common:
        raise StoreError(f"{a} and {b}: no video is in both", hint="compare caches of the same dataset")
    in_first, in_second = first.places_of_videos(common), second.places_of_videos(common)
    compared, incomparable = {}, _incomparable(first, second, pairs)
    for name, pair in pairs.items():
        if name not in incomparable:
            compared[name] = _compare(common, _blocks(first, second, pair, in_first, in_second))
    samples, events, splits = _samples_differ(first, second)
    other_lengths = first.lengths[in_first] != second.lengths[in_second]
    lengths = tuple(common[place] for place in np.flatnonzero(other_lengths))
    only_a = tuple(name for name in first.video_ids if name not in shared)
    only_b = tuple(name for name in second.video_ids if name not in shared)
    equal = all(array.equal == array.clips for array in compared.values())
    return CacheDifference(
        same=equal and not any((incomparable, only_a, only_b, lengths, samples, events, splits)),
        arrays=compared,
        incomparable=incomparable,
        only_in_a=only_a,
        only_in_b=only_b,
        missing_in_a={item.video_id: item.reason for item in first.missing},
        missing_in_b={item.video_id: item.reason for item in second.missing},
        lengths_differ=lengths,
        samples_differ=samples,
        events_differ=events,
        splits_differ=splits,
        provenance_differs={
            where: (one, other)
            for where, one, other in differing_entries(first.provenance, second.provenance, NOT_COMPARED)
        },
    )


def _incomparable(
    first: FeatureCache, second: FeatureCache, pairs: Mapping[str, tuple[str, str]]
) -> dict[str, str]:
    """Returns pair -> why it cannot be compared.

    One cache lacks the array, or it has another shape there, or segments of another length.
    """
    if first.segment_seconds != second.segment_seconds:
        why = f"segments of {first.segment_seconds:g} s and of {second.segment_seconds:g} s"
        return dict.fromkeys(pairs, why)
    reasons = {}
    for name, pair in pairs.items():
        shapes = [
            cache.shapes[array][1:] if array in cache.shapes else None
            for cache, array in zip((first, second), pair, strict=True)
        ]
        if shapes[0] != shapes[1]:
            reasons[name] = " and ".join("absent" if shape is None else str(shape) for shape in shapes)
    return reasons


def _blocks(
    first: FeatureCache,
    second: FeatureCache,
    names: tuple[str, str],
    in_first: NDArray[np.int64],
    in_second: NDArray[np.int64],
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yields the same clips of both caches, 64 at a time: two (n, vectors, D)."""
    width = first.shapes[names[0]][-1]
    for start in range(0, len(in_first), BLOCK_ROWS):
        stop = start + BLOCK_ROWS
        pair = first.read(names[0], in_first[start:stop]), second.read(names[1], in_second[start:stop])
        left, right = (values.reshape(len(values), -1, width).astype(np.float64) for values in pair)
        yield left, right


def _compare(
    names: list[str], blocks: Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> ArrayDifference:
    """Returns the differences over the clips `names`, which `blocks` yields from both caches in order."""
    clips: list[ClipDifference] = []
    total_cosine, total_size, vectors, numbers = 0.0, 0.0, 0, 0
    for left, right in blocks:
        cosine, difference = _cosine(left, right), np.abs(left - right).max(axis=(1, 2))
        for low, far in zip(cosine.min(axis=1), difference, strict=True):
            clips.append(ClipDifference(names[len(clips)], float(low), float(far)))
        total_cosine, vectors = total_cosine + float(cosine.sum()), vectors + cosine.size
        total_size, numbers = total_size + float(np.abs(left).sum()), numbers + left.size
    worst = sorted(clips, key=lambda clip: (clip.cosine, -clip.difference))
    return ArrayDifference(
        clips=len(clips),
        equal=sum(clip.difference == 0 for clip in clips),
        mean_cosine=total_cosine / vectors,
        lowest_cosine=worst[0].cosine,
        largest_difference=max(clip.difference for clip in clips),
        scale=total_size / numbers,
        worst=tuple(clip for clip in worst[:WORST] if clip.difference),
    )


def _cosine(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the cosine of each pair of vectors: twice (n, vectors, D) -> (n, vectors)."""
    sizes = np.linalg.norm(left, axis=2), np.linalg.norm(right, axis=2)
    product, scale = (left * right).sum(axis=2), sizes[0] * sizes[1]
    both_zero = (sizes[0] == 0) & (sizes[1] == 0)
    return np.asarray(np.where(both_zero, 1.0, product / np.where(scale == 0, 1.0, scale)))


def _samples_differ(
    first: FeatureCache, second: FeatureCache
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Returns `samples_differ`, `events_differ` and `splits_differ` of CacheDifference."""
    one, other = (
        {
            number: ((cache.video_ids[video], tag), split)
            for number, video, tag, split in zip(
                *(vars(cache.samples)[name].tolist() for name in ("number", "video", "tag", "split")),
                strict=True,
            )
        }
        for cache in (first, second)
    )
    events, other_events = _events_by_sample(first), _events_by_sample(second)
    common = [number for number in one if number in other]
    moved = {number for number in common if one[number][0] != other[number][0]}
    return (
        tuple(sorted((one.keys() ^ other.keys()) | moved)),
        tuple(number for number in common if events[number] != other_events[number]),
        tuple(number for number in common if one[number][1] != other[number][1]),
    )


def _events_by_sample(cache: FeatureCache) -> dict[int, list[tuple[Any, ...]] | None]:
    """Returns sample -> its events in order, or its classes, None where neither is known.

    An event is given as class name, onset, offset and modality, a class without times as its name alone.
    """
    samples, table, classes = cache.samples, cache.samples.events, cache.samples.classes
    numbers = samples.number.tolist()
    events_of: dict[int, list[tuple[Any, ...]]] = {number: [] for number in numbers}
    columns = (table.sample, table.category, table.onset_seconds, table.offset_seconds, table.modality)
    for place, category, *about in zip(*(column.tolist() for column in columns), strict=True):
        events_of[numbers[place]].append((cache.categories[category], *about))
    for place, category in zip(classes.sample.tolist(), classes.category.tolist(), strict=True):
        events_of[numbers[place]].append((cache.categories[category],))
    labelled = zip(numbers, samples.labelled.tolist(), strict=True)
    return {number: sorted(events_of[number]) if known else None for number, known in labelled}
