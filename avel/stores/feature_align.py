"""Aligns features of any source with the videos of a dataset or cache; says which cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from avel.text import plural

NO_FEATURES, NOT_FINITE, OTHER_COUNT = "no features", "NaN or infinity", "another number of features"
ENDS_EARLY, TRANSPOSED, OTHER_WIDTH = "ends before the grid", "axes look transposed", "another width"
NO_ARRAY, UNREADABLE = "no vectors or maps of numbers", "cannot be read"
REMEDIES = {
    OTHER_COUNT: "--audio-hop or --visual-hop if there is not one per segment, --segments for another T; ",
    UNREADABLE: "--audio-key or --visual-key if files hold several arrays; ",
    TRANSPOSED: "write them with time first; ",
}
"""Kind of problem -> what fixes it; begins the hint."""
LEAVE_OUT = "--leave-out goes on without them"


@dataclass(frozen=True)
class GivenFeatures:
    """Features of one modality as a user gives them.

    Attributes:
        path: folder, pattern or file, as `open_features` takes it.
        name: name by which they are added to a cache that is there; None for those of a new cache.
        key: name of the array or column to take, where a file holds several.
        window_seconds, hop_seconds: seconds that a feature covers, and seconds from one feature to the next;
            None for both where there is one per segment.
    """

    path: Path
    name: str | None = None
    key: str | None = None
    window_seconds: float | None = None
    hop_seconds: float | None = None

    @property
    def timing(self) -> Timing | None:
        """Returns the timing of the features, None for one per segment."""
        return Timing.declared(self.window_seconds, self.hop_seconds)


@dataclass(frozen=True)
class Target:
    """V videos of T segments, with which features are aligned.

    Attributes:
        rows: video id -> row of its first sample, for files with a row for each of `row_count` samples.
        lengths: segments of each video, T at most; after them features are 0.
        of_cache: whether these are the videos of an existing cache, each of which needs features.
    """

    video_ids: tuple[str, ...]
    rows: Mapping[str, int]
    row_count: int
    segments: int
    segment_seconds: float
    lengths: tuple[int, ...]
    of_cache: bool = False


@dataclass(frozen=True)
class Aligned:
    """Features of the videos of a target, read and resampled when they are asked for: (V, T, ...).

    Attributes:
        places: place of each video's features in the files; None for a video without any, not to be read.
        tail: axes behind (V, T).
        mean: average over the cells of maps.
    """

    files: FeatureFiles
    timing: Timing | None
    target: Target
    places: tuple[int | None, ...]
    tail: tuple[int, ...] = ()
    mean: bool = False
    dtype: type[np.floating[Any]] = np.float32

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns (V, T, ...)."""
        return (len(self.places), self.target.segments, *(self.tail[-1:] if self.mean else self.tail))

    def __getitem__(self, key: slice) -> NDArray[Any]:
        chosen = self.places[key]
        result = np.zeros((len(chosen), *self.shape[1:]), self.dtype)
        for row, (place, length) in enumerate(zip(chosen, self.target.lengths[key], strict=True)):
            assert place is not None
            values = np.asarray(self.files.read(place), np.float64)
            values = values.mean((1, 2)) if self.mean else values
            if self.timing is None:
                result[row, :length] = values[:length]
            else:
                parts = self.timing.places(len(values), length, self.target.segment_seconds)
                result[row, :length] = [values[part].mean(0) for part in parts]
        return result

    def take(self, rows: Sequence[int]) -> Aligned:
        """Returns the features of some of the videos."""
        target = replace(
            self.target,
            video_ids=tuple(self.target.video_ids[row] for row in rows),
            lengths=tuple(self.target.lengths[row] for row in rows),
        )
        return replace(self, target=target, places=tuple(self.places[row] for row in rows))


@dataclass(frozen=True)
class Problem:
    """Why features of a clip cannot be used: the kind, by which clips are counted, and the detail."""

    kind: str
    detail: str = ""


@dataclass(frozen=True)
class CheckedFeatures:
    """Features of one modality, of which every clip was read.

    Attributes:
        surplus: ids in the files that no video has.
        problems: video id -> why its features cannot be used.
    """

    aligned: Aligned
    surplus: tuple[str, ...]
    problems: dict[str, Problem]


def check_features(files: FeatureFiles, target: Target, timing: Timing | None) -> CheckedFeatures:
    """Matches features with the videos of a target, and reads every clip.

    Raises:
        DatasetError: files without ids have another number of rows than there are samples.
        StoreError: an id is there twice.
    """
    place_of = _places(files, target)
    places = tuple(map(place_of.get, target.video_ids))
    shapes: dict[str, tuple[int, ...]] = {}
    problems: dict[str, Problem] = {}
    for video_id, place in zip(target.video_ids, places, strict=True):
        if place is None:
            problems[video_id] = Problem(NO_FEATURES)
            continue
        try:
            values = np.asarray(files.read(place))
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
    aligned = Aligned(files, timing, target, places, max(tails, key=lambda each: tails[each], default=(1,)))
    length_of = dict(zip(target.video_ids, target.lengths, strict=True))
    for video_id, shape in shapes.items():
        if (problem := _fault_of(shape, aligned, length_of[video_id])) is not None:
            problems[video_id] = problem
    known = set(target.video_ids)
    return CheckedFeatures(aligned, tuple(name for name in place_of if name not in known), problems)


