"""New HDF5 files: whole or absent, and never begun where the disk has no room for them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from avel.stores.files import atomic_path

OVERHEAD = 1 << 20
"""Bytes that HDF5 may take for itself, at the most, beside 1 % of what it is given."""


@contextmanager
def new_file(path: Path, room: int) -> Iterator[h5py.File]:
    """Gives an HDF5 file to fill, which is at `path` when the block has ended.

    The disk sets `room` bytes aside before HDF5 writes the first one: a write that fails in its midst
    leaves HDF5 in a state that ends the process in a segmentation fault, then or later.

    Args:
        room: bytes of what will be written, or somewhat more; what is not used is given back.

    Raises:
        WriteError: the place has not that much room, or cannot be written.
    """
    with atomic_path(path) as partial, partial.open("r+b", buffering=0) as raw:
        room += room // 100 + OVERHEAD
        os.posix_fallocate(raw.fileno(), 0, room)
        os.ftruncate(
            raw.fileno(), 0
        )  # HDF5 begins a file in an empty one only, and cuts it off when it closes
        with h5py.File(raw, "w") as file:
            os.posix_fallocate(raw.fileno(), 0, room)
            yield file
