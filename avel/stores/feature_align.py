"""Aligns anybody's features with the videos of a dataset or cache, and says which of them cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.digests import digest_of
from avel.errors import DatasetError, MissingPathError, StoreError
from avel.stores.feature_files import OF_A_CLIP, FeatureFiles
from avel.stores.feature_times import Timing
from avel.stores.files import sha256_file
from avel.stores.named_features import FeatureModality

NO_FEATURES, NOT_FINITE, OTHER_COUNT = "no features", "NaN or infinity", "another number of features"
ENDS_EARLY, TRANSPOSED, OTHER_WIDTH = "ends before the grid", "axes look transposed", "another width"
NO_ARRAY, UNREADABLE = "no vectors or maps of numbers", "cannot be read"
NEXT = {
    OTHER_COUNT: "--audio-hop or --visual-hop if they are not one a segment, --segments for another T; ",
    UNREADABLE: "--audio-key or --visual-key if files hold several arrays; ",
    TRANSPOSED: "write them with time first; ",
}
"""Kind of problem -> what mends it, before LEAVE_OUT."""
LEAVE_OUT = "--leave-out goes on without them, and lists them as missing"


@dataclass(frozen=True)
class GivenFeatures:
    """Features of one modality as a user gives them.

    Attributes:
        path: folder, pattern or file, as `open_features` takes it.
        name: name by which they are added to a cache that is there; None for those of a new cache.
        key: name of the array or column, where there are several.
        window_seconds, hop_seconds: what a feature covers, and how far the next is from it; None for both
            where there is one for each segment.
    """

    path: Path
    name: str | None = None
    key: str | None = None
    window_seconds: float | None = None
    hop_seconds: float | None = None

    @property
    def timing(self) -> Timing | None:
        """Timing of the features, None for one a segment."""
        return Timing.declared(self.window_seconds, self.hop_seconds)


@dataclass(frozen=True)
class Problem:
    """Why features of a clip cannot be used: the kind, by which clips are counted, and the detail."""

    kind: str
    detail: str


class Aligned:
    """Features of V videos on T segments, read and resampled when they are asked for: (V, T, ...).

    Args:
        places: place of each video's features in the files; None for a video without any.
        lengths: segments of each video, T at most; after these its features are 0.
        mean: average over the cells of maps.
    """

    def __init__(
        self,
        files: FeatureFiles,
        places: Sequence[int | None],
        timing: Timing | None,
        segments: int,
        segment_seconds: float,
        lengths: Sequence[int],
        *,
        tail: tuple[int, ...] = (),
        mean: bool = False,
        dtype: type[np.floating[Any]] = np.float32,
    ) -> None:
        self.files, self.places, self.timing, self.dtype = files, places, timing, dtype
        self.segments, self.segment_seconds, self.tail, self.mean = segments, segment_seconds, tail, mean
        self.lengths = lengths

    @property
    def shape(self) -> tuple[int, ...]:
        """(V, T, ...)."""
        return (len(self.places), self.segments, *(self.tail[-1:] if self.mean else self.tail))

    def __getitem__(self, key: slice) -> NDArray[Any]:
        chosen = self.places[key]
        values_of = np.zeros((len(chosen), *self.shape[1:]), self.dtype)
        for row, (place, length) in enumerate(zip(chosen, self.lengths[key], strict=True)):
            assert place is not None
            values = np.asarray(self.files.read(place), np.float64)
            values = values.mean((1, 2)) if self.mean else values
            if self.timing is None:
                values_of[row, :length] = values[:length]
            else:
                parts = self.timing.places(len(values), length, self.segment_seconds)
                values_of[row, :length] = [values[part].mean(0) for part in parts]
        return values_of

    def only(self, keep: Sequence[int], **changes: Any) -> Aligned:
        """Returns the features of some of the videos, with the axes behind (V, T) as `tail`."""
        grid = self.segments, self.segment_seconds, [self.lengths[row] for row in keep]
        return Aligned(self.files, [self.places[row] for row in keep], self.timing, *grid, **changes)


def align(
    files: FeatureFiles,
    video_ids: Sequence[str],
    rows: Mapping[str, int],
    row_count: int,
    timing: Timing | None,
    segments: int,
    segment_seconds: float,
    lengths: Sequence[int],
) -> tuple[Aligned, list[str]]:
    """Matches features with videos; returns them, and the ids in the files that no video has.

    Args:
        rows: video id -> row of its first sample, for files without ids, whose rows are `row_count` samples.

    Raises:
        DatasetError: the rows are not as many as the samples.
        StoreError: an id is there twice.
    """
    if files.ids is None:
        if files.count != row_count:
            raise DatasetError(
                f"{files.where}: {files.count} rows without ids, and the dataset has {row_count} samples",
                hint="give the annotations of these rows, or an array of texts, video_ids, beside them",
            )
        place: Mapping[str, int] = rows
    else:
        place = {name: number for number, name in enumerate(files.ids)}
        name, count = next(iter(Counter(files.ids).most_common(1)), ("", 0))
        if count > 1:
            raise StoreError(
                f"{files.where}: id {name!r} is there {count} times",
                hint="keep one row of features for each id",
            )
    known = set(video_ids)
    surplus = [name for name in place if name not in known]
    places = [place.get(video_id) for video_id in video_ids]
    return Aligned(files, places, timing, segments, segment_seconds, lengths), surplus


def check_clips(aligned: Aligned, video_ids: Sequence[str]) -> tuple[tuple[int, ...], dict[str, Problem]]:
    """Reads every clip; returns the axes behind (V, T), and video -> why its features cannot be used."""
    shapes: dict[str, tuple[int, ...]] = {}
    problems: dict[str, Problem] = {}
    for video_id, place in zip(video_ids, aligned.places, strict=True):
        if place is None:
            problems[video_id] = Problem(NO_FEATURES, NO_FEATURES)
            continue
        try:
            values = np.asarray(aligned.files.read(place))
        except (DatasetError, MissingPathError, StoreError) as error:
            problems[video_id] = Problem(UNREADABLE, error.message)
            continue
        if values.dtype.kind not in "fiu" or values.ndim not in OF_A_CLIP or not values.size:
            problems[video_id] = Problem(NO_ARRAY, f"{values.dtype} {values.shape}")
            continue
        shapes[video_id] = values.shape
        finite = np.isfinite(values)
        if not finite.all():
            at = ", ".join(map(str, np.argwhere(~finite)[0]))
            problems[video_id] = Problem(NOT_FINITE, f"{values[~finite][0]} at ({at})")
    tails = Counter(shape[1:] for shape in shapes.values())
    tail = max(tails, key=lambda each: tails[each]) if tails else (1,)
    length_of = dict(zip(video_ids, aligned.lengths, strict=True))
    for video_id, shape in shapes.items():
        if (problem := _fault_of(shape, tail, aligned, length_of[video_id])) is not None:
            problems[video_id] = problem
    return tail, problems


def _fault_of(shape: tuple[int, ...], tail: tuple[int, ...], aligned: Aligned, length: int) -> Problem | None:
    """Returns what is wrong with the shape of features of a clip of `length` segments; None for nothing."""
    timing, segments, shown = aligned.timing, aligned.segments, "x".join(map(str, shape))
    if len(shape) == 2 and shape[0] != length and _fits(shape[1], aligned) and not _fits(shape[0], aligned):
        return Problem(TRANSPOSED, f"{shown} is (D, n), not (n, D)")
    if shape[1:] != tail:
        return Problem(OTHER_WIDTH, f"{shown}, most have {'x'.join(map(str, tail))} behind the first axis")
    if timing is None:
        right = shape[0] in (length, segments)
        return None if right else Problem(OTHER_COUNT, f"{shape[0]} features, not {length}")
    if all(len(part) for part in timing.places(shape[0], length, aligned.segment_seconds)):
        return None
    end = timing.seconds_of(shape[0])
    return Problem(ENDS_EARLY, f"ends at {end:g} s of {length * aligned.segment_seconds:g} s")


def _fits(count: int, aligned: Aligned) -> bool:
    """Returns whether so many features are about as many as the grid takes."""
    timing = aligned.timing
    if timing is None:
        return count == aligned.segments
    seconds = aligned.segments * aligned.segment_seconds
    return abs(count * timing.hop_seconds - seconds) <= max(timing.hop_seconds, timing.window_seconds)


def refuse(
    given: Mapping[FeatureModality, tuple[FeatureFiles, Mapping[str, Problem], Sequence[str]]],
    videos: int,
    leave_out: bool,
) -> list[str]:
    """Returns what was found of each modality, a line each kind; refuses clips that cannot be used.

    Args:
        given: modality -> files, problems by video, and ids that no video has.

    Raises:
        DatasetError: there are such clips, or ids that no video has, and `leave_out` is not given.
    """
    lines = []
    for modality, (files, problems, surplus) in given.items():
        kinds = Counter(problem.kind for problem in problems.values())
        for kind, count in kinds.items():
            first = next(name for name, problem in problems.items() if problem.kind == kind)
            detail = problems[first].detail
            what = f"{kind}, the first is {first!r}" + (f": {detail}" if detail != kind else "")
            lines.append(f"{modality}, {files.where}: {count} of {videos} clips: {what}")
        if surplus:
            lines.append(
                f"{modality}, {files.where}: {len(surplus)} of {files.count} ids are of no clip of the "
                f"dataset, the first is {surplus[0]!r}"
            )
    if lines and not leave_out:
        kinds = Counter(problem.kind for _, problems, _ in given.values() for problem in problems.values())
        raise DatasetError(
            "; ".join(lines), hint="".join(mend for kind, mend in NEXT.items() if kinds[kind]) + LEAVE_OUT
        )
    return lines


def provenance_of(given: GivenFeatures, files: FeatureFiles) -> dict[str, Any]:
    """Returns what a cache says of imported features: names of files, their digest, and the timing."""
    return {
        "kind": "imported",
        "files": given.path.name,
        "digest": digest_of([[path.name, sha256_file(path)] for path in files.files]),
        "key": given.key,
        "window_seconds": None if given.timing is None else given.timing.window_seconds,
        "hop_seconds": None if given.timing is None else given.timing.hop_seconds,
    }
