"""Reads and writes a feature cache, one HDF5 file: features by video, events and splits by sample."""

import json
import math
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from avel.digests import digest_of
from avel.errors import StoreError
from avel.stores.cached_samples import (
    SAMPLE_COLUMNS,
    CachedSamples,
    Missing,
    check_samples,
    repeats,
    samples_of,
)
from avel.stores.datasets.dataset import no_sample, split_sizes
from avel.stores.datasets.labels import EventsOnGrid
from avel.stores.documents import parse, typed
from avel.stores.hdf5 import (
    BLOCK_ROWS,
    CHECKSUMS,
    ArrayLike,
    array_of,
    attribute,
    decoded,
    new_hdf5,
    open_hdf5,
    read_column,
    read_verified_rows,
    texts,
    write_rows,
)
from avel.stores.kinds import not_a
from avel.stores.named_features import (
    GROUP,
    MAPS,
    MODALITY_OF_OWN,
    OWN_ARRAYS,
    NamedFeatures,
    NewFeatures,
    named_digest,
    place_in_file,
    read_named,
    which_drops,
)
from avel.stores.provenance import CACHE_AGAIN, INPUTS, CacheInputs, CacheProvenance
from avel.text import classes_and_background, html_table, plural

FORMAT, VERSION = "avel-features", 8
TEMPORAL = "temporal."
"""Beginning of the names under which a cache keeps the weights of the Bi-LSTMs that made f_a and f_v."""
ARRAY_BYTES = 8192
"""Room in the file for what HDF5 stores about one array."""
CACHE_COLUMNS: dict[str, type[np.generic]] = {
    **SAMPLE_COLUMNS,
    "video_ids": np.bytes_,
    "source_sha256": np.bytes_,
    "lengths": np.int64,
    "categories": np.bytes_,
    "missing_sample": np.int64,
    "missing_video_id": np.bytes_,
    "missing_reason": np.bytes_,
}
"""Columns of the file -> their type; the digest is over their bytes."""


