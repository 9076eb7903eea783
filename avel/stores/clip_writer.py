"""Writing a clip store: its arrays, then whole chunks of one video at a time.

Every chunk belongs to one video, so that processes which stage different videos never write to the same file.
"""

from __future__ import annotations

import io
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import UnstableSpecificationWarning

from avel.errors import AvelError, StaleError, StoreError, WriteError
from avel.stores.clips import (
    BEGIN_ANEW,
    FRAMES,
    LOG_MEL,
    OWN_NAMES,
    RUN,
    Head,
    chunk_names,
    frames_shape,
    log_mel_shape,
    read_head,
)
from avel.stores.datasets.dataset import Dataset
from avel.stores.files import MEND
from avel.stores.location import LocalLocation, Location, first_line


@contextmanager
def writing(location: Location) -> Iterator[None]:
    """Turns what the place raises within the block into WriteError."""
    try:
        yield
    except AvelError:
        raise
    except location.errors as error:
        raise WriteError(
            f"{location.url}: {first_line(error)}",
            hint=MEND,
        ) from None


def prepare(location: Location, wanted: Head, run: str = "") -> None:
    """Makes the arrays, adds rows for new videos, or begins anew where the arrays' form has changed.

    The group's attributes go before the arrays do and come back last: without them there is no store. Callers
    must have recorded the videos whose chunks this makes void.

    Args:
        run: token of the run that begins; from here on the writers of every other run are stale.
    """
    location.write(RUN, run.encode())
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UnstableSpecificationWarning
        )  # vlen-bytes: docs/file-formats.md says how
        _prepare(location, wanted)


def _prepare(location: Location, wanted: Head) -> None:
    found = read_head(location)
    store = location.zarr()
    if found is None or not _same_form(found, wanted):
        zarr.open_group(store, mode="a", use_consolidated=False).attrs.put({})
        location.delete([name for array in (FRAMES, LOG_MEL) for name in location.names(array)])
        _create_arrays(store, wanted)
    elif found.video_ids != wanted.video_ids:
        group = zarr.open_group(store, mode="r+", use_consolidated=False)
        for name in (FRAMES, LOG_MEL):
            array: Any = group[name]
            array.resize((len(wanted.video_ids), *array.shape[1:]))
    if found != wanted:
        zarr.open_group(store, mode="r+", use_consolidated=False).update_attributes(wanted.attributes())
    location.sync([f"{FRAMES}/zarr.json", f"{LOG_MEL}/zarr.json", "zarr.json"])


def write_dataset(location: Location, dataset: Dataset) -> None:
    """The dataset's tables into the store, where they differ from what is there."""
    import pyarrow.parquet as pq

    for name, table in dataset.tables().items():
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        if location.read(f"dataset/{name}.parquet") != buffer.getvalue():
            location.write(f"dataset/{name}.parquet", buffer.getvalue())


class ClipWriter:
    """Writes the chunks of single videos; log-mel first, frames last, because the frames are the commit.

    Before each write it looks whether its run is still the store's: a worker may outlive its run.

    Raises:
        StaleError: the store has other settings than the ones this writer is for.
        StoreError: there is none to be seen from this machine.
    """

    def __init__(self, location: Location, digest: str, run: str = "") -> None:
        head = read_head(location)
        if head is None:
            raise StoreError(
                f"{socket.gethostname()} does not see {location.url}",
                hint="workers need DATASET and STORE under the same absolute paths, or for an s3:// URL its "
                "keys in their environment",
            )
        if head.digest != digest:
            raise _stale(location)
        self.location, self.head, self._run = location, head, run
        # an all-black video must exist as a chunk all the same; zarr keeps this with the open array only
        with zarr.config.set({"array.write_empty_chunks": True}):
            group = zarr.open_group(location.zarr(), mode="r+", use_consolidated=False)
            self._frames: Any = group[FRAMES]
            self._log_mel: Any = group[LOG_MEL]

    def write_log_mel(self, row: int, first_segment: int, patches: NDArray[np.float32]) -> None:
        """Patches (n, 96, 64) of whole chunks, from `first_segment` on.

        Raises:
            StaleError: another run has begun on the store.
            WriteError: the store does not take them.
        """
        self._put(self._log_mel, row, first_segment, patches[None])

    def write_frames(self, row: int, first_frame: int, frames: Sequence[bytes] | NDArray[np.uint8]) -> None:
        """JPEG files, or raw frames (n, H, W, 3), of whole chunks, from `first_frame` on.

        Raises:
            StaleError: another run has begun on the store.
            WriteError: the store does not take them.
        """
        if isinstance(frames, np.ndarray):
            block: NDArray[Any] = frames[None]
        else:
            block = np.empty((1, len(frames)), object)
            block[0, :] = frames
        self._put(self._frames, row, first_frame, block)

    def erase(self, row: int) -> None:
        """Removes the video's chunks, frames first, so that what remains is never taken for whole.

        Raises:
            StaleError: another run has begun on the store.
            WriteError: the store does not allow it.
        """
        check_run(self.location, self._run)
        erase(self.location, self.head, row)

    def _put(self, array: Any, row: int, first: int, block: NDArray[Any]) -> None:
        check_run(self.location, self._run)
        with writing(self.location):
            array[row : row + 1, first : first + block.shape[1]] = block


