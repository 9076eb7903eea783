"""Makes a feature cache of the published AVE feature files, or of features by id: `avel import-features`."""

from collections.abc import Iterable, Mapping, Set
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from avel.errors import ConfigError, DatasetError, MissingPathError, UnknownNameError
from avel.grid import Grid
from avel.progress import note
from avel.stores.ave_files import (
    AUDIO_FILE,
    BACKGROUND_AUDIO,
    BACKGROUND_MAPS,
    MAPS_FILE,
    NOT_READ,
    ORDERS,
    OTHER_DATASET,
    VECTORS_FILE,
    Truth,
    check_label_files,
    check_order_files,
    find_files,
    open_array,
)
from avel.stores.cache_lock import lock_cache
from avel.stores.cached_samples import Missing
from avel.stores.datasets.ave import read_order
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.sample import Samples
from avel.stores.feature_adding import note_dropped
from avel.stores.feature_align import GivenFeatures
from avel.stores.feature_import import Imported, add_given, dataset_of, import_given
from avel.stores.feature_samples import NO_SAMPLE, samples_of_videos
from avel.stores.features import write_features
from avel.stores.files import check_can_replace, check_can_write, sha256_file
from avel.stores.hdf5 import ArrayLike
from avel.stores.named_features import FeatureModality
from avel.stores.runs import library_versions

FileArrays = dict[str, h5py.Dataset]
"""Published file name -> its open array (R, T, ...), one row for each sample."""
ADDED, BY_ID, PUBLISHED_FILES = "features added to a cache", "features by video id", "the published AVE files"
UNUSED = {
    ADDED: ("dataset", "annotations", "format", "segments", "segment_seconds", "any_size"),
    BY_ID: ("any_size",),
    PUBLISHED_FILES: ("segments", "segment_seconds", "leave_out"),
}
"""Kind of import -> options of `import_features` without effect on it."""