@dataclass(frozen=True, repr=False)
class FeatureCache:
    """A feature cache: samples and names in memory, arrays read on request.

    >>> cache = FeatureCache.open("features.h5")                        # doctest: +SKIP
    >>> cache.f_a[cache.samples.video[cache.samples.split == "train"]].shape  # doctest: +SKIP
    (3339, 10, 256)

    Attributes:
        shapes: name of an array, avel's own (f_a, f_v, cnn_a, cnn_v, maps) or a named one -> its shape.
        checksums: name of an array -> CRC-32C of each of its rows.
        temporal_checksums: the same of the weights that `read_temporal` reads.
        named: the features beside avel's own, by the names of their encoders.
        lengths: (V,) segments of each video, T or fewer; features after them are 0 and mean nothing.
        source_sha256: (V,) hashes of the videos' files, b"" where they are not known.
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
    checksums: dict[str, NDArray[np.uint32]]
    temporal_checksums: dict[str, NDArray[np.uint32]]
    named: dict[str, NamedFeatures]
    lengths: NDArray[np.int64]
    source_sha256: NDArray[np.bytes_]

    @classmethod
    def open(cls, path: Path | str) -> "FeatureCache":
        """Reads everything but the features, and compares it with the digest.

        Raises:
            BusyError: another program has it open for writing.
            MissingPathError: nothing is there.
            StoreError: not a feature cache, damaged, or of another version.
        """
        path = Path(path)
        if not path.is_file():
            hint = f"avel cache-features STORE {shlex.quote(str(path))} makes one, or avel import-features"
            raise not_a("feature cache", path, hint)
        with open_hdf5(path, CACHE_AGAIN) as file:
            cache = _read(path, file)
        for name, about in cache.named.items():
            sums = cache.checksums[name]
            if about.digest != named_digest(name, about.modality, about.made, cache.video_ids, sums):
                raise StoreError(f"{path}: is damaged: {name} does not match its digest", hint=CACHE_AGAIN)
        return cache

    def __repr__(self) -> str:
        arrays = ", ".join(f"{name} {shape}" for name, shape in self.shapes.items())
        counts = f"{plural(len(self), 'clip')}, {plural(len(self.samples), 'sample')}"
        classes = classes_and_background(len(self.categories))
        return f"<FeatureCache {self.path}: {counts}, {classes}; {arrays}>"

    def __len__(self) -> int:
        """Returns the number of clips, V."""
        return len(self.video_ids)

    def __iter__(self) -> Iterator[str]:
        """Yields the ids of the clips, in the order of the rows of f_a and f_v."""
        return iter(self.video_ids)

    def _repr_html_(self) -> str:
        facts = {
            "clips": f"{len(self.video_ids):,}",
            "grid": f"{plural(self.grid_segments, 'segment')} of {self.segment_seconds:g} s",
            "samples": split_sizes(self.samples.split),
            "classes": f"{', '.join(self.categories)}, and background",
            "missing": f"{len(self.missing):,}",
            **{name: " x ".join(map(str, shape)) for name, shape in self.shapes.items()},
        }
        return html_table(f"feature cache {self.path}", facts)

    @property
    def classes(self) -> int:
        """Returns K: the categories and background."""
        return len(self.categories) + 1

    @property
    def annotation_rows(self) -> int:
        """Returns how many rows the annotations have at least: 1 + the highest number of a sample."""
        return 1 + max(int(self.samples.number.max(initial=-1)), *(item.sample for item in self.missing), -1)

    @property
    def encoder(self) -> str:
        """Returns the kind of the encoder that made the features, and its digest where there is one."""
        about = self.provenance.get("encoder")
        entries = about if isinstance(about, dict) else {}
        return " ".join(str(entries[key]) for key in ("kind", "digest") if key in entries) or "unknown"

    @property
    def sources(self) -> dict[str, str]:
        """Returns video id -> SHA-256 of its file, of the videos whose files are known."""
        named = zip(self.video_ids, decoded(self.source_sha256), strict=True)
        return {video_id: source for video_id, source in named if source}

    def labels(self, samples: CachedSamples | None = None) -> NDArray[np.int64]:
        """Returns the class of each segment of samples, or of all: int64 (R, T); UNKNOWN -1, PADDED -2.

        Raises:
            DatasetError: a sample in which events of two classes overlap.
        """
        return self._on_grid(self.samples if samples is None else samples).labels()

    def segment_classes(self, samples: CachedSamples, modalities: Sequence[int]) -> NDArray[np.int8]:
        """Returns whether segments hold classes, for M modalities: int8 (R, T, M, C); UNKNOWN -1, PADDED -2.

        `modalities` are places in `datasets.sample.MODALITIES`; an event of both is in each.
        """
        return self._on_grid(samples).segment_classes(modalities)

    def _on_grid(self, samples: CachedSamples) -> EventsOnGrid:
        def name_of(place: int) -> str:
            return f"{self.path}: sample {samples.number[place]} ({self.video_ids[samples.video[place]]})"

        lengths = self.lengths[samples.video] if self.differing_lengths else None
        grid = self.grid_segments, self.segment_seconds
        return EventsOnGrid(samples.known, samples.events, self.categories, *grid, name_of, lengths)

    @property
    def differing_lengths(self) -> bool:
        """Returns True if any clip has fewer than T segments."""
        return bool((self.lengths < self.grid_segments).any())

    @property
    def f_a(self) -> NDArray[np.float32]:
        """Returns the audio features of the encoder, (V, T, D)."""
        return self.read("f_a")

    @property
    def f_v(self) -> NDArray[np.float32]:
        """Returns the visual features of the encoder, (V, T, D)."""
        return self.read("f_v")

    def read(self, name: str, videos: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Reads an array, of all V videos or those with some indices: (V, T, ...) or (n, T, ...).

        Raises:
            StoreError: the cache does not hold it, or its checksum fails.
        """
        self.check_holds(name)
        hint = self.how_to_remake()
        rows = slice(None) if videos is None else videos.tolist()
        with open_hdf5(self.path, hint) as file:
            array = array_of(file, place_in_file(name), hint)
            return read_verified_rows(array, self.checksums[name], rows, hint)

    @property
    def has_temporal(self) -> bool:
        """Returns True if it keeps the weights that `read_temporal` reads."""
        return bool(self.temporal_checksums)

    def read_temporal(self) -> dict[str, NDArray[np.float32]]:
        """Reads the weights that made f_a and f_v from cnn_a and cnn_v, those of an `avel.temporal.Temporal`.

        Name -> values; empty where the cache keeps none.

        Raises:
            StoreError: they are damaged.
        """
        with open_hdf5(self.path, CACHE_AGAIN) as file:
            return {
                name: read_verified_rows(
                    array_of(file, TEMPORAL + name, CACHE_AGAIN), sums, slice(None), CACHE_AGAIN
                )
                for name, sums in self.temporal_checksums.items()
            }

    def check_holds(self, name: str) -> None:
        """Checks that the cache holds an array of that name.

        Raises:
            StoreError: it does not; the hint says how to add it.
        """
        if name not in self.shapes:
            arrays = ", ".join(self.shapes)
            raise StoreError(
                f"{self.path}: no {name!r} in this cache, only {arrays}", hint=self._how_to_add(name)
            )

    def check_joins(self, names: Sequence[str]) -> None:
        """Checks that the cache holds arrays, and that they can be concatenated in their last axis.

        Raises:
            StoreError: it lacks one, one is named twice, or they have other axes before the last.
        """
        for name in names:
            self.check_holds(name)
        if len({self.shapes[name][:-1] for name in names}) > 1 or len(set(names)) < len(names):
            shown = ", ".join(f"{name} {self.shapes[name]}" for name in names)
            raise StoreError(
                f"{self.path}: {shown} cannot be joined",
                hint="join vectors with vectors, or maps with maps of the same number of cells, each once",
            )

    def places_of_split(self, split: str | None) -> NDArray[np.int64]:
        """Returns the indices of a split's samples, of all samples for None: (n,).

        Raises:
            StoreError: the split has no sample.
        """
        places = np.flatnonzero((self.samples.split == split) | (split is None))
        if not len(places):
            raise no_sample(f"{self.path}: no sample", split, self.samples.split)
        return places

    def places_of_videos(self, video_ids: Iterable[str]) -> NDArray[np.int64]:
        """Returns the indices of videos, all of which the cache holds: (n,)."""
        place = {video_id: number for number, video_id in enumerate(self.video_ids)}
        return np.array([place[video_id] for video_id in video_ids], np.int64)

    def of_split(self, split: str | None, name: str) -> NDArray[Any]:
        """Reads features of a split's samples, of all samples for None: (n, T, ...).

        >>> cache.of_split("train", "f_a").shape  # doctest: +SKIP
        (3339, 10, 256)
        """
        return self.read(name, self.samples.video[self.places_of_split(split)])

    def modality_of(self, name: str) -> str:
        """Returns "audio" or "visual", the modality of an array that the cache holds."""
        return MODALITY_OF_OWN[name] if name in OWN_ARRAYS else self.named[name].modality

    def digest_with(self, names: Iterable[str]) -> str:
        """Returns a digest of the cache and of its named features in `names`; without any, its own."""
        digests = [self.named[name].digest for name in sorted({*names} & {*self.named})]
        return digest_of([self.digest, *digests]) if digests else self.digest

    def command(self, *more: str) -> str:
        """Returns the command that made the cache, with more options; "" where it was imported."""
        inputs = self.inputs
        if inputs.store is None:
            return ""
        return cache_command(inputs.store, self.path, inputs.run, inputs.options or "", *more)

    def how_to_remake(self) -> str:
        """Returns how to make the cache again where it is damaged."""
        return self.command("--overwrite") or CACHE_AGAIN

    @property
    def inputs(self) -> CacheInputs:
        """Returns the paths and options that it was made with; StoreError where one is of another type."""
        plain = {name: self.provenance.get(name) for name in INPUTS}
        return typed(CacheInputs, plain, f"{self.path}: provenance", CACHE_AGAIN)

    @property
    def typed_provenance(self) -> CacheProvenance:
        """Returns what `avel cache-features` wrote of it; StoreError for an imported or damaged cache."""
        return typed(CacheProvenance, self.provenance, f"{self.path}: provenance", CACHE_AGAIN)

    def _how_to_add(self, name: str) -> str:
        if name not in OWN_ARRAYS:
            return "avel inspect lists them; avel import-features adds others"
        option = "--keep-maps" if name == MAPS else "--keep-cnn"
        command = self.command(option, "--overwrite")
        if not command:
            return f"import files that hold it, or avel cache-features STORE CACHE {option}"
        return command + which_drops(self.named)

    def faults(self) -> list[str]:
        """Reads all arrays; returns a line for each that holds damaged rows, or values that are not finite.

        All else was compared with the digest when the cache was opened.
        """
        found = [*map(self._fault_of, self.shapes)]
        try:
            self.read_temporal()
        except StoreError as error:
            found.append(error.message)
        return [*filter(None, found)]

    def _fault_of(self, name: str) -> str:
        """Names the first damaged row, or first block of rows with a value that is not finite; else ""."""
        for start in range(0, len(self), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(self))
            try:
                block = self.read(name, np.arange(start, stop))
            except StoreError as error:
                return error.message
            if not np.isfinite(block).all():
                return f"{name} of videos {start} to {stop - 1} holds values that are not finite"
        return ""


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
    named: Mapping[str, NewFeatures] | None = None,
    lengths: NDArray[np.int64] | None = None,
    sources: Mapping[str, str] | None = None,
    temporal: Mapping[str, NDArray[np.float32]] | None = None,
) -> FeatureCache:
    """Writes a cache, whole or not at all, and opens it. Needs the arrays f_a and f_v, (V, T, ...).

    Args:
        named: features beside avel's own, by name; the cache's digest is without them, each has its own.
        lengths: (V,) the segments of each video; without them all have T.
        sources: video id -> SHA-256 of its file, where it is known.
        temporal: weights of the Bi-LSTMs that made f_a and f_v from cnn_a and cnn_v, by name.

    Raises:
        StoreError: arrays or samples that do not fit each other.
    """
    new = dict(named or {})
    features = {**arrays, **{name: each.values for name, each in new.items()}}
    if lengths is None:
        lengths = np.full(len(video_ids), arrays["f_a"].shape[1], np.int64)
    shapes = {name: tuple(source.shape) for name, source in features.items()}
    plain = json.loads(json.dumps(dict(provenance or {})))  # as it will be read, for the digest
    columns = samples.columns()
    columns |= {name: texts(values) for name, values in columns.items() if values.dtype == object}
    columns |= {
        "video_ids": texts(video_ids),
        "source_sha256": texts((sources or {}).get(video_id, "") for video_id in video_ids),
        "lengths": lengths,
        "categories": texts(categories),
        "missing_sample": np.array([item.sample for item in missing], np.int64),
        "missing_video_id": texts(item.video_id for item in missing),
        "missing_reason": texts(item.reason for item in missing),
    }
    _check(columns["video_ids"], categories, samples, shapes, new, lengths)
    room = sum(values.nbytes for values in columns.values()) + sum(
        math.prod(source.shape) * np.dtype(_dtype(source)).itemsize + 4 * len(video_ids)
        for source in features.values()
    )
    # twice the length of the provenance, to be safe
    room += 2 * len(json.dumps([plain, *(dict(each.made) for each in new.values())])) + ARRAY_BYTES * len(new)
    weights = temporal or {}
    room += sum(values.nbytes + 4 * len(values) for values in weights.values()) + ARRAY_BYTES * len(weights)
    with new_hdf5(path, room) as file:
        for name, values in columns.items():
            file[name] = values
        weight_sums = {
            name: write_rows(file, TEMPORAL + name, values, np.float32) for name, values in weights.items()
        }
        sums: dict[str, NDArray[np.uint32]] = {}
        written: dict[int, ArrayLike] = {}
        for name, source in features.items():
            # f_a and cnn_a of an import are one source: copying is faster than reading its files again
            copied = written.get(id(source), source)
            sums[name] = write_rows(file, place_in_file(name), copied, _dtype(source))
            written[id(source)] = file[place_in_file(name)]
        digest = _content_digest(plain, segment_seconds, columns, sums, weight_sums)
        about = {name: vars(each.named(name, video_ids, sums[name])) for name, each in new.items()}
        plain |= {GROUP: about} if about else {}
        file["provenance"] = texts([json.dumps(plain, sort_keys=True)]).reshape(())
        file.attrs.update(
            version=VERSION, segments=int(arrays["f_a"].shape[1]), segment_seconds=float(segment_seconds)
        )
        file.attrs.update(format=np.bytes_(FORMAT), digest=np.bytes_(digest))
    return FeatureCache.open(path)


