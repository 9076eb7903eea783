"""Writes a clip store: its arrays, then whole chunks of one video at a time.

Every chunk belongs to one video, so processes that stage different videos never write to the same file.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.storage import WrapperStore

from avel.errors import AvelError, StaleError, StoreError, WriteError
from avel.stores.arrow import to_parquet
from avel.stores.clip_layout import (
    ACCESS,
    ARRAYS,
    OWN_NAMES,
    ROWS,
    RUN_TOKEN,
    START_AGAIN,
    StoreAttributes,
    array_spec,
    chunk_names,
    read_attributes,
    rows_table,
    without_format_warning,
)
from avel.stores.datasets.dataset import Dataset
from avel.stores.files import writing_hint
from avel.stores.lease import boot_seconds
from avel.stores.location import LocalLocation, Location
from avel.stores.shards import PACKED
from avel.text import first_line

if TYPE_CHECKING:
    import pyarrow as pa

CHECK_SECONDS = 1.0
"""Time between two checks, on an object store, that no other run has begun."""


@contextmanager
def writing(location: Location) -> Iterator[None]:
    """Turns the location's errors within the block into WriteError."""
    try:
        yield
    except AvelError:
        raise
    except location.errors as error:
        local = isinstance(location, LocalLocation)
        hint = writing_hint(getattr(error, "errno", None)) if local else ACCESS
        raise WriteError(f"{location.url}: {first_line(error)}", hint=hint) from None


def prepare_store(
    location: Location, attributes: StoreAttributes, video_ids: Sequence[str] | pa.Array, run: str = ""
) -> None:
    """Creates the arrays, adds rows for new videos, or starts again where their form changed.

    Starting again deletes all chunks: callers first record that their clips are no longer staged. The group's
    attributes are removed before the arrays and written last, since a store without them does not count.

    Args:
        video_ids: the video of each row. Rows that the store has already must keep their videos.
        run: token of the run that begins. From here on, writers of other runs raise StaleError.
    """
    location.write(RUN_TOKEN, run.encode())
    before, store = read_attributes(location), location.zarr()
    if before is None or before.videos != attributes.videos:
        location.write(ROWS, to_parquet(rows_table(video_ids)))
    with without_format_warning():
        if before is None or _form(before) != _form(attributes):
            zarr.open_group(store, mode="a", use_consolidated=False).attrs.put({})
            location.delete([name for folder in (*ARRAYS, PACKED) for name in location.names(folder)])
            for name in attributes.arrays:
                zarr.create_array(store, name=name, overwrite=True, **array_spec(attributes, name))
        elif before.videos != attributes.videos:
            group = zarr.open_group(store, mode="r+", use_consolidated=False)
            for name in attributes.arrays:
                array: Any = group[name]
                array.resize((attributes.videos, *array.shape[1:]))
    location.sync([f"{name}/zarr.json" for name in attributes.arrays])
    if before != attributes:
        location.write("zarr.json", attributes.as_json())


def _form(attributes: StoreAttributes) -> tuple[Any, ...]:
    """Returns what decides the form of the arrays, apart from their rows."""
    return attributes.grid, attributes.frame_codec, attributes.arrays


def write_dataset(location: Location, dataset: Dataset) -> None:
    """Writes the dataset's tables into the store, where they differ from those there."""
    for name, table in dataset.tables().items():
        data = to_parquet(table)
        if location.read(f"dataset/{name}.parquet") != data:
            location.write(f"dataset/{name}.parquet", data)