def import_features(
    source: Path | str | Iterable[Path | str] | None,
    cache: Path | str,
    dataset: Dataset | Path | str | None = None,
    annotations: Path | str | None = None,
    *,
    format: str = "auto",
    format_settings: Mapping[str, Any] | None = None,
    audio: GivenFeatures | Path | str | None = None,
    visual: GivenFeatures | Path | str | None = None,
    segments: int | None = None,
    segment_seconds: float = 1.0,
    maps_dtype: Literal["float16", "float32"] = "float16",
    any_size: bool = False,
    leave_out: bool = False,
    overwrite: bool = False,
) -> Imported:
    """Makes a feature cache of anybody's features, or of the published AVE files.

    `audio` and `visual` name features by video id, with `dataset` for labels and splits. Audio becomes f_a
    and cnn_a, visual vectors become f_v and cnn_v. Visual maps become `maps`, and their means over cells f_v
    and cnn_v. Clips are read 64 at a time, but a .npz or .pt file that holds all of them is read as a whole.
    Features with a name are added, under that name, to the existing cache.

    >>> import_features(None, "mine.h5", "videos", audio="beats/", visual="clip/*_clip.npy")  # doctest: +SKIP

    Without `audio` and `visual`, `source` holds AVE's files. Audio (R, T, 128) becomes f_a and cnn_a, visual
    vectors (R, T, 512) f_v and cnn_v, maps (R, T, 7, 7, 512) maps; where only maps are given, f_v is their
    mean over the 49 cells. Labels come from the annotations, because `labels.h5` is wrong in places.

    Args:
        source: the published files or their folder; None with `audio` and `visual`.
        dataset: the annotations; by default those beside the published files.
        annotations: of the dataset, as `extract` takes them.
        format: of the dataset, as `extract` takes it.
        format_settings: settings of the format.
        audio: folder, pattern or file of features by video id; GivenFeatures has window and hop.
        visual: the same for the frames.
        segments: T of the clips, for features by video id; by default 10, or those of the longest clip where
            the annotations state lengths. Where they do, every clip keeps its own length.
        segment_seconds: length of a segment, for features by video id.
        maps_dtype: float16 keeps three digits in half the space.
        any_size: accept features of other widths and grids than the published ones.
        leave_out: go on without clips whose `audio` or `visual` features are missing or cannot be used.
        overwrite: replace `cache` if it exists, or its features of the names that are given.

    Raises:
        BusyError: another process is making this cache, or adding to it.
        ConfigError: both `source` and features by video id, or neither; another `maps_dtype`.
        MissingPathError: no feature files, or no annotations.
        DatasetError: clips without features, and no `leave_out`; shapes, orders or labels that contradict the
            annotations.
        StoreError: a damaged file, or `cache` exists and `overwrite` is not given.
    """
    cache = Path(cache)
    check_can_write(cache)
    if maps_dtype not in ("float16", "float32"):
        raise UnknownNameError("maps_dtype", maps_dtype, ("float16", "float32"))
    sources: dict[FeatureModality, Any] = {"audio": audio, "visual": visual}
    by_id = {
        modality: each if isinstance(each, GivenFeatures) else GivenFeatures(Path(each))
        for modality, each in sources.items()
        if each is not None
    }
    if bool(by_id) == (source is not None):
        raise ConfigError(
            f"{cache}: {'both AVE files and' if by_id else 'neither AVE files nor'} features by video id",
            hint="give SOURCE for AVE's files, or --audio and --visual for features of others",
        )
    named = [each.name for each in by_id.values() if each.name is not None]
    given = {
        "dataset": dataset is not None,
        "annotations": annotations is not None,
        "format": format != "auto" or bool(format_settings),
        "segments": segments is not None,
        "segment_seconds": segment_seconds != 1.0,
        "leave_out": leave_out,
        "any_size": any_size,
    }
    what = ADDED if named else BY_ID if by_id else PUBLISHED_FILES
    if idle := [name for name in UNUSED[what] if given[name]]:
        note(f"without effect on {what}: {', '.join(idle)}")
    files = {}
    if source is not None:
        files = find_files([Path(source)] if isinstance(source, str | Path) else [*map(Path, source)])
    with lock_cache(cache):
        if named:
            return add_given(by_id, cache, maps_dtype=maps_dtype, leave_out=leave_out, overwrite=overwrite)
        otherwise = "; --audio-name and --visual-name add features beside its own" if by_id else ""
        check_can_replace(cache, overwrite, otherwise)
        note_dropped(cache)
        beside = next(iter(files.values())).parent if files else None
        dataset = dataset_of(dataset, annotations, format, format_settings or {}, beside)
        if files:
            return _import_published(files, cache, dataset, maps_dtype, any_size)
        return import_given(
            by_id,
            cache,
            dataset,
            segments=segments,
            segment_seconds=segment_seconds,
            maps_dtype=maps_dtype,
            leave_out=leave_out,
        )


def _import_published(
    files: dict[str, Path], cache: Path, dataset: Dataset, maps_dtype: str, any_size: bool
) -> Imported:
    """Writes a new cache of the published AVE files, name -> path; raises as `import_features` does."""
    orders = {split: read_order(files[name]) for name, split in ORDERS.items() if name in files}
    # The arrays of these files have T segments for every clip, whatever its own length is
    dataset = replace(_with_orders(dataset, orders), longest_seconds=None)
    with ExitStack() as stack:
        names = [name for name in (AUDIO_FILE, MAPS_FILE, VECTORS_FILE) if name in files]
        file_arrays = {
            name: stack.enter_context(open_array(files[name], len(dataset.samples), any_size=any_size))
            for name in names
        }
        grid, vectors = _common_grid(file_arrays), _vectors(file_arrays)
        without = _rows_not_finite(file_arrays, vectors)
        video_ids, first_row, reasons = _present_videos(dataset, without)
        present = dataset.samples.is_one_of("video_id", video_ids)
        findings = _shapes_found(file_arrays) + check_order_files(orders, dataset, present)
        truth = Truth(dataset.labels(grid), dataset.event_table(), len(dataset.categories) + 1)
        findings += check_label_files(files, truth, present)
        findings.append(_check_row_order(dataset, file_arrays, set(without)))
        findings += [f"{name}: {what}, left out" for name, what in NOT_READ.items() if name in files]
        samples, missing = samples_of_videos(dataset, video_ids, reasons)
        written = write_features(
            cache,
            video_ids=video_ids,
            categories=dataset.categories,
            samples=samples,
            arrays=_arrays(file_arrays, vectors, first_row, np.dtype(maps_dtype)),
            segment_seconds=grid.segment_seconds,
            missing=missing,
            provenance=_provenance(files, file_arrays, orders, findings, maps_dtype),
        )
    return Imported.of(written, findings)