def _dtype(source: ArrayLike) -> type[np.floating[Any]]:
    """Returns the dtype of an array in the file: float32, but maps in float16 unless given in float32."""
    is_map = len(source.shape) == 5
    return np.float16 if is_map and getattr(source, "dtype", None) != np.float32 else np.float32


def _check(
    video_ids: NDArray[np.bytes_],
    categories: tuple[str, ...],
    samples: CachedSamples,
    shapes: Mapping[str, tuple[int, ...]],
    named: Collection[str],
    lengths: NDArray[np.int64],
) -> None:
    """Checks that what a cache holds fits together; raises StoreError."""
    unknown = set(shapes) - {*OWN_ARRAYS, *named}
    if unknown or not {"f_a", "f_v"} <= set(shapes):
        raise StoreError(f"a feature cache holds f_a, f_v and maybe cnn_a, cnn_v, maps, not {sorted(shapes)}")
    rows = (len(video_ids), *shapes["f_a"][1:2])
    for name, shape in shapes.items():
        allowed = (3, 5) if name in named else (5,) if name == MAPS else (3,)
        if shape[:2] != rows or len(shape) not in allowed or not all(shape[1:]):
            axes = f"({', '.join(map(str, rows))}, ...) of {' or '.join(map(str, allowed))} dimensions"
            raise StoreError(f"{name} is {shape}, not {axes}")
    if repeats(video_ids):
        raise StoreError("video_ids names a video twice")
    if len(lengths) != len(video_ids):
        raise StoreError(f"lengths has {len(lengths)} values, not {len(video_ids)}")
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= rows[1]:
        raise StoreError(
            f"lengths go from {lengths.min()} to {lengths.max()}, not from 1 to {rows[1]} at most"
        )
    check_samples(samples, len(video_ids), len(categories))


