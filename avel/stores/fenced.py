"""Runs the process that reads HDF5 files first, for `Fence`: `python -m avel.stores.fenced`.

It reads paths from stdin, each ended by a NUL, and answers each with a dot.
"""

import os
import resource
import select
import signal
from contextlib import suppress
from pathlib import Path

import h5py

from avel.stores.hdf5 import array_of, attribute, open_hdf5_here

IDLE_SECONDS = 60.0
CPU_SECONDS = 60.0
"""CPU time for one file, since HDF5 may loop forever; a second more for every BYTES_PER_SECOND of it."""
BYTES_PER_SECOND = 1 << 20


def read(path: Path) -> None:
    """Reads all of a file that avel may read: names, attributes, arrays; one row of those without chunks.

    It also asks for "none", as avel asks for names that a file does not have.
    """
    with open_hdf5_here(path, "") as file:
        for name in (*file.attrs, "none"):
            with suppress(Exception):
                attribute(file, name)
        for name in (*names_in(file), "none"):
            with suppress(Exception):  # the process that asked meets the same error
                array = array_of(file, name, "")
                for part in array.iter_chunks() if array.chunks else [slice(1) if array.ndim else ()]:
                    array[part]


def names_in(file: h5py.File) -> list[str]:
    """Returns the names of all that lies in a file or in a group of it."""
    names = list(file)
    for name in file:
        with suppress(Exception):
            if isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Group):
                names += [f"{name}/{inner}" for inner in file[name]]
    return names


def main() -> None:
    """Reads a file for each path that comes; ends at the end of stdin, or when none comes for a while."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked = b""
    while select.select([0], [], [], IDLE_SECONDS)[0] and (came := os.read(0, 1 << 16)):
        asked += came
        if not asked.endswith(b"\0"):
            continue
        path, asked = Path(os.fsdecode(asked[:-1])), b""
        with suppress(Exception):
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS + path.stat().st_size / BYTES_PER_SECOND)
            read(path)
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(1, b".")


if __name__ == "__main__":
    main()