def import_background(source: Path | str, cache: Path | str) -> Imported:
    """Makes a feature cache of AVE's published background clips, for `train_head(negatives=...)`.

    They are the files `audio_feature_noisy.h5` and `visual_feature_noisy.h5` of a folder; they name no video
    and have no annotations, so that the cache has no samples. Arrays are as `import_features` makes them, of
    any size. A cache that is there is replaced.

    Raises:
        MissingPathError: one of the two files is missing.
        DatasetError: shapes that do not fit each other.
        StoreError: a damaged file.
    """
    cache, folder = Path(cache), Path(source)
    check_can_write(cache)
    files = {AUDIO_FILE: folder / BACKGROUND_AUDIO, MAPS_FILE: folder / BACKGROUND_MAPS}
    for path in files.values():
        if not path.is_file():
            raise MissingPathError(f"{path}: no such file", hint="it is on the dataset's page, AVE-ECCV18")
    with (
        open_array(files[AUDIO_FILE], None, any_size=True) as audio,
        open_array(files[MAPS_FILE], audio.shape[0], any_size=True) as maps,
    ):
        file_arrays = {AUDIO_FILE: audio, MAPS_FILE: maps}
        grid, vectors = _common_grid(file_arrays), _vectors(file_arrays)
        without = _rows_not_finite(file_arrays, vectors)
        rows = np.array([row for row in range(audio.shape[0]) if row not in without], np.int64)
        findings = _shapes_found(file_arrays)
        written = write_features(
            cache,
            video_ids=tuple(f"background-{row}" for row in rows.tolist()),
            categories=(),
            samples=samples_of_videos(make_dataset("", folder, (), ()), (), {})[0],
            arrays=_arrays(file_arrays, vectors, rows, np.dtype(np.float16)),
            segment_seconds=grid.segment_seconds,
            missing=tuple(Missing(NO_SAMPLE, f"background-{row}", why) for row, why in without.items()),
            provenance=_provenance(files, file_arrays, {}, findings, "float16"),
        )
    return Imported.of(written, findings)


class _RowsAsVideos:
    """Reads an (R, T, ...) array of samples as (V, T, ...) of videos, by the first row of each.

    With `mean` it averages over the cells of maps.
    """

    def __init__(
        self, rows: h5py.Dataset, first_row: NDArray[np.int64], dtype: np.dtype[Any], *, mean: bool = False
    ) -> None:
        self._rows, self._first_row, self.dtype, self._mean = rows, first_row, dtype, mean
        tail = (rows.shape[1], rows.shape[-1]) if mean else rows.shape[1:]
        self.shape: tuple[int, ...] = (len(first_row), *tail)

    def __getitem__(self, key: slice) -> NDArray[Any]:
        chosen = self._first_row[key]
        result = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for place, row in enumerate(chosen):
            values = self._rows[int(row)]
            with np.errstate(invalid="ignore"):  # mean of inf and -inf; `_rows_not_finite` finds both
                result[place] = values.mean(axis=(1, 2)) if self._mean else values
        return result


def _vectors(file_arrays: FileArrays) -> dict[str, NDArray[Any]]:
    """Reads audio and visual vectors (R, T, D) by file; once, since the maps of AVE are 8.3 GB."""
    source = VECTORS_FILE if VECTORS_FILE in file_arrays else MAPS_FILE
    every, vector = np.arange(file_arrays[AUDIO_FILE].shape[0]), np.dtype(np.float32)
    return {
        AUDIO_FILE: _RowsAsVideos(file_arrays[AUDIO_FILE], every, vector)[:],
        source: _RowsAsVideos(file_arrays[source], every, vector, mean=source == MAPS_FILE)[:],
    }


def _rows_not_finite(file_arrays: FileArrays, vectors: dict[str, NDArray[Any]]) -> dict[int, str]:
    """Returns row -> files in which it holds NaN or infinity.

    The authors mark rows without features by NaN. For an infinity, the place of the first one is named. Where
    only maps are given, their means over cells are checked instead: one bad cell makes its mean bad.
    """
    faults: dict[int, list[str]] = {}
    for name, rows in file_arrays.items():
        values = vectors.get(name, rows)
        for number in range(rows.shape[0]):
            if np.isfinite(values[number]).all():
                continue
            infinite = np.argwhere(np.isinf(np.asarray(rows[number], np.float32)))
            place = ", ".join(map(str, infinite[0])) if len(infinite) else ""
            what = f"infinity in {name}, row {number}, at ({place})" if place else f"NaN in {name}"
            faults.setdefault(number, []).append(what)
    return {number: ", ".join(what) for number, what in faults.items()}