def _places(files: FeatureFiles, target: Target) -> Mapping[str, int]:
    """Returns id -> place in the files; files without ids have a row for each sample."""
    if files.ids is None:
        if files.count != target.row_count:
            raise DatasetError(
                f"{files.where}: {plural(files.count, 'row')} without ids, and the dataset has "
                f"{plural(target.row_count, 'sample')}",
                hint="give the annotations of these rows, or add an array video_ids with the id of each row",
            )
        return target.rows
    name, count = next(iter(Counter(files.ids).most_common(1)), ("", 0))
    if count > 1:
        raise StoreError(
            f"{files.where}: id {name!r} is there {count} times", hint="keep one row of features for each id"
        )
    return {name: place for place, name in enumerate(files.ids)}


def _fault_of(shape: tuple[int, ...], aligned: Aligned, length: int) -> Problem | None:
    """Returns what is wrong with the shape of features of a clip of `length` segments; None for nothing."""
    timing, target, shown = aligned.timing, aligned.target, "x".join(map(str, shape))
    if len(shape) == 2 and shape[0] != length and _fits(shape[1], aligned) and not _fits(shape[0], aligned):
        return Problem(TRANSPOSED, f"{shown} is (D, n), not (n, D)")
    if shape[1:] != aligned.tail:
        most = "x".join(map(str, aligned.tail))
        return Problem(OTHER_WIDTH, f"{shown}, most have {most} behind the first axis")
    if timing is None:
        right = shape[0] in (length, target.segments)
        return None if right else Problem(OTHER_COUNT, f"{shape[0]} features, not {length}")
    if all(len(part) for part in timing.places(shape[0], length, target.segment_seconds)):
        return None
    end = timing.seconds_of(shape[0])
    return Problem(ENDS_EARLY, f"ends at {end:g} s of {length * target.segment_seconds:g} s")


def _fits(count: int, aligned: Aligned) -> bool:
    """Returns whether `count` features are about as many as a clip of the target has."""
    timing, target = aligned.timing, aligned.target
    if timing is None:
        return count == target.segments
    seconds = target.segments * target.segment_seconds
    return abs(count * timing.hop_seconds - seconds) <= max(timing.hop_seconds, timing.window_seconds)


def findings_of(checked: Mapping[FeatureModality, CheckedFeatures], leave_out: bool) -> list[str]:
    """Returns what was found of each modality, one line for each kind of problem.

    Raises:
        DatasetError: there are clips without usable features, or ids that no video has, and `leave_out` is
            not given. Such clips of a cache are always refused.
    """
    lines, kinds = [], Counter[str]()
    of_cache = any(each.aligned.target.of_cache for each in checked.values())
    for modality, each in checked.items():
        where = f"{modality}, {each.aligned.files.where}"
        count_of = Counter(problem.kind for problem in each.problems.values())
        kinds += count_of
        for kind, count in count_of.items():
            first, detail = next(
                (name, problem.detail) for name, problem in each.problems.items() if problem.kind == kind
            )
            what = f"{kind}, the first is {first!r}" + (f": {detail}" if detail else "")
            lines.append(f"{where}: {count} of {len(each.aligned.places)} clips: {what}")
        if each.surplus:
            like = [f"; a clip's id is like {clip!r}" for clip in each.aligned.target.video_ids[:1]]
            lines.append(
                f"{where}: {len(each.surplus)} of {each.aligned.files.count} ids are of no clip of the "
                f"{'cache' if of_cache else 'dataset'}, the first is {each.surplus[0]!r}{''.join(like)}"
            )
    if lines and (not leave_out or (of_cache and kinds)):
        last = "give features of every video of the cache" if of_cache and kinds else LEAVE_OUT
        hint = "".join(fix for kind, fix in REMEDIES.items() if kinds[kind]) + last
        raise DatasetError("; ".join(lines), hint=hint)
    return lines


def provenance_of(given: GivenFeatures, files: FeatureFiles) -> dict[str, Any]:
    """Returns what a cache says of imported features: name of the path given, digest of its files, timing."""
    return {
        "kind": "imported",
        "files": given.path.name,
        "digest": digest_of([[path.name, sha256_file(path)] for path in files.files]),
        "key": given.key,
        "window_seconds": None if given.timing is None else given.timing.window_seconds,
        "hop_seconds": None if given.timing is None else given.timing.hop_seconds,
    }
