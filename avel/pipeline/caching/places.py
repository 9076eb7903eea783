"""Deals out the places of a machine among its dask workers, by which they share its devices."""

import itertools
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Lock

from filelock import FileLock, Timeout

_dealing = Lock()
_places: dict[str, tuple[int, FileLock]] = {}
"""Workers of this process -> their place on this machine, and the lock that holds it while they live."""


def place_of(worker: str) -> int:
    """Returns a worker's place among those of its machine, by which the machine's devices are dealt out.

    It is the first that no running worker holds, so one that joins late takes a free device.
    """
    with _dealing:
        places = itertools.count()
        while worker not in _places:
            place = next(places)
            lock = FileLock(Path(tempfile.gettempdir()) / f"avel-worker-{os.getuid()}-{place}.lock")
            with suppress(Timeout):
                lock.acquire(blocking=False)
                _places[worker] = place, lock
        return _places[worker][0]