def _arrays(
    file_arrays: FileArrays,
    vectors: dict[str, NDArray[Any]],
    first_row: NDArray[np.int64],
    maps_dtype: np.dtype[Any],
) -> dict[str, ArrayLike]:
    """Returns the cache's arrays (V, T, ...)."""
    audio, visual = (values[first_row] for values in vectors.values())
    arrays: dict[str, ArrayLike] = {"f_a": audio, "f_v": visual, "cnn_a": audio, "cnn_v": visual}
    if MAPS_FILE in file_arrays:
        arrays["maps"] = _RowsAsVideos(file_arrays[MAPS_FILE], first_row, maps_dtype)
    return arrays


def _present_videos(
    dataset: Dataset, without: Mapping[int, str]
) -> tuple[tuple[str, ...], NDArray[np.int64], dict[str, str]]:
    """Returns ids of videos with features, the row of each, and id -> reason for the others."""
    first_row: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for row, sample in enumerate(dataset.samples):
        if row in without:
            reasons[sample.video_id] = without[row]
        else:
            first_row.setdefault(sample.video_id, row)
    return tuple(first_row), np.array(list(first_row.values()), np.int64), reasons


def _check_row_order(dataset: Dataset, file_arrays: FileArrays, without: Set[int]) -> str:
    """Checks the row order by the features: samples of one video should have the same; returns a finding."""
    rows_of: dict[str, list[int]] = {}
    for row, sample in enumerate(dataset.samples):
        if row not in without:
            rows_of.setdefault(sample.video_id, []).append(row)
    several = [numbers for numbers in rows_of.values() if len(numbers) > 1]
    differ = sum(
        any(not np.array_equal(rows[first], rows[other]) for rows in file_arrays.values() for other in others)
        for first, *others in several
    )
    if not several:
        return "row order: cannot be checked, no video has several rows"
    if differ > len(several) / 2:
        raise DatasetError(
            f"row order: {differ} of the {len(several)} videos with several rows differ between them, so the "
            "files are in another order than the annotations",
            hint=OTHER_DATASET,
        )
    if differ:
        return f"row order: {differ} of {len(several)} videos differ between their rows; the first is taken"
    return f"row order: right, the {len(several)} videos with several rows carry the same features in each"


def _common_grid(file_arrays: FileArrays) -> Grid:
    segments = {name: int(rows.shape[1]) for name, rows in file_arrays.items()}
    if len(set(segments.values())) != 1:
        raise DatasetError(
            f"segments differ: {', '.join(f'{name} {n}' for name, n in segments.items())}",
            hint="give audio and visual files with the same number of segments",
        )
    return Grid(segments=segments[AUDIO_FILE])


def _shapes_found(file_arrays: FileArrays) -> list[str]:
    return [
        f"{name}: {rows.shape} {rows.dtype} under {rows.name[1:]!r}" for name, rows in file_arrays.items()
    ]


def _provenance(
    files: dict[str, Path],
    file_arrays: FileArrays,
    orders: dict[str, list[int]],
    findings: list[str],
    maps_dtype: str,
) -> dict[str, Any]:
    sources = {name: sha256_file(files[name]) for name in file_arrays}
    return {
        "encoder": {"kind": "imported", "files": sources},
        "preprocessing": "as the files' authors did; unknown to avel",
        "maps_dtype": maps_dtype if MAPS_FILE in file_arrays else None,
        "orders": orders,
        "findings": findings,
        "versions": library_versions(),
    }


def _with_orders(dataset: Dataset, orders: dict[str, list[int]]) -> Dataset:
    """Returns the dataset with the splits of the order files, if it has none itself."""
    if any(dataset.samples.texts("split")):
        return dataset
    split_of = {number: split for split, order in orders.items() for number in order}
    samples = [replace(sample, split=split_of.get(sample.number, "")) for sample in dataset.samples]
    return replace(dataset, samples=Samples.of(samples))