def _content_digest(
    provenance: Mapping[str, Any],
    segment_seconds: float,
    columns: Mapping[str, NDArray[Any]],
    checksums: Mapping[str, NDArray[np.uint32]],
    temporal_checksums: Mapping[str, NDArray[np.uint32]],
) -> str:
    """Returns 16 hex digits over provenance, columns, and checksums of avel's own arrays and weights."""
    made = {key: value for key, value in provenance.items() if key not in (*INPUTS, GROUP)}
    numbers = [(name, columns[name]) for name in CACHE_COLUMNS]
    numbers += [(name, checksums[name]) for name in OWN_ARRAYS if name in checksums]
    numbers += [(TEMPORAL + name, sums) for name, sums in sorted(temporal_checksums.items())]
    return digest_of([made, float(segment_seconds)], numbers)


@dataclass(frozen=True)
class _Attributes:
    """Attributes of a cache, apart from its format."""

    segments: int
    segment_seconds: float
    digest: str


def _read(path: Path, file: h5py.File) -> FeatureCache:
    """Reads all of a cache but its arrays of features; raises StoreError with what is wrong."""
    held = {name: attribute(file, name) for name in file.attrs}
    form = held.get("format"), held.get("version")
    if form != (FORMAT, VERSION):
        raise StoreError(
            f"{path}: format {form[0]!r} version {form[1]!r}, this avel reads {FORMAT!r} {VERSION}",
            hint=CACHE_AGAIN,
        )
    attributes = typed(_Attributes, held, path, CACHE_AGAIN)
    text = read_column(file, "provenance", np.bytes_, CACHE_AGAIN, dimensions=0).item()
    provenance = parse(text, f"{path}: provenance", CACHE_AGAIN)
    named = read_named(path, provenance)
    arrays = [*(name for name in OWN_ARRAYS if name in file), *named]
    columns = {name: read_column(file, name, dtype, CACHE_AGAIN) for name, dtype in CACHE_COLUMNS.items()}
    weights = [
        name.removeprefix(TEMPORAL)
        for name in file
        if name.startswith(TEMPORAL) and not name.endswith(CHECKSUMS)
    ]

    def checksums_of(place: str) -> NDArray[np.uint32]:
        return read_column(file, place + CHECKSUMS, np.uint32, CACHE_AGAIN)

    sums = {name: checksums_of(place_in_file(name)) for name in arrays}
    weight_sums = {name: checksums_of(TEMPORAL + name) for name in weights}
    missing = zip(
        columns["missing_sample"].tolist(),
        decoded(columns["missing_video_id"]),
        decoded(columns["missing_reason"]),
        strict=True,
    )
    cache = FeatureCache(
        path,
        attributes.segments,
        attributes.segment_seconds,
        tuple(decoded(columns["video_ids"])),
        tuple(decoded(columns["categories"])),
        samples_of(columns),
        tuple(Missing(*values) for values in missing),
        provenance,
        attributes.digest,
        {name: tuple(array_of(file, place_in_file(name), CACHE_AGAIN).shape) for name in arrays},
        sums,
        weight_sums,
        named,
        columns["lengths"],
        columns["source_sha256"],
    )
    try:
        _check(
            columns["video_ids"], cache.categories, cache.samples, cache.shapes, cache.named, cache.lengths
        )
        for name in arrays:
            dtype = file[place_in_file(name)].dtype
            if dtype not in (np.float32, np.float16):
                raise StoreError(f"{name} is {dtype}, not float32")
            if len(sums[name]) != len(cache):
                raise StoreError(f"{name + CHECKSUMS} does not have one value for each video")
        if len(cache.source_sha256) != len(cache):
            raise StoreError("source_sha256 does not have one value for each video")
        if cache.grid_segments != cache.shapes["f_a"][1] or not 0 < cache.segment_seconds < math.inf:
            raise StoreError(f"{cache.grid_segments} segments of {cache.segment_seconds} s do not fit f_a")
        if cache.digest != _content_digest(provenance, cache.segment_seconds, columns, sums, weight_sums):
            raise StoreError("is damaged: its content does not match its digest")
    except StoreError as error:
        raise StoreError(f"{path}: {error.message}", hint=CACHE_AGAIN) from None
    return cache


def cache_command(
    store: str | Path, cache: Path, encoder: str | Path | None, options: str, *more: str
) -> str:
    """Returns the command that makes a cache; `options` are quoted already."""
    encoded = [] if encoder is None else ["--encoder", str(encoder)]
    words = [shlex.quote(word) for word in (str(store), str(cache), *encoded)]
    return " ".join(["avel cache-features", *words, *filter(None, [options]), *map(shlex.quote, more)])
