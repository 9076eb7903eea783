"""Says how a clip store is laid out: its attributes, the video of each row, shapes and files of arrays."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from avel.errors import StoreError
from avel.grid import CHUNK_SEGMENTS, MEL_BANDS, MEL_FRAMES, Grid
from avel.stores.arrow import read_own_parquet
from avel.stores.documents import parse, read_document, zarr_group
from avel.stores.location import Location
from avel.stores.shards import PACKED, Packing
from avel.text import as_plain, first_line

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT, VERSION = "avel-clips", 6
FRAMES, LOG_MEL, WAVEFORM = "frames", "log_mel", "waveform"
ARRAYS = (FRAMES, LOG_MEL, WAVEFORM)
"""Arrays that a store may hold; frames first, which are written last and deleted first."""
RUN_TOKEN = ".run"
"""Name of the file with the token of the current run; it stays after a run that did not end well."""
ROWS = "rows.parquet"
"""Name of the file with the video of each row of the arrays; a killed run may leave more rows in it."""
OWN_NAMES = frozenset(
    {*ARRAYS, PACKED, "manifest", "dataset", "zarr.json", ROWS, "config.toml", ".lock", RUN_TOKEN}
)
"""Names of all files and folders directly in a store."""
MOST_VIDEOS = 2**31 - 1
"""Most rows that a store may say it has, far more than any dataset."""
START_AGAIN = "remove its zarr.json, and avel extract stages all clips again"
ACCESS = "check its access rights; for an object store also AWS_ENDPOINT_URL, AWS_REGION and the keys"


@dataclass(frozen=True)
class StoreAttributes:
    """Attributes of a store: its grid, the settings it was staged with, how many videos have rows in it.

    `waveform` says whether the store holds waveforms.
    """

    grid: Grid
    settings: dict[str, Any]
    digest: str
    frame_codec: Literal["jpeg", "raw"]
    videos: int
    waveform: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.videos <= MOST_VIDEOS:
            raise StoreError(f"videos is {self.videos}, not 0 to {MOST_VIDEOS}")

    @property
    def arrays(self) -> tuple[str, ...]:
        """Returns the names of the store's arrays, in the order of `ARRAYS`."""
        return ARRAYS if self.waveform else (FRAMES, LOG_MEL)

    @property
    def chunk_segments(self) -> int:
        """Returns the number of segments in one chunk, the same in all arrays."""
        return min(self.grid.segments, CHUNK_SEGMENTS)

    @property
    def chunk_frames(self) -> int:
        """Returns the number of frames in one chunk."""
        return self.chunk_segments * self.grid.frames_per_segment

    @property
    def chunks(self) -> int:
        """Returns the number of chunks of one video in each array."""
        return -(-self.grid.segments // self.chunk_segments)

    def as_json(self) -> bytes:
        """Returns the zarr.json of a Zarr group with these attributes."""
        return zarr_group({"format": FORMAT, "version": VERSION, **as_plain(self)})


def read_attributes(location: Location) -> StoreAttributes | None:
    """Reads the attributes of a store; None where there is no store.

    Raises:
        StoreError: the store has another format or version, or cannot be read.
    """
    try:
        data = location.read("zarr.json")
    except location.errors as error:
        raise StoreError(f"{location.url}: cannot be read: {first_line(error)}", hint=ACCESS) from None
    if data is None:
        return None
    where = f"{location.url}/zarr.json"
    plain = parse(data, where, START_AGAIN).get("attributes")
    if not plain:  # a run was interrupted before it wrote them
        return None
    if not isinstance(plain, dict):
        raise StoreError(f"{where}: its attributes are not a JSON object", hint=START_AGAIN)
    form = plain.get("format"), plain.get("version")
    if form != (FORMAT, VERSION):
        raise StoreError(
            f"{where}: format {form[0]!r} version {form[1]!r}, this avel reads {FORMAT!r} {VERSION}",
            hint="stage the clips into a new store with avel extract",
        )
    return read_document(StoreAttributes, data, where, START_AGAIN, key="attributes")


def rows_table(video_ids: Sequence[str] | pa.Array) -> pa.Table:
    """Returns the table with the video of each row of the arrays."""
    import pyarrow as pa

    schema = pa.schema([pa.field("video_id", pa.string(), nullable=False)])
    return pa.table([video_ids], schema)


def read_video_ids(location: Location, attributes: StoreAttributes) -> pa.Array:
    """Reads the ids of the videos in a store, in the order of its arrays.

    Raises:
        StoreError: the file is missing or damaged, names too few videos, or one twice.
    """
    where, data = f"{location.url}/{ROWS}", location.read(ROWS)
    if data is None:
        raise StoreError(f"{where} is missing", hint=START_AGAIN)
    video_ids = read_own_parquet(data, rows_table(()).schema, where, START_AGAIN)["video_id"]
    if len(video_ids) < attributes.videos:
        raise StoreError(
            f"{where}: {len(video_ids)} videos, zarr.json says {attributes.videos}", hint=START_AGAIN
        )
    video_ids = video_ids.combine_chunks().slice(0, attributes.videos)
    if len(video_ids.unique()) < len(video_ids):
        raise StoreError(f"{where}: names a video twice", hint=START_AGAIN)
    return video_ids


def row_shape(attributes: StoreAttributes, name: str) -> tuple[int, ...]:
    """Returns the shape of one video's row of an array.

    Patches (T, 96, 64), samples (T * samples_per_segment,), JPEG files (T * N,) or frames (T * N, H, W, C).
    """
    grid = attributes.grid
    if name == LOG_MEL:
        return grid.segments, MEL_FRAMES, MEL_BANDS
    if name == WAVEFORM:
        return (grid.samples,)
    return (grid.frames, grid.size, grid.size, 3) if attributes.frame_codec == "raw" else (grid.frames,)


def chunk_shape(attributes: StoreAttributes, name: str) -> tuple[int, ...]:
    """Returns the shape of a chunk of an array, all of one video: as `row_shape`, of fewer segments."""
    length, *inner = row_shape(attributes, name)
    return attributes.chunk_segments * (length // attributes.grid.segments), *inner


def array_spec(attributes: StoreAttributes, name: str, packing: Packing | None = None) -> dict[str, Any]:
    """Returns the arguments by which zarr creates an array of a store; with `packing`, of packed clips."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    spec = {
        "shape": (attributes.videos, *row_shape(attributes, name)),
        "chunks": (1, *chunk_shape(attributes, name)),
        "compressors": [Crc32cCodec()],
        "shards": None if packing is None else (packing.clips, *chunk_shape(attributes, name)),
    }
    if name == LOG_MEL:
        return spec | {"dtype": "float32", "fill_value": np.nan}
    if name == WAVEFORM:  # zstd would save a sixth, but takes longer to decode than the sixth to read
        return spec | {"dtype": "int16"}
    if attributes.frame_codec == "raw":
        return spec | {"dtype": "uint8", "compressors": [ZstdCodec(level=3), Crc32cCodec()]}
    return spec | {"dtype": "variable_length_bytes"}


@contextmanager
def without_format_warning() -> Iterator[None]:
    """Silences zarr's warning that it has not fixed how it stores variable-length bytes.

    docs/file-formats.md describes how they are stored.
    """
    from zarr.errors import UnstableSpecificationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnstableSpecificationWarning)
        yield


def chunk_names(attributes: StoreAttributes, row: int) -> list[str]:
    """Lists the files with the chunks of one video, frames first."""
    return [
        chunk_name(attributes, name, row, number)
        for name in attributes.arrays
        for number in range(attributes.chunks)
    ]


def chunk_name(
    attributes: StoreAttributes, name: str, row: int, number: int, packing: Packing | None = None
) -> str:
    """Returns the name of the file with one chunk of one video; with `packing`, of the shard with it."""
    inner = "/0" * (len(row_shape(attributes, name)) - 1)
    if packing is not None:
        return f"{PACKED}/{name}/c/{row // packing.clips}/{number}{inner}"
    return f"{name}/c/{row}/{number}{inner}"


def read_chunk(
    location: Location, attributes: StoreAttributes, name: str, row: int, number: int, packing: Packing | None
) -> bytes | None:
    """Reads the bytes of one chunk of one video, with `packing` out of its shard; None where there is none.

    Raises:
        ValueError: the shard's index is damaged.
    """
    file = chunk_name(attributes, name, row, number, packing)
    if packing is None:
        return location.read(file)
    return location.read_piece(
        file, packing.index_bytes, lambda index, size: packing.place(index, size, row % packing.clips)
    )
