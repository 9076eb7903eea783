"""The feature cache, one HDF5 file: features belong to a video, labels and splits to an annotation row."""

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from avel.errors import MissingPathError, StoreError
from avel.stores.hdf5 import new_file

FORMAT, VERSION = "avel-features", 2
VECTORS = ("f_a", "f_v", "cnn_a", "cnn_v")
MAPS = "maps"
BLOCK_VIDEOS = 64
PER_STRING_BYTES = 128
PLACES = ("store", "run", "options")
"""Provenance that says where inputs lay; moving them makes no other cache, so the digest leaves it out."""


class ArrayLike(Protocol):
    """What a writer may hand over: numpy, an HDF5 dataset, anything with a shape that slices to numpy."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, key: slice, /) -> Any: ...


@dataclass(frozen=True)
class Rows:
    """The R annotation rows whose video is cached.

    Attributes:
        row: (R,) int64, number in the annotation file.
        video: (R,) int64, index into the cache's V videos; two rows may share one.
        label: (R, T) int64, class of each segment; background is K-1.
        category: (R,) int64, class of the row's event.
        split: (R,) "train", "val", "test" or "".
        leaked: (R,) bool, a val or test row whose video is also in train.
    """

    row: NDArray[np.int64]
    video: NDArray[np.int64]
    label: NDArray[np.int64]
    category: NDArray[np.int64]
    split: NDArray[np.object_]
    leaked: NDArray[np.bool_]


@dataclass(frozen=True)
class Missing:
    """An annotation row without features, and why."""

    row: int
    video_id: str
    reason: str


@dataclass(frozen=True)
class FeatureCache:
    """A feature file, opened: its rows and names in memory, its arrays read on request.

    >>> cache = FeatureCache.open("features.h5")                        # doctest: +SKIP
    >>> cache.f_a[cache.rows.video[cache.rows.split == "train"]].shape  # doctest: +SKIP
    (3339, 10, 256)
    """

    path: Path
    grid_segments: int
    video_ids: tuple[str, ...]
    categories: tuple[str, ...]
    rows: Rows
    missing: tuple[Missing, ...]
    provenance: dict[str, Any]
    digest: str
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Reads everything but the features.

        Raises:
            MissingPathError: no such file.
            StoreError: not a feature cache, damaged, or of another version.
        """
        path = Path(path)
        with _opened(path) as file:
            arrays = {name: tuple(file[name].shape) for name in (*VECTORS, MAPS) if name in file}
            return cls(
                path,
                int(file.attrs["segments"]),
                _text(file, "video_ids"),
                _text(file, "categories"),
                _read_rows(file),
                _read_missing(file),
                json.loads(file.attrs["provenance"]),
                str(file.attrs["digest"]),
                arrays,
            )

    @property
    def classes(self) -> int:
        """K, the categories and background."""
        return len(self.categories) + 1

    @property
    def f_a(self) -> NDArray[np.float32]:
        """(V, T, D) audio features of the encoder."""
        return self.read("f_a")

    @property
    def f_v(self) -> NDArray[np.float32]:
        """(V, T, D) visual features of the encoder."""
        return self.read("f_v")

    def read(self, name: str, videos: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """One array, whole or of some videos: (V, T, ...) -> (len(videos), T, ...).

        Raises:
            StoreError: the cache does not hold it, or its checksum fails.
        """
        if name not in self.shapes:
            held = ", ".join(self.shapes)
            raise StoreError(
                f"{self.path}: no {name!r} in this cache, only {held}", hint=self._how_to_add(name)
            )
        with _opened(self.path) as file:
            dataset = file[name]
            try:
                if videos is None:
                    return np.asarray(dataset[()])
                result = np.empty((len(videos), *dataset.shape[1:]), dataset.dtype)
                for place, video in enumerate(videos):
                    result[place] = dataset[int(video)]
            except OSError as error:
                raise StoreError(
                    f"{self.path}: {name} is damaged: {error}", hint="make the cache again"
                ) from None
            return result

    def command(self, *more: str) -> str:
        """The command that made the cache, with more options; "" where `avel cache-features` did not."""
        made = self.provenance
        if "store" not in made:
            return ""
        return cache_command(made["store"], self.path, made.get("run"), made.get("options", ""), *more)

    def _how_to_add(self, name: str) -> str:
        option = "--keep-maps" if name == MAPS else "--keep-cnn"
        command = self.command(option, "--overwrite")
        return command or f"import files that hold it, or avel cache-features STORE CACHE {option}"


def write_features(
    path: Path,
    *,
    video_ids: tuple[str, ...],
    categories: tuple[str, ...],
    rows: Rows,
    arrays: Mapping[str, ArrayLike],
    missing: tuple[Missing, ...] = (),
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Writes a whole cache or nothing: arrays (V, T, ...) by name, f_a and f_v at least -> its digest.

    Raises:
        StoreError: arrays or rows that do not fit each other.
    """
    _check(video_ids, categories, rows, arrays)
    text = json.dumps(dict(provenance or {}), sort_keys=True)
    digest = content_digest(provenance or {}, video_ids, categories, rows, arrays)
    with new_file(path, _room(arrays, rows, text, (*video_ids, *categories), missing)) as file:
        segments = int(arrays["f_a"].shape[1])
        file.attrs.update(format=FORMAT, version=VERSION, segments=segments, provenance=text, digest=digest)
        file["video_ids"], file["categories"] = _strings(video_ids), _strings(categories)
        for field in fields(Rows):
            values = getattr(rows, field.name)
            file[field.name] = _strings(values) if field.name == "split" else values
        file["missing_row"] = np.array([item.row for item in missing], np.int64)
        file["missing_video_id"] = _strings([item.video_id for item in missing])
        file["missing_reason"] = _strings([item.reason for item in missing])
        for name, source in arrays.items():
            _write_array(file, name, source)
    return digest


def _room(
    arrays: Mapping[str, ArrayLike],
    rows: Rows,
    text: str,
    names: tuple[str, ...],
    missing: tuple[Missing, ...],
) -> int:
    """Bytes that a cache takes at the most; HDF5 keeps some beside each string and each chunk."""
    values = sum(
        math.prod(source.shape) * np.dtype(_dtype(name, source)).itemsize for name, source in arrays.items()
    )
    columns = sum(getattr(rows, field.name).nbytes for field in fields(Rows))
    strings = [*names, *rows.split, *(word for item in missing for word in (item.video_id, item.reason))]
    written = sum(len(str(word).encode()) for word in strings) + 2 * len(text.encode())
    return int(values + columns + written + PER_STRING_BYTES * (len(strings) + len(names)))


def _dtype(name: str, source: ArrayLike) -> type[np.floating[Any]]:
    """Vectors are kept in float32; maps in float16, or as given in float32."""
    return np.float16 if name == MAPS and getattr(source, "dtype", None) != np.float32 else np.float32


def _write_array(file: h5py.File, name: str, source: ArrayLike) -> None:
    """Vectors contiguous; of maps a checksummed chunk a video."""
    shape = tuple(source.shape)
    if name == MAPS:
        dataset = file.create_dataset(
            name, shape, _dtype(name, source), chunks=(1, *shape[1:]), fletcher32=True
        )
    else:
        dataset = file.create_dataset(name, shape, _dtype(name, source))
    for start in range(0, shape[0], BLOCK_VIDEOS):
        dataset[start : start + BLOCK_VIDEOS] = source[start : start + BLOCK_VIDEOS]


def _check(
    video_ids: tuple[str, ...], categories: tuple[str, ...], rows: Rows, arrays: Mapping[str, ArrayLike]
) -> None:
    unknown = set(arrays) - {*VECTORS, MAPS}
    if unknown or not {"f_a", "f_v"} <= set(arrays):
        raise StoreError(f"a feature cache holds f_a, f_v and maybe cnn_a, cnn_v, maps, not {sorted(arrays)}")
    segments = arrays["f_a"].shape[1]
    for name, source in arrays.items():
        if tuple(source.shape[:2]) != (len(video_ids), segments):
            raise StoreError(f"{name} is {tuple(source.shape)}, not ({len(video_ids)}, {segments}, ...)")
    count = len(rows.row)
    if rows.label.shape != (count, segments):
        raise StoreError(f"labels are {rows.label.shape}, not ({count}, {segments})")
    if count and not 0 <= rows.video.min() <= rows.video.max() < len(video_ids):
        raise StoreError(f"a row names video {rows.video.max()} of {len(video_ids)}")
    if count and not rows.label.max() <= len(categories):
        raise StoreError(f"label {rows.label.max()} with {len(categories)} categories")


def content_digest(
    provenance: Mapping[str, Any],
    video_ids: tuple[str, ...],
    categories: tuple[str, ...],
    rows: Rows,
    arrays: Mapping[str, ArrayLike],
) -> str:
    """16 hex digits over provenance, names, rows and vectors; maps follow from the same provenance."""
    made = json.dumps({key: value for key, value in provenance.items() if key not in PLACES}, sort_keys=True)
    digest = hashlib.sha256(json.dumps([made, video_ids, categories, sorted(arrays)]).encode())
    for field in fields(Rows):
        values = getattr(rows, field.name)
        text = json.dumps(list(map(str, values))) if field.name == "split" else ""
        digest.update(text.encode() or np.ascontiguousarray(values).tobytes())
    for name in VECTORS:
        source = arrays.get(name)
        for start in range(0, len(video_ids) if source is not None else 0, BLOCK_VIDEOS):
            assert source is not None
            digest.update(np.ascontiguousarray(source[start : start + BLOCK_VIDEOS], np.float32).tobytes())
    return digest.hexdigest()[:16]


def _opened(path: Path) -> h5py.File:
    if not path.is_file():
        raise MissingPathError(f"{path}: no such feature cache", hint=f"avel cache-features STORE {path}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StoreError(f"{path}: not a readable HDF5 file: {error}", hint="make the cache again") from None
    found = (file.attrs.get("format"), file.attrs.get("version"))
    if found != (FORMAT, VERSION):
        file.close()
        raise StoreError(
            f"{path}: format {found[0]!r} version {found[1]}, this avel reads {FORMAT!r} {VERSION}"
        )
    return file


def _read_rows(file: h5py.File) -> Rows:
    plain = {field.name: file[field.name][()] for field in fields(Rows) if field.name != "split"}
    return Rows(**plain, split=np.array(_text(file, "split"), object))


def _read_missing(file: h5py.File) -> tuple[Missing, ...]:
    columns = (
        file["missing_row"][()].tolist(),
        _text(file, "missing_video_id"),
        _text(file, "missing_reason"),
    )
    return tuple(Missing(*values) for values in zip(*columns, strict=True))


def _strings(values: Any) -> NDArray[Any]:
    return np.array([str(value) for value in values], dtype=h5py.string_dtype())


def _text(file: h5py.File, name: str) -> tuple[str, ...]:
    return tuple(file[name].asstr()[()].tolist())


def cache_command(
    store: str | Path, cache: Path, encoder: str | Path | None, options: str, *more: str
) -> str:
    """The command that makes a cache; `options` are quoted already."""
    encoded = [] if encoder is None else ["--encoder", str(encoder)]
    words = [shlex.quote(word) for word in (str(store), str(cache), *encoded)]
    return " ".join(["avel cache-features", *words, *filter(None, [options]), *map(shlex.quote, more)])
