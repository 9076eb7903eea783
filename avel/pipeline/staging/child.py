"""Runs the process that decodes clips for `Isolated`: `python -m avel.pipeline.staging.child FD`.

It loads its libraries once for all clips, has a memory limit, and ends when its parent ends.
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

ALIVE, UNCOUNTED = "alive", "uncounted"
"""Signs of life. ALIVE: one more chunk of the clip is done. UNCOUNTED: the time so far does not count as the
clip's, since its file was hashed, or an object store did not answer."""
SIGN_SECONDS = 0.05
"""Least time between two signs of one kind, since each wakes the parent, which has no core of its own."""
IDLE_SECONDS = 300.0
"""A child ends after this time without work. Its run may have been killed on another machine."""
MIB = 1 << 20
PR_SET_PDEATHSIG = 1


def serve(connection: Connection) -> None:
    """Stages each entry that the connection brings, and sends it back as staged or failed.

    Ends after IDLE_SECONDS without an entry. An AvelError is sent in the place of an entry.
    """
    store, config, run, parent = connection.recv()
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    try:
        from avel.pipeline.staging.stage import Stager

        zarr.config.set({"async.concurrency": 1, "threading.max_workers": 1})
        stager = Stager(store, config, run, Sign(connection, ALIVE), Sign(connection, UNCOUNTED))
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
    """Sends one kind of sign when called, at most once in SIGN_SECONDS."""

    def __init__(self, connection: Connection, sign: str) -> None:
        self._connection, self._sign, self._last = connection, sign, 0.0

    def __call__(self) -> None:
        """Sends the sign if the last one is old enough."""
        if (now := time.monotonic()) - self._last >= SIGN_SECONDS:
            self._last = now
            self._connection.send(self._sign)


def _limit_memory(mib: int) -> None:
    """Makes allocations beyond a limit fail, even those that come faster than the parent checks."""
    process = psutil.Process()
    most = process.memory_info().data + mib * MIB
    _, hard = process.rlimit(psutil.RLIMIT_DATA)  # a shell or a cluster's queue may have set it
    process.rlimit(psutil.RLIMIT_DATA, (most if hard == psutil.RLIM_INFINITY else min(most, hard), hard))


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def main() -> None:
    """Serves on the socket whose file descriptor is the only argument."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError, pickle.UnpicklingError):
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