class ClipWriter:
    """Writes the chunks of single videos: frames last, so that a video with frames is whole.

    Each write checks first that no other run has begun on the store, since a worker may outlive its run.

    Raises:
        StaleError: the store was made with other settings.
        StoreError: this machine sees no store there.
    """

    def __init__(self, location: Location, digest: str, run: str = "") -> None:
        attributes = read_attributes(location)
        if attributes is None:
            raise StoreError(
                f"{socket.gethostname()} does not see {location.url}",
                hint="workers need DATASET and STORE under the same absolute paths, or for an s3:// URL its "
                "keys in their environment",
            )
        if attributes.digest != digest:
            raise _stale(location)
        self.location, self.attributes, self._run = location, attributes, run
        self._checked = -CHECK_SECONDS
        self._counting = _Counting(location.zarr())
        # zarr would leave out chunks of an all-black video. It reads this setting when it opens an array.
        with zarr.config.set({"array.write_empty_chunks": True}):
            group = zarr.open_group(self._counting, mode="r+", use_consolidated=False)
            self._arrays: dict[str, Any] = {name: group[name] for name in attributes.arrays}

    def write(self, name: str, row: int, first: int, values: Sequence[bytes] | NDArray[Any]) -> None:
        """Writes whole chunks of a video's array of that name, from the patch, sample or frame `first` on.

        Args:
            values: patches (n, 96, 64), samples (n,), and of frames JPEG files or pixels (n, H, W, C).

        Raises:
            StaleError: another run has begun on the store.
            WriteError: the store does not take them.
        """
        if isinstance(values, np.ndarray):
            block: NDArray[Any] = values[None]
        else:
            block = np.empty((1, len(values)), object)
            block[0, :] = values
        self._check()
        with writing(self.location):
            self._arrays[name][row : row + 1, first : first + block.shape[1]] = block

    @property
    def written_bytes(self) -> int:
        """Returns the number of bytes of all chunks that this has written."""
        return self._counting.bytes

    def _check(self) -> None:
        """Checks that no other run has begun; once a second where that takes requests to an object store."""
        now = boot_seconds()
        if isinstance(self.location, LocalLocation) or now - self._checked > CHECK_SECONDS:
            check_run(self.location, self._run)
            self._checked = now

    def erase(self, row: int) -> None:
        """Deletes the video's chunks, frames first, so that what is left does not count as a whole video.

        Raises:
            StaleError: another run has begun on the store.
            WriteError: the store does not allow it.
        """
        self._check()
        erase(self.location, self.attributes, [row])


class _Counting(WrapperStore[Any]):
    """Counts the bytes that zarr writes."""

    bytes = 0

    async def set(self, key: str, value: Buffer) -> None:
        await super().set(key, value)
        self.bytes += len(value)


def flush(location: Location, attributes: StoreAttributes, row: int, run: str = "") -> None:
    """Waits until a video's chunks are on the disk. Only then may the manifest call the video staged.

    In an object store they are safe as soon as the requests that put them have returned.

    Raises:
        StaleError: another run has begun on the store.
        WriteError: the store does not take them.
    """
    if isinstance(location, LocalLocation):
        check_run(location, run)
        with writing(location):
            location.sync(chunk_names(attributes, row))


def end_run(location: Location) -> None:
    """Notes that a run and its writers have ended, so that the next one looks for no half-written files.

    Raises:
        WriteError: the store does not allow it.
    """
    with writing(location):
        location.delete([RUN_TOKEN])


def remove_leftovers(location: Location) -> None:
    """Removes half-written files if the last run did not end well; finding them may take minutes.

    Raises:
        StoreError, WriteError: the store cannot be read or written.
    """
    with writing(location):
        if location.read(RUN_TOKEN) is not None or read_attributes(location) is None:
            location.remove_partials()


def check_run(location: Location, run: str) -> None:
    """Checks that no other run has begun on the store.

    Raises:
        StaleError: another run has begun.
        WriteError: the store cannot be read.
    """
    if not is_run_of(location, run):
        raise _stale(location)


def is_run_of(location: Location, run: str) -> bool:
    """Returns True if no other run has begun on the store since `run` did.

    Raises:
        WriteError: the store cannot be read.
    """
    with writing(location):
        return location.read(RUN_TOKEN) == run.encode()


def _stale(location: Location) -> StaleError:
    return StaleError(
        f"{location.url}: another run has begun on it during this one",
        hint="wait until that run has ended, then give this command again",
    )


def erase(location: Location, attributes: StoreAttributes, rows: Iterable[int]) -> None:
    """Deletes the chunks of videos, frames first, and their folders; chunks in shards stay.

    Raises:
        WriteError: the store does not allow it.
    """
    rows = tuple(rows)
    with writing(location):
        location.delete([name for row in rows for name in chunk_names(attributes, row)])
        location.prune(f"{name}/c/{row}" for row in rows for name in attributes.arrays)


def check_place(location: Location) -> None:
    """Checks that the place is empty or holds a clip store, finished or not.

    Raises:
        StoreError: the place is a file, a folder with other files, or a store without its arrays.
    """
    attributes = read_attributes(location)
    if attributes is not None:
        for name in attributes.arrays:
            if location.read(f"{name}/zarr.json") is None:
                raise StoreError(f"{location.url}: no {name}/zarr.json", hint=START_AGAIN)
        return
    if isinstance(location, LocalLocation) and location.path.exists() and not location.path.is_dir():
        raise StoreError(f"{location.url}: is a file", hint="name a folder that does not exist yet")
    foreign = sorted(location.top_names() - OWN_NAMES)
    if foreign:
        raise StoreError(
            f"{location.url}: is not a clip store, since it holds {', '.join(foreign[:3])}",
            hint="name an empty or new folder",
        )
