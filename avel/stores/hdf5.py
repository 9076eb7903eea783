"""Creates HDF5 files, whole or not at all, after a check that the disk has room for them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from avel.stores.files import atomic_path

OVERHEAD = 1 << 20
"""Bytes that HDF5 needs for itself at the most, in addition to 1 % of the data."""


@contextmanager
def new_file(path: Path, room: int) -> Iterator[h5py.File]:
    """Yields an HDF5 file to fill, which is at `path` when the block has ended.

    Allocates `room` bytes on the disk first: when a write fails, HDF5 ends the process in a segmentation
    fault, then or later.

    Args:
        room: at least the bytes that will be written; what is not used is freed.

    Raises:
        WriteError: the place has not that much room, or cannot be written.
    """
    with atomic_path(path) as partial, partial.open("r+b", buffering=0) as raw:
        room += room // 100 + OVERHEAD
        os.posix_fallocate(raw.fileno(), 0, room)
        os.ftruncate(raw.fileno(), 0)  # HDF5 starts only in an empty file, and truncates it when it closes
        with h5py.File(raw, "w") as file:
            os.posix_fallocate(raw.fileno(), 0, room)
            yield file
