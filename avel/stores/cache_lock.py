"""Locks a feature cache for the call that writes it, by the folder beside it that holds finished parts."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avel.stores.files import only_one


def parts_folder(cache: Path) -> Path:
    """Returns the folder that holds a cache's finished parts, and its lock, while it is being made."""
    return cache.with_name(f".{cache.name}.parts")


def finished_parts(cache: Path) -> list[Path]:
    """Lists the finished parts that unfinished calls left beside a cache."""
    return sorted(parts_folder(cache).glob("*/[!.]*.h5"))


@contextmanager
def lock_cache(cache: Path) -> Iterator[None]:
    """Locks a cache for this process. At the end the folder of its parts is removed, if it holds none.

    Raises:
        BusyError: another process has locked it.
        WriteError: the folder cannot be made.
    """
    with only_one(parts_folder(cache), "feature cache"):
        try:
            yield
        finally:
            if not finished_parts(cache):
                shutil.rmtree(parts_folder(cache), ignore_errors=True)
