"""Files that are whole or absent: write beside, fsync, rename; and digests of what is there."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from avel.errors import AvelError, BusyError, ConfigError, WriteError

LOCK = ".lock"
"""Name of the file by which a process holds a folder."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""No space or inodes, a quota, a limit on a file's size, a read-only place: what no read ever fails of."""
MEND = "make room or mend the place, then the same command again"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """An empty file beside `path`; on success it is fsynced and renamed to `path`, on error removed.

    Raises:
        WriteError: the place does not take it: a full disk, say.
    """
    with as_write_error(path):
        partial = _beside(path)
        partial.touch()
    try:
        with as_write_error(path, *FULL):
            yield partial
        with as_write_error(path):
            _fsync(partial)
            os.replace(partial, path)
            _fsync(path.parent)
    finally:
        with suppress(OSError):  # must not hide why it is left
            partial.unlink(missing_ok=True)


@contextmanager
def as_write_error(path: Path, *codes: int) -> Iterator[None]:
    """Turns what the operating system says against writing `path` in the block into WriteError.

    Args:
        codes: the errno values to turn, for a block that reads other files as well; all where none is given.
    """
    try:
        yield
    except AvelError:
        raise
    except Exception as error:
        code = _errno(error)
        if code is None or (codes and code not in codes):
            raise
        raise WriteError(f"{path}: {os.strerror(code)}", hint=MEND) from error


def _errno(error: Exception) -> int | None:
    """What the operating system said; safetensors hands it on as text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, removed at the end, in which to make what belongs there."""
    with as_write_error(path):
        partial = _beside(path)
        partial.mkdir()
    try:
        with as_write_error(path, *FULL):
            yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A name that tells whose it is; what killed processes left under such names is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")


def _sweep(path: Path) -> None:
    """Removes what killed processes of this machine left of `path`; of other machines' none can say."""
    pattern = re.compile(re.escape(f".{path.name}.{socket.gethostname()}.") + r"(\d+)\.partial")
    for name in os.listdir(path.parent):
        if (found := pattern.fullmatch(name)) and not process_runs(int(found[1])):
            left = path.with_name(name)
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def process_runs(pid: int) -> bool:
    """Returns whether this machine (this container) has a process of that id, anyone's."""
    import psutil  # here, since it takes 40 ms and many commands never ask

    return bool(psutil.pid_exists(pid))


def write_text(path: Path, text: str) -> None:
    """`text` into `path`, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(text)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON into `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def only_one(folder: Path, what: str) -> Iterator[None]:
    """Holds `folder` for this process; the kernel lets go when the process ends, however it ends.

    Raises:
        BusyError: another process holds it.
        WriteError: the place does not take the file by which it is held.
    """
    from filelock import FileLock, Timeout  # here, since it takes 70 ms and many commands lock nothing

    file = folder / LOCK
    with as_write_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(file).acquire(blocking=False)
        except Timeout:
            who = file.read_text().strip() or "unknown"
            raise BusyError(
                f"{folder}: another process ({who}) is at work on this {what}",
                hint="wait for it to end, or write to another path",
            ) from None
    with held:
        with as_write_error(folder):
            file.write_text(f"pid {os.getpid()}")
        yield


def check_own(folder: Path, sign: str, names: Iterable[str]) -> None:
    """Refuses a folder where files of these names lie without `sign`, which every earlier run of ours leaves.

    Raises:
        ConfigError: there is such a file, which would be overwritten.
    """
    for name in names:
        if (folder / name).exists() and not (folder / sign).exists():
            raise ConfigError(
                f"{folder / name}: was not made by avel, and would be overwritten",
                hint="choose another folder, or move this file away",
            )


def disk_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
