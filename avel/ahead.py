"""Reads ahead in threads, so that reading and computing go on at the same time; limits the threads."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MOST_THREADS = 16
"""More threads read hardly faster: the disk and the interpreter's lock become the limit."""
Item = TypeVar("Item")
Result = TypeVar("Result")

thread_limit: int | None = None
"""Most threads of this process, set by `limit_threads`; None for one per core."""


def limit_threads(count: int | None) -> None:
    """Limits the threads with which this process computes and reads; None allows one per core.

    torch reads its limit from the environment when it is imported. If it is imported already, this sets it.
    """
    global thread_limit
    thread_limit = count
    if count is not None:
        os.environ["OMP_NUM_THREADS"] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(usable_cores())


def usable_cores() -> int:
    """Returns the cores that this process may use, which a job, a container or `limit_threads` may limit.

    A container may limit them by a quota of CPU time, which neither `os` nor torch knows.
    """
    from dask.system import cpu_count

    cores: int = cpu_count()
    return cores if thread_limit is None else min(cores, thread_limit)


def reading_threads(asked: int | None) -> int:
    """Returns how many threads read: the number asked for, else one per core, 16 at most."""
    return asked or min(MOST_THREADS, usable_cores())


def begin_ahead(begin: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Yields `begin(item)` of every item in order; `begin` has then been called for `ahead` more."""
    begun: deque[Result] = deque()
    for item in items:
        begun.append(begin(item))
        if len(begun) > ahead:
            yield begun.popleft()
    while begun:
        yield begun.popleft()


def read_ahead(
    read: Callable[[Item], Result], items: Iterable[Item], *, threads: int = 1, ahead: int = 1
) -> Iterator[Result]:
    """Yields `read(item)` of every item in order.

    `ahead` + `threads` - 1 items are read, or being read, before they are asked for.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="read-ahead") as pool:
        try:
            begun = begin_ahead(lambda item: pool.submit(read, item), items, ahead + threads - 1)
            yield from map(Future.result, begun)  # unlike a loop variable, keeps no result alive
        finally:
            pool.shutdown(cancel_futures=True)
