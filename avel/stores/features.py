"""Reads and writes a feature cache, one HDF5 file: features by video, events and splits by sample."""

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from avel.digests import digest_of
from avel.errors import MissingPathError, StoreError
from avel.stores.datasets.labels import EventTable, segment_labels, video_labels
from avel.stores.hdf5 import new_file

FORMAT, VERSION = "avel-features", 3
VECTORS = ("f_a", "f_v", "cnn_a", "cnn_v")
MAPS = "maps"
BLOCK_VIDEOS = 64
PER_STRING_BYTES = 128
PLACES = ("store", "run", "options")
"""Keys of the provenance that hold paths; the digest leaves them out, so that inputs may move."""


class ArrayLike(Protocol):
    """An array to write: numpy, an HDF5 dataset, anything with a shape whose slices are numpy arrays."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, key: slice, /) -> Any: ...


@dataclass(frozen=True)
class CachedSamples:
    """The R samples whose video is cached.

    Attributes:
        number: (R,) int64, the sample's number in its dataset.
        video: (R,) int64, index into the cache's V videos; two samples may share one.
        split: (R,) "train", "val", "test" or "".
        leaked: (R,) bool, a val or test sample whose video is also in train.
        known: (R,) bool, whether its events are known; a known sample without any is all background.
        events: the events of all samples; background is class K-1 and never an event.
    """

    number: NDArray[np.int64]
    video: NDArray[np.int64]
    split: NDArray[np.object_]
    leaked: NDArray[np.bool_]
    known: NDArray[np.bool_]
    events: EventTable

    def __len__(self) -> int:
        return len(self.number)

    def take(self, chosen: NDArray[np.int64]) -> "CachedSamples":
        """Returns the samples at some places, (n,), with their events."""
        place = np.full(len(self), -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        events = self.events.take(place[self.events.sample] >= 0)
        return CachedSamples(
            self.number[chosen],
            self.video[chosen],
            self.split[chosen],
            self.leaked[chosen],
            self.known[chosen],
            replace(events, sample=place[events.sample]),
        )

    def video_labels(self) -> NDArray[np.int64]:
        """Returns the class of each sample's events, NO_CLASS where it has none or several: (R,)."""
        return video_labels(self.events, len(self))


@dataclass(frozen=True)
class Missing:
    """A sample without features, and why."""

    sample: int
    video_id: str
    reason: str


