"""Reads a clip store: staged frames, log-mel and waveforms by video id, the manifest and the dataset."""

from __future__ import annotations

import shlex
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from avel.errors import DatasetError, MissingPathError, StoreError, UnknownNameError
from avel.stores.arrow import read_own_parquet
from avel.stores.chunks import elements, numbers, raw_frames
from avel.stores.clip_layout import (
    ARRAYS,
    FRAMES,
    LOG_MEL,
    OWN_NAMES,
    ROWS,
    START_AGAIN,
    WAVEFORM,
    StoreAttributes,
    array_spec,
    chunk_name,
    chunk_shape,
    read_attributes,
    read_chunk,
    read_video_ids,
    row_shape,
    without_format_warning,
)
from avel.stores.datasets.dataset import Dataset, Description, read_description, split_sizes
from avel.stores.datasets.labels import whole_segments
from avel.stores.datasets.sample import schemas
from avel.stores.jpeg import decode_jpeg
from avel.stores.kinds import not_a
from avel.stores.location import Location, RemoteLocation, locate
from avel.stores.manifest import Manifest, read_manifest
from avel.stores.shards import PACK_AGAIN, PACKED, SHARDS_AGAIN, Packing, read_packing
from avel.text import first_line, html_table, plural

if TYPE_CHECKING:
    import os

    import pyarrow as pa

F = TypeVar("F")
"""A frame, as a JPEG file or decoded."""

STAGE_REST = "the same avel extract command stages the rest; --retry-failed tries failed clips again"
REPAIR = "the same avel extract command with --repair stages damaged clips again"
CHANGED_BY_PACK = ("entries", "staged_entries", "staged", "_rows", "packing", "packed_arrays", "_packed_rows")
"""Cached attributes of a store that are out of date once `avel pack` has run."""
DATASET_AGAIN = "remove the folder dataset/ of the store, and give the avel extract command again"


