"""Work that is begun before it is asked for, so that reading and computing go on at the same time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def begin_ahead(begin: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Yields `begin` of every item in order, having called it for `ahead` more items already."""
    begun: deque[Result] = deque()
    for item in items:
        begun.append(begin(item))
        if len(begun) > ahead:
            yield begun.popleft()
    yield from begun


def read_ahead(
    read: Callable[[Item], Result], items: Iterable[Item], *, threads: int = 1, ahead: int = 1
) -> Iterator[Result]:
    """Yields `read` of every item in order; threads read `ahead` items and more before they are asked for."""
    with ThreadPoolExecutor(threads, thread_name_prefix="read-ahead") as pool:
        try:
            for future in begin_ahead(lambda item: pool.submit(read, item), items, ahead + threads - 1):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