def flush(location: Location, head: Head, row: int, run: str = "") -> None:
    """Makes a video's chunks durable; the manifest may call it staged after this.

    Raises:
        StaleError: another run has begun on the store.
        WriteError: the store does not take them.
    """
    check_run(location, run)
    with writing(location):
        location.sync(chunk_names(head, row))


def check_run(location: Location, run: str) -> None:
    """Refuses to go on where another run has begun on the store.

    Raises:
        StaleError: one has.
        WriteError: the store cannot be read.
    """
    if not is_run_of(location, run):
        raise _stale(location)


def is_run_of(location: Location, run: str) -> bool:
    """Whether no other run has begun on the store since `run` did.

    Raises:
        WriteError: the store cannot be read.
    """
    with writing(location):
        return location.read(RUN) == run.encode()


def _stale(location: Location) -> StaleError:
    return StaleError(
        f"{location.url}: another run has begun on it while this one was at work",
        hint="give this command again when that one has ended",
    )


def erase(location: Location, head: Head, row: int) -> None:
    """Removes one video's chunks, frames first.

    Raises:
        WriteError: the store does not allow it.
    """
    with writing(location):
        location.delete(chunk_names(head, row))


def _create_arrays(store: Any, head: Head) -> None:
    videos, grid = len(head.video_ids), head.grid
    frames: dict[str, Any] = {
        "shape": (videos, *frames_shape(head)),
        "chunks": (1, head.chunk_frames),
        "dtype": "variable_length_bytes",
        "compressors": [Crc32cCodec()],
    }
    if head.frame_codec == "raw":
        frames["chunks"] += (grid.size, grid.size, 3)
        frames |= {"dtype": "uint8", "compressors": [ZstdCodec(level=3), Crc32cCodec()]}
    zarr.create_array(store, name=FRAMES, overwrite=True, **frames)
    zarr.create_array(
        store,
        name=LOG_MEL,
        shape=(videos, *log_mel_shape(grid)),
        chunks=(1, head.chunk_segments, *log_mel_shape(grid)[1:]),
        dtype="float32",
        fill_value=np.nan,
        compressors=[Crc32cCodec()],
        overwrite=True,
    )


def _same_form(one: Head, other: Head) -> bool:
    return one.grid == other.grid and one.frame_codec == other.frame_codec


def check_place(location: Location) -> None:
    """Refuses a place that holds something else; a store whose making was cut short holds our names only.

    Raises:
        StoreError: there is a file, a folder with other files, or a store without its arrays.
    """
    if read_head(location) is not None:
        for name in (f"{FRAMES}/zarr.json", f"{LOG_MEL}/zarr.json"):
            if location.read(name) is None:
                raise StoreError(f"{location.url}: no {name}", hint=BEGIN_ANEW)
        return
    top = location.top()
    if isinstance(location, LocalLocation) and location.path.exists() and not location.path.is_dir():
        raise StoreError(f"{location.url}: is a file", hint="name a folder that does not exist yet")
    if top - OWN_NAMES:
        strange = ", ".join(sorted(top - OWN_NAMES)[:3])
        raise StoreError(
            f"{location.url}: holds {strange}: no clip store", hint="name an empty or new folder"
        )
