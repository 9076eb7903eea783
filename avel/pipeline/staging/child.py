"""The process that decodes, started by `Isolated`: `python -m avel.pipeline.staging.child FD`.

It keeps its libraries loaded from clip to clip, holds no more memory than it may, and dies with its parent.
"""

import ctypes
import os
import pickle
import signal
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection

import psutil
import zarr

from avel.errors import AvelError

ALIVE, HASHED = "alive", "hashed"
"""Signs that a child gives: one more step of the clip is done; one more MiB of its file is hashed."""
SIGN_SECONDS = 0.05
"""Between two signs of one kind; each wakes the parent, which has no core of its own."""
IDLE_SECONDS = 300.0
"""A child without work for so long ends; its run may have been killed on another machine."""
MIB = 1 << 20
PR_SET_PDEATHSIG = 1


def serve(connection: Connection) -> None:
    """Stages what comes, until nothing comes."""
    store, config, run, parent = connection.recv()
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        from avel.pipeline.staging.stage import Stager

        zarr.config.set({"async.concurrency": 1, "threading.max_workers": 1})
        stager = Stager(store, config, run, Sign(connection, ALIVE), Sign(connection, HASHED))
    except AvelError as error:
        connection.send(error)
        return
    _limit_memory(config.memory_limit)
    connection.send("ready")
    while connection.poll(IDLE_SECONDS):
        entry = connection.recv()
        try:
            connection.send(stager.stage(entry))
        except AvelError as error:
            connection.send(error)


class Sign:
    """Gives one sign over and over, but no sooner than the parent would look by itself."""

    def __init__(self, connection: Connection, sign: str) -> None:
        self._connection, self._sign, self._given = connection, sign, 0.0

    def __call__(self) -> None:
        """Gives the sign if it is due."""
        if (now := time.monotonic()) - self._given >= SIGN_SECONDS:
            self._given = now
            self._connection.send(self._sign)


def _limit_memory(mib: int) -> None:
    """Allocations beyond the limit fail, also where they come faster than the parent looks."""
    process = psutil.Process()
    held = process.memory_info().data
    process.rlimit(psutil.RLIMIT_DATA, (held + mib * MIB, psutil.RLIM_INFINITY))


def _die_with(parent: int) -> None:
    """The kernel kills this process when its parent goes, however it goes."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def main() -> None:
    """Serves on the socket whose file descriptor is the only argument."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError, pickle.UnpicklingError):
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