@dataclass(frozen=True)
class FeatureCache:
    """A feature cache: samples and names in memory, arrays read on request.

    >>> cache = FeatureCache.open("features.h5")                        # doctest: +SKIP
    >>> cache.f_a[cache.samples.video[cache.samples.split == "train"]].shape  # doctest: +SKIP
    (3339, 10, 256)
    """

    path: Path
    grid_segments: int
    segment_seconds: float
    video_ids: tuple[str, ...]
    categories: tuple[str, ...]
    samples: CachedSamples
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
                float(file.attrs["segment_seconds"]),
                _text(file, "video_ids"),
                _text(file, "categories"),
                _read_samples(file),
                _read_missing(file),
                json.loads(file.attrs["provenance"]),
                str(file.attrs["digest"]),
                arrays,
            )

    @property
    def classes(self) -> int:
        """K: the categories and background."""
        return len(self.categories) + 1

    def labels(self, samples: CachedSamples | None = None) -> NDArray[np.int64]:
        """Returns the class of every segment of samples, of all by default: int64 (R, T), UNKNOWN is -1.

        Raises:
            DatasetError: a sample in which events of two classes overlap.
        """
        chosen = self.samples if samples is None else samples

        def name_of(place: int) -> str:
            video_id = self.video_ids[chosen.video[place]]
            return f"{self.path}: sample {chosen.number[place]} ({video_id})"

        return segment_labels(
            chosen.known,
            chosen.events,
            len(self.categories),
            self.grid_segments,
            self.segment_seconds,
            name_of,
            self.categories,
        )

    @property
    def f_a(self) -> NDArray[np.float32]:
        """Audio features of the encoder, (V, T, D)."""
        return self.read("f_a")

    @property
    def f_v(self) -> NDArray[np.float32]:
        """Visual features of the encoder, (V, T, D)."""
        return self.read("f_v")

    def read(self, name: str, videos: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Reads an array, of all V videos or those at some places: (V, T, ...) or (n, T, ...).

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
        """Returns the command that made the cache, with more options; "" where it was imported."""
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
    samples: CachedSamples,
    arrays: Mapping[str, ArrayLike],
    segment_seconds: float = 1.0,
    missing: tuple[Missing, ...] = (),
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Writes a cache, whole or not at all; returns its digest. Needs the arrays f_a and f_v, (V, T, ...).

    Raises:
        StoreError: arrays or samples that do not fit each other.
    """
    _check(video_ids, categories, samples, arrays)
    text = json.dumps(dict(provenance or {}), sort_keys=True)
    digest = content_digest(provenance or {}, video_ids, categories, samples, segment_seconds, arrays)
    with new_file(path, _room(arrays, samples, text, (*video_ids, *categories), missing)) as file:
        file.attrs.update(format=FORMAT, version=VERSION, provenance=text, digest=digest)
        file.attrs.update(segments=int(arrays["f_a"].shape[1]), segment_seconds=float(segment_seconds))
        file["video_ids"], file["categories"] = _strings(video_ids), _strings(categories)
        for name, values in _columns(samples).items():
            file[name] = _strings(values) if values.dtype == object else values
        file["missing_sample"] = np.array([item.sample for item in missing], np.int64)
        file["missing_video_id"] = _strings([item.video_id for item in missing])
        file["missing_reason"] = _strings([item.reason for item in missing])
        for name, source in arrays.items():
            _write_array(file, name, source)
    return digest


def _room(
    arrays: Mapping[str, ArrayLike],
    samples: CachedSamples,
    text: str,
    names: tuple[str, ...],
    missing: tuple[Missing, ...],
) -> int:
    """Returns the most bytes that a cache takes; HDF5 adds some for each string and each chunk."""
    values = sum(
        math.prod(source.shape) * np.dtype(_dtype(name, source)).itemsize for name, source in arrays.items()
    )
    columns = _columns(samples).values()
    texts = [word for column in columns if column.dtype == object for word in column]
    texts += [word for item in missing for word in (item.video_id, item.reason)]
    strings = [*names, *texts]
    written = sum(len(str(word).encode()) for word in strings) + 2 * len(text.encode())
    return int(
        values
        + sum(column.nbytes for column in columns)
        + written
        + PER_STRING_BYTES * (len(strings) + len(names))
    )


def _dtype(name: str, source: ArrayLike) -> type[np.floating[Any]]:
    """Returns the dtype of an array in the file: float32, but maps in float16 unless given in float32."""
    return np.float16 if name == MAPS and getattr(source, "dtype", None) != np.float32 else np.float32


def _write_array(file: h5py.File, name: str, source: ArrayLike) -> None:
    """Writes vectors contiguously, maps in one checksummed chunk for each video."""
    shape = tuple(source.shape)
    if name == MAPS:
        dataset = file.create_dataset(
            name, shape, _dtype(name, source), chunks=(1, *shape[1:]), fletcher32=True
        )
    else:
        dataset = file.create_dataset(name, shape, _dtype(name, source))
    for start in range(0, shape[0], BLOCK_VIDEOS):
        dataset[start : start + BLOCK_VIDEOS] = source[start : start + BLOCK_VIDEOS]


def _columns(samples: CachedSamples) -> dict[str, NDArray[Any]]:
    """Returns name in the file -> column."""
    return {
        "sample": samples.number,
        "video": samples.video,
        "split": samples.split,
        "leaked": samples.leaked,
        "events_known": samples.known,
        "event_sample": samples.events.sample,
        "event_category": samples.events.category,
        "event_onset_seconds": samples.events.onset_seconds,
        "event_offset_seconds": samples.events.offset_seconds,
    }


def _check(
    video_ids: tuple[str, ...],
    categories: tuple[str, ...],
    samples: CachedSamples,
    arrays: Mapping[str, ArrayLike],
) -> None:
    unknown = set(arrays) - {*VECTORS, MAPS}
    if unknown or not {"f_a", "f_v"} <= set(arrays):
        raise StoreError(f"a feature cache holds f_a, f_v and maybe cnn_a, cnn_v, maps, not {sorted(arrays)}")
    segments = arrays["f_a"].shape[1]
    for name, source in arrays.items():
        if tuple(source.shape[:2]) != (len(video_ids), segments):
            raise StoreError(f"{name} is {tuple(source.shape)}, not ({len(video_ids)}, {segments}, ...)")
    if len(samples) and not 0 <= samples.video.min() <= samples.video.max() < len(video_ids):
        raise StoreError(f"a sample names video {samples.video.max()} of {len(video_ids)}")
    events = samples.events
    if not samples.known[events.sample[events.sample < len(samples)]].all():
        raise StoreError("an event is of a sample whose events are not known")
    for what, numbers, count in (
        ("sample", events.sample, len(samples)),
        ("class", events.category, len(categories)),
    ):
        if len(events) and not 0 <= numbers.min() <= numbers.max() < count:
            raise StoreError(f"an event is of {what} {numbers.max()}, there are {count}")


def content_digest(
    provenance: Mapping[str, Any],
    video_ids: tuple[str, ...],
    categories: tuple[str, ...],
    samples: CachedSamples,
    segment_seconds: float,
    arrays: Mapping[str, ArrayLike],
) -> str:
    """Returns 16 hex digits over provenance, names, samples and vectors; maps follow from the provenance."""
    made = {key: value for key, value in provenance.items() if key not in PLACES}
    columns = _columns(samples)
    words = {name: list(map(str, values)) for name, values in columns.items() if values.dtype == object}
    about = [made, video_ids, categories, float(segment_seconds), sorted(arrays), words]
    numbers = [(name, values) for name, values in columns.items() if name not in words]
    blocks = (
        (name, np.asarray(arrays[name][start : start + BLOCK_VIDEOS], np.float32))
        for name in VECTORS
        if name in arrays
        for start in range(0, len(video_ids), BLOCK_VIDEOS)
    )
    return digest_of(about, chain(numbers, blocks))


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
            f"{path}: format {found[0]!r} version {found[1]}, this avel reads {FORMAT!r} {VERSION}",
            hint="make it again with the same avel cache-features command and --overwrite",
        )
    return file


def _read_samples(file: h5py.File) -> CachedSamples:
    events = EventTable(
        *(file[f"event_{name}"][()] for name in ("sample", "category", "onset_seconds", "offset_seconds"))
    )
    number, video, leaked, known = (file[name][()] for name in ("sample", "video", "leaked", "events_known"))
    return CachedSamples(number, video, np.array(_text(file, "split"), object), leaked, known, events)


def _read_missing(file: h5py.File) -> tuple[Missing, ...]:
    columns = (
        file["missing_sample"][()].tolist(),
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
    """Returns the command that makes a cache; `options` are quoted already."""
    encoded = [] if encoder is None else ["--encoder", str(encoder)]
    words = [shlex.quote(word) for word in (str(store), str(cache), *encoded)]
    return " ".join(["avel cache-features", *words, *filter(None, [options]), *map(shlex.quote, more)])
