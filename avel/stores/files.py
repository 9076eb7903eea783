"""Writes files that are whole or absent (write beside, fsync, rename); hashes and measures files."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

from avel.errors import AvelError, BusyError, ConfigError, StoreError, WriteError

LOCK = ".lock"
"""Name of the file by which a process locks a folder."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Error codes that only writing gives: no space or inodes, a quota, a file size limit, a read-only place."""
MAKE_ROOM = "free some space or repair the disk, then give the same command again"
WRONG_PLACE = (
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
    *(errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
)
"""Error codes that the path gives, not the disk."""
ANOTHER_PLACE = "choose another place, or check its access rights"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`. On success it is fsynced and renamed to `path`, else removed.

    Raises:
        WriteError: the place does not take it: a full disk, say.
    """
    with as_write_error(path):
        partial = _partial_beside(path)
        partial.touch()
    try:
        with as_write_error(path, *NO_ROOM):
            yield partial
        with as_write_error(path):
            fsync(partial)
            os.replace(partial, path)
            fsync(path.parent)
    finally:
        with suppress(OSError):  # must not hide the first error
            partial.unlink(missing_ok=True)


@contextmanager
def as_write_error(path: Path, *codes: int) -> Iterator[None]:
    """Turns the system's errors in a block that writes `path` into WriteError.

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
        raise WriteError(f"{path}: {os.strerror(code)}", hint=writing_hint(code)) from error


def writing_hint(code: int | None) -> str:
    """Returns the next step after an error of writing, by its errno."""
    return ANOTHER_PLACE if code in WRONG_PLACE else MAKE_ROOM


def _errno(error: Exception) -> int | None:
    """Returns the errno of an error, also from the text of safetensors' errors."""
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path`, in which to build what goes to `path`. Removes it at the end."""
    with as_write_error(path):
        partial = _partial_beside(path)
        partial.mkdir()
    try:
        with as_write_error(path, *NO_ROOM):
            yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial_beside(path: Path) -> Path:
    """Returns a path that names this process; removes what killed processes left beside `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_partials(path)
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")


def _remove_partials(path: Path) -> None:
    """Removes what killed processes of this machine left of `path`; those of other machines may still run."""
    pattern = re.compile(re.escape(f".{path.name}.{socket.gethostname()}.") + r"(\d+)\.partial")
    for name in os.listdir(path.parent):
        if (match := pattern.fullmatch(name)) and not process_runs(int(match[1])):
            left = path.with_name(name)
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def process_runs(pid: int) -> bool:
    """Returns True if this machine or container runs a process of that id, of any user, and not a zombie."""
    import psutil  # here, since it takes 40 ms and many commands never ask

    with suppress(psutil.Error):  # it may be hidden from us
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return False
    return bool(psutil.pid_exists(pid))


def check_can_write(path: Path, *, folder: bool = False) -> None:
    """Checks, before long work, that a file, or a folder, can be made at `path`; leaves nothing there.

    Raises:
        WriteError: it cannot.
    """
    try:
        if path.exists() and path.is_dir() != folder:
            raise OSError(errno.ENOTDIR if folder else errno.EISDIR, "")
        inside = path / "probe" if folder else path
        while not inside.parent.exists():
            inside = inside.parent
        probe = inside.with_name(f".{inside.name}.{socket.gethostname()}.{os.getpid()}.partial")
        probe.touch()
        probe.unlink()
    except OSError as error:
        what = os.strerror(error.errno or 0)
        raise WriteError(f"{path}: {what}", hint=writing_hint(error.errno)) from None


def check_can_replace(path: Path, overwrite: bool, otherwise: str = "") -> None:
    """Refuses a file that is there, unless it may be replaced; `otherwise` ends the hint.

    Raises:
        StoreError: it is there, and `overwrite` is not given.
    """
    if path.exists() and not overwrite:
        raise StoreError(f"{path}: exists", hint=f"add --overwrite, or choose another file{otherwise}")


def free_bytes(place: Path) -> int:
    """Returns the bytes that are free on the disk of a path, which need not be there yet."""
    return shutil.disk_usage(nearest_folder(place)).free


def nearest_folder(path: Path) -> Path:
    """Returns a path, or the nearest one above it that is there."""
    path = path.resolve()
    return path if path.exists() else nearest_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path`, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def path_text(path: PurePath | str) -> str:
    """Returns a path as text that tables and JSON can hold: bytes that are not UTF-8 become `\\xNN`.

    >>> path_text("caf\\udce9.mp4")
    'caf\\\\xe9.mp4'
    """
    return os.fsencode(path).decode(errors="backslashreplace")


def file_at(text: str) -> Path:
    """Returns the path whose `path_text` is `text`. If a file has literally that name, it is the one."""
    if "\\x" not in text or os.path.lexists(text):
        return Path(text)
    escaped = re.compile(rb"\\x([0-9a-f]{2})")
    return Path(os.fsdecode(escaped.sub(lambda match: bytes.fromhex(match[1].decode()), os.fsencode(text))))


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes in hex; reads them piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def only_one(folder: Path, what: str) -> Iterator[None]:
    """Locks `folder` for this process. The kernel unlocks it when the process ends, however it ends.

    Raises:
        BusyError: another process has locked it.
        WriteError: the place does not take the file by which it is locked.
    """
    from filelock import FileLock, Timeout  # here, since it takes 70 ms and many commands lock nothing

    file = folder / LOCK
    with as_write_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(file).acquire(blocking=False)
        except Timeout:
            who = ""
            with suppress(FileNotFoundError):  # that process may just have ended
                who = file.read_text().strip()
            raise BusyError(
                f"{folder}: another process ({who or 'unknown'}) is at work on this {what}",
                hint="wait for it to end, or write to another path",
            ) from None
    with lock:
        with as_write_error(folder):
            file.write_text(f"pid {os.getpid()}")
        yield


def check_own(folder: Path, marker: str, names: Iterable[str]) -> None:
    """Checks that no file of others would be overwritten: where avel wrote `names`, it wrote a `marker`, too.

    Raises:
        ConfigError: `folder` holds a file of one of these names, but no `marker`.
    """
    for name in names:
        if (folder / name).exists() and not (folder / marker).exists():
            raise ConfigError(
                f"{folder / name}: was not made by avel, and would be overwritten",
                hint="choose another folder, or move this file away",
            )


def disk_bytes(path: Path) -> int:
    """Returns the bytes of a file, or of all files below a folder; without those that go meanwhile."""
    inside = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    total = 0
    for each in inside if path.is_dir() else [path]:
        with suppress(FileNotFoundError):
            total += os.stat(each).st_size
    return total


def fsync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