class ClipStore:
    """A clip store, open for reading; pickled as its path. The manifest is read once, on first use.

    >>> store = ClipStore.open("clips.zarr")              # doctest: +SKIP
    >>> store.frames(store.staged[0], [0, 16, 32]).shape  # doctest: +SKIP
    (3, 256, 256, 3)
    """

    def __init__(self, location: Location, attributes: StoreAttributes) -> None:
        self.location, self.attributes = location, attributes
        self.grid, self.settings, self.digest = attributes.grid, attributes.settings, attributes.digest

    def __repr__(self) -> str:
        return f"<ClipStore {self.location.url}: {plural(len(self), 'clip')}, {self._grid_text()}>"

    def _grid_text(self) -> str:
        return f"{plural(self.grid.segments, 'segment')} of {self.grid.segment_seconds:g} s"

    def __len__(self) -> int:
        """Returns the number of clips, staged or not."""
        return self.attributes.videos

    def __iter__(self) -> Iterator[str]:
        """Yields the ids of the clips, in the order of the arrays."""
        return iter(self.video_ids)

    def _repr_html_(self) -> str:
        grid = self.grid
        facts = {
            "clips": f"{len(self.staged):,} staged of {len(self):,}",
            "grid": f"{self._grid_text()}, {grid.fps} frames/s, {grid.size} pixels, {grid.sample_rate} Hz",
            "samples": split_sizes(self.dataset.samples.texts("split")),
            "classes": ", ".join(self.dataset.categories) or "none",
        }
        return html_table(f"clip store {self.location.url}", facts)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ClipStore:
        """Opens the store at a folder or URL; reads only its attributes.

        Raises:
            MissingPathError: there is no store.
            StoreError: the store has another format or version, or holds no clip yet.
        """
        location = locate(path)
        attributes = read_attributes(location)
        if attributes is not None:
            return cls(location, attributes)
        if location.read("zarr.json") is not None:
            raise StoreError(
                f"{path}: an unfinished clip store, which holds no clip yet",
                hint="give the same avel extract command again, which goes on",
            )
        hint = shlex.join(["avel", "extract", "DATASET", str(path)])
        if isinstance(location, RemoteLocation):
            raise MissingPathError(f"{path}: no clip store", hint=hint)
        raise not_a("clip store", path, hint)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return ClipStore.open, (self.location.url,)

    @cached_property
    def video_ids(self) -> tuple[str, ...]:
        """Returns the ids of the videos, in array order."""
        return tuple(read_video_ids(self.location, self.attributes).to_pylist())

    @cached_property
    def entries(self) -> Manifest:
        """Returns video id -> manifest entry, in array order."""
        return read_manifest(self.location)

    @cached_property
    def staged_entries(self) -> Manifest:
        """Returns the entries of the videos staged completely with the store's settings, in array order."""
        return self.entries.where(state="staged", settings=self.digest)

    @cached_property
    def staged(self) -> tuple[str, ...]:
        """Returns the ids of the videos staged completely with the store's settings, in array order."""
        return tuple(self.staged_entries.ids)

    @cached_property
    def lengths(self) -> dict[str, int] | None:
        """Returns video id -> segments where clips have lengths of their own; None if all fill the grid."""
        if self.description.longest_seconds is None:
            return None
        seconds, grid = self.entries.column("valid_seconds"), self.grid
        lengths = whole_segments(seconds, grid.segments, grid.segment_seconds).tolist()
        return dict(zip(self.entries.ids, lengths, strict=True))

    @property
    def waiting(self) -> tuple[str, ...]:
        """Returns the ids of the videos that are still to be staged, in array order; failed ones are not."""
        ended = self.entries.holds(state="failed") | self.entries.holds(state="staged", settings=self.digest)
        return tuple(self.entries.filter(~ended).ids)

    @cached_property
    def dataset(self) -> Dataset:
        """Returns the dataset that was staged: videos, and samples with their events."""
        try:
            return Dataset.from_tables({name: self.table(name) for name in schemas()})
        except DatasetError as error:
            raise StoreError(f"{self.location.url}/dataset: {error.message}", hint=DATASET_AGAIN) from None

    @cached_property
    def description(self) -> Description:
        """Returns the dataset's name, root and classes, and the longest length where clips have their own."""
        try:
            return read_description(self.table("samples"))
        except DatasetError as error:
            raise StoreError(f"{self.location.url}/dataset: {error.message}", hint=DATASET_AGAIN) from None

    def table(self, name: str) -> pa.Table:
        """Reads a table of the dataset: "samples", "events" or "videos".

        Raises:
            StoreError: it is missing or damaged.
        """
        where = f"{self.location.url}/dataset/{name}.parquet"
        data = self.location.read(f"dataset/{name}.parquet")
        if data is None:
            raise StoreError(f"{where} is missing", hint="avel extract writes it")
        return read_own_parquet(data, schemas()[name], where, DATASET_AGAIN)

    @property
    def stored_bytes(self) -> int:
        """Returns the number of bytes of the store.

        Chunks outside of shards may be millions of files, so the manifest says how many bytes they are.
        """
        in_own_files = self.entries.holds(state="staged") & ~self.entries.column("packed")
        chunks = self.entries.filter(in_own_files).stored_bytes
        others = sorted(OWN_NAMES - set(ARRAYS)) + [f"{name}/zarr.json" for name in self.attributes.arrays]
        return chunks + self.location.bytes(others)

    def jpegs(self, video_id: str, frames: Sequence[int]) -> list[bytes]:
        """Returns the JPEG files of the frames with these numbers.

        Raises:
            StoreError: the video is not staged, its bytes are damaged, or the store holds raw frames.
        """
        if self.attributes.frame_codec != "jpeg":
            raise StoreError(
                f"{self.location.url}: holds {self.attributes.frame_codec} frames, not JPEG",
                hint="ClipStore.frames reads them",
            )
        return self._by_chunk(video_id, frames, elements)

    def frames(self, video_id: str, frames: Sequence[int]) -> NDArray[np.uint8]:
        """Returns the frames with these numbers, decoded: uint8 (n, H, W, C), RGB.

        Raises:
            StoreError: the video is not staged, or its bytes are damaged.
        """
        size = self.grid.size
        result, row = np.empty((len(frames), size, size, 3), np.uint8), self._row(video_id)
        if self.attributes.frame_codec == "raw":
            shape = chunk_shape(self.attributes, FRAMES)
            result[:] = self._by_chunk(video_id, frames, lambda chunk, at: list(raw_frames(chunk, shape)[at]))
            return result
        for out, file in zip(result, self.jpegs(video_id, frames), strict=True):
            with self._damage(FRAMES, row):
                decode_jpeg(file, out)
        return result

    def log_mel(self, video_id: str) -> NDArray[np.float32]:
        """Returns the VGGish patch of every segment: float32 (T, 96, 64), log(mel magnitude + 0.01).

        Raises:
            StoreError: the video is not staged, or its bytes are damaged.
        """
        patches = self._numbers(LOG_MEL, video_id, "<f4")
        if np.isnan(patches).any():
            raise StoreError(f"{self.location.url}: {video_id}: log-mel is incomplete", hint=REPAIR)
        return patches

    def waveform(self, video_id: str) -> NDArray[np.int16]:
        """Returns the audio: int16 (T * samples_per_segment,), mono, at the grid's sample rate.

        Raises:
            StoreError: the store holds no waveforms, the video is not staged, or its bytes are damaged.
        """
        if not self.attributes.waveform:
            raise StoreError(
                f"{self.location.url}: holds no waveforms",
                hint="the same avel extract command with --overwrite and without --no-waveform stages them",
            )
        return self._numbers(WAVEFORM, video_id, "<i2")

    def _numbers(self, name: str, video_id: str, dtype: str) -> NDArray[Any]:
        """Returns one video's row of an array of numbers."""
        row, shape = self._row(video_id), chunk_shape(self.attributes, name)
        chunks = [self._chunk(name, row, number) for number in range(self.attributes.chunks)]
        with self._damage(name, row):
            joined = np.concatenate([numbers(chunk, dtype, shape) for chunk in chunks])
        return joined[: row_shape(self.attributes, name)[0]]

    def _by_chunk(
        self, video_id: str, frames: Sequence[int], read: Callable[[bytes, list[int]], Sequence[F]]
    ) -> list[F]:
        """Reads frames, calling `read` once for each chunk, however many of its frames are asked for."""
        row, size = self._row(video_id), self.attributes.chunk_frames
        outside = [frame for frame in frames if not 0 <= frame < self.grid.frames]
        if outside:
            raise StoreError(f"{video_id}: no frame {outside[0]}, the last is {self.grid.frames - 1}")
        frame_of: dict[int, F] = {}
        for number in dict.fromkeys(frame // size for frame in frames):
            inside = [frame for frame in frames if frame // size == number]
            chunk = self._chunk(FRAMES, row, number)
            with self._damage(FRAMES, row):
                frame_of |= zip(inside, read(chunk, [frame % size for frame in inside]), strict=True)
        return [frame_of[frame] for frame in frames]

    def _chunk(self, name: str, row: int, number: int) -> bytes:
        """Reads the bytes of one chunk.

        Raises:
            StoreError: the chunk is missing, or its shard is damaged.
        """
        chunk = self.find_chunk(name, row, number)
        if chunk is None and self._was_packed(row):
            chunk = self.find_chunk(name, row, number)
        if chunk is None:
            where = f"{self.location.url}: {self.video_ids[row]}"
            file = chunk_name(self.attributes, name, row, number, self.packing_of(row))
            raise StoreError(f"{where}: no {name}: {file} is missing", hint=REPAIR)
        return chunk

    def find_chunk(self, name: str, row: int, number: int) -> bytes | None:
        """Reads the bytes of one chunk of a video; None where there is none.

        Raises:
            StoreError: its shard is damaged.
        """
        packing = self.packing_of(row)
        with self._damage(name, row):
            return read_chunk(self.location, self.attributes, name, row, number, packing)

    def packing_of(self, row: int) -> Packing | None:
        """Returns the form of the shards if the video lies in one.

        Raises:
            StoreError: nothing says what form they have.
        """
        if row not in self._packed_rows:
            return None
        if self.packing is None:
            raise StoreError(f"{self.location.url}/{PACKED}/zarr.json is missing", hint=PACK_AGAIN)
        return self.packing

    def _was_packed(self, row: int) -> bool:
        """Reads the manifest again; returns whether `avel pack` has moved the video since it was read."""
        before = row in self._packed_rows
        for name in CHANGED_BY_PACK:
            self.__dict__.pop(name, None)
        return self._row(self.video_ids[row]) == row and (row in self._packed_rows) != before

    @cached_property
    def _packed_rows(self) -> frozenset[int]:
        """Returns the rows of the videos that lie in shards."""
        return frozenset(self.entries.packed_rows.tolist())

    @cached_property
    def packing(self) -> Packing | None:
        """Returns the form of the shards in which `avel pack` put clips; None where it put none."""
        return read_packing(self.location)

    def read_part(self, name: str, row: int, part: slice) -> NDArray[Any]:
        """Reads part of one video's row of an array by zarr; fill values where nothing is written.

        Raises:
            StoreError: the bytes are damaged.
        """
        with self._damage(name, row):
            arrays = self.arrays if self.packing_of(row) is None else self.packed_arrays
            return np.asarray(arrays[name][row, part])

    @contextmanager
    def _damage(self, name: str, row: int) -> Iterator[None]:
        """Turns the errors that damaged bytes raise in avel, zarr and decoders into StoreError."""
        try:
            yield
        except (ValueError, RuntimeError, struct.error) as error:
            where = f"{self.location.url}: {self.video_ids[row]}"
            raise StoreError(f"{where}: {name} is damaged: {error}", hint=REPAIR) from None

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """Returns array name -> the Zarr array of the clips that are not packed, open for reading."""
        return self._open_arrays(None)

    @cached_property
    def packed_arrays(self) -> dict[str, Any]:
        """Returns array name -> the Zarr array of the packed clips, open for reading; {} without any."""
        return {} if self.packing is None else self._open_arrays(self.packing)

    def _open_arrays(self, packing: Packing | None) -> dict[str, Any]:
        with without_format_warning():
            return {name: self._array(name, packing) for name in self.attributes.arrays}

    def _array(self, name: str, packing: Packing | None) -> Any:
        """Opens a Zarr array, and compares its form with the one that the store's settings ask for.

        Raises:
            StoreError: it is missing or damaged, or of another form.
        """
        import zarr
        from zarr.errors import ArrayNotFoundError
        from zarr.storage import MemoryStore

        path = name if packing is None else f"{PACKED}/{name}"
        where = f"{self.location.url}/{path}/zarr.json"
        hint = START_AGAIN if packing is None else SHARDS_AGAIN
        try:
            array = zarr.open_array(self.location.zarr(), path=path, mode="r")
        except ArrayNotFoundError:
            raise StoreError(f"{where} is missing", hint=hint) from None
        except Exception as error:  # whatever zarr makes of JSON that is not its own
            raise StoreError(f"{where} is damaged: {first_line(error)}", hint=hint) from None
        expected = zarr.create_array(MemoryStore(), **array_spec(self.attributes, name, packing))
        form: dict[str, Any] = dict(array.metadata.to_dict())
        wanted: dict[str, Any] = dict(expected.metadata.to_dict())
        # The first axis is left out: rows of new videos may be added later
        form["shape"], wanted["shape"] = form["shape"][1:], wanted["shape"][1:]
        for key in wanted:
            if repr(form.get(key)) != repr(wanted[key]):
                raise StoreError(
                    f"{where}: {key} is {form.get(key)}, the store's settings ask for {wanted[key]}",
                    hint=hint,
                )
        return array

    @cached_property
    def _rows(self) -> dict[str, int]:
        """Returns id of each staged video -> its row."""
        return self.staged_entries.by_id("row")

    def _row(self, video_id: str) -> int:
        row = self._rows.get(video_id)
        if row is None:
            if video_id not in self.entries:
                raise UnknownNameError("video", video_id, self.entries, where=self.location.url)
            entry = self.entries[video_id]
            why = f"{entry.state} ({entry.reason or entry.cause})"
            raise StoreError(f"{self.location.url}: {video_id} is {why}", hint=STAGE_REST)
        if self.video_ids[row : row + 1] != (video_id,):
            raise StoreError(
                f"{self.location.url}: row {row} is {video_id} in the manifest, but not in {ROWS}",
                hint=REPAIR,
            )
        return row
