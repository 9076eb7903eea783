"""Reads and writes a clip store's files in a local folder, or below a URL of an object store."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from avel.errors import ConfigError, import_extra
from avel.progress import note
from avel.stores.files import as_write_error, atomic_path, disk_bytes, fsync, only_one, write_bytes
from avel.stores.lease import lease
from avel.text import first_line

if TYPE_CHECKING:
    from zarr.abc.store import Store

ZARR_PARTIAL = re.compile(r"zarr\.[0-9a-f]{32}\.partial")
"""Name of what zarr's LocalStore leaves of a zarr.json whose writer was killed."""

RETRY_VARIABLE, RETRY_SECONDS = "AVEL_RETRY_SECONDS", 180.0
MOST_RETRY_SECONDS = 600.0
"""A signed request is refused once it is 15 minutes old."""
MOST_RETRIES = 10**6
PAUSE_SECONDS = 2.0
FindPiece = Callable[[bytes, int], tuple[int, int] | None]
"""Takes the end of a file and the file's size, returns place and length of a piece of it, or None."""


class Location(Protocol):
    """A tree of named files. Names are relative paths with "/". A written file is whole or absent."""

    @property
    def url(self) -> str:
        """Returns the path or URL."""

    def read(self, name: str) -> bytes | None:
        """Reads a file's bytes; None where there is no such file."""

    def write(self, name: str, data: bytes) -> None:
        """Writes a file; it is on the disk when this returns."""

    def read_piece(self, name: str, tail_bytes: int, find: FindPiece) -> bytes | None:
        """Reads the piece of a file that `find` places, given the last `tail_bytes` bytes and the size.

        Both reads are of one version of the file. None where there is no such file or piece.
        """

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        """Writes a file of these pieces; file and folders are on the disk when this returns."""

    def names(self, folder: str) -> list[str]:
        """Lists the files below `folder`, sorted by name."""

    def top_names(self) -> set[str]:
        """Returns the names of the files and folders directly in it."""

    def delete(self, names: Iterable[str]) -> None:
        """Deletes files; files that are not there are skipped."""

    def prune(self, folders: Iterable[str]) -> None:
        """Removes those of these folders that hold no files, with the folders in them."""

    def sync(self, names: Iterable[str]) -> None:
        """Waits until files that zarr wrote are on the disk."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Returns the errors of reading and writing for which the location, not the caller, is at fault."""

    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        """Locks the location for this process; raises BusyError while another process holds it.

        Yields a check that raises BusyError once another process has taken the lock over.
        """

    def remove_partials(self, folders: Iterable[str] = ("",)) -> None:
        """Removes half-written files of killed writers below folders, by default in the whole tree.

        Call it only while nobody writes there.
        """

    def bytes(self, names: Iterable[str] = ("",)) -> int:
        """Returns the total size of files and of all files below folders; by default of the whole tree."""

    def zarr(self) -> Store:
        """Returns the location as a zarr store."""


def retry_seconds() -> float:
    """Returns for how long the user wants to try where an object store does not answer.

    Raises:
        ConfigError: the environment variable is no number of seconds.
    """
    text = os.environ.get(RETRY_VARIABLE, "") or str(RETRY_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_RETRY_SECONDS:
        raise ConfigError(
            f"{RETRY_VARIABLE}={text}: not 0 to {MOST_RETRY_SECONDS:g} seconds",
            hint=f"export {RETRY_VARIABLE}={RETRY_SECONDS:g}, for example",
        )
    return seconds


def locate(url: str | os.PathLike[str]) -> Location:
    """Returns the location that a path or URL names.

    Raises:
        ConfigError: `url` is a URL, and obstore is not installed or does not know its scheme.
    """
    if "://" in str(url):
        return RemoteLocation(str(url).rstrip("/"))
    return LocalLocation(str(Path(url).absolute()))


@dataclass(frozen=True)
class LocalLocation:
    """A local folder."""

    url: str

    @property
    def path(self) -> Path:
        """Returns the path of the folder."""
        return Path(self.url)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_piece(self, name: str, tail_bytes: int, find: FindPiece) -> bytes | None:
        try:
            with open(self.path / name, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                piece = find(os.pread(file.fileno(), tail_bytes, max(size - tail_bytes, 0)), size)
                return None if piece is None else os.pread(file.fileno(), piece[1], piece[0])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, data: bytes) -> None:
        write_bytes(self.path / name, data)

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        with as_write_error(self.path / name):
            folders = [self.path / folder for folder in reversed(Path(name).parents)]
            for above, folder in pairwise(folders):
                folder.mkdir(parents=True, exist_ok=True)
                fsync(above)
        with atomic_path(self.path / name) as beside, beside.open("wb") as file:
            file.writelines(pieces)

    def names(self, folder: str) -> list[str]:
        """Lists the files below `folder`, sorted by name, without hidden ones."""
        files = (self.path / folder).rglob("*")
        return sorted(
            str(file.relative_to(self.path))
            for file in files
            if not file.name.startswith(".") and file.is_file()
        )

    def top_names(self) -> set[str]:
        """Returns the names directly in the folder, without hidden files and zarr's partial ones."""
        if not self.path.is_dir():
            return set()
        names = os.listdir(self.path)
        return {name for name in names if not (name.startswith(".") or ZARR_PARTIAL.fullmatch(name))}

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def prune(self, folders: Iterable[str]) -> None:
        for folder in folders:
            for inner, _, _ in os.walk(self.path / folder, topdown=False):
                with suppress(OSError):  # it holds a file
                    os.rmdir(inner)

    def sync(self, names: Iterable[str]) -> None:
        """Waits until files are on the disk: zarr renames whole files, but does not wait for the disk."""
        for name in names:
            fsync(self.path / name)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return (OSError,)

    @contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        """Locks the folder. Nobody can take it over: the kernel unlocks it when this process ends."""
        with only_one(self.path, "store"):
            yield lambda: None

    def remove_partials(self, folders: Iterable[str] = ("",)) -> None:
        for folder in folders:
            for file in (self.path / folder).rglob("*.partial"):
                file.unlink(missing_ok=True)

    def bytes(self, names: Iterable[str] = ("",)) -> int:
        return sum(disk_bytes(self.path / name) for name in names)

    def zarr(self) -> Store:
        from zarr.storage import LocalStore

        return LocalStore(self.url)


@dataclass(frozen=True)
class RemoteLocation:
    """A prefix of an object store. obstore takes credentials and endpoint from the environment."""

    url: str

    @cached_property
    def _store(self) -> Any:
        return self._open()

    def _open(self, **options: Any) -> Any:
        from_url = import_extra("obstore.store", "s3").from_url
        # allow plain http only where the user's own endpoint is plain http
        endpoint = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", ""))
        if endpoint.startswith("http://"):
            options["client_options"] = {"allow_http": True}
        try:
            return from_url(self.url, **options)
        except self.errors as error:
            raise ConfigError(
                f"{self.url}: {first_line(error)}", hint="give s3://, gs:// or az://, or a folder"
            ) from None

    def _insist(self, call: Callable[[], Any]) -> Any:
        """Returns what `call` returns; while the store does not answer, calls again for `retry_seconds`.

        obstore tries for a few seconds. It could go on by itself, but nothing could interrupt it.
        """
        from obstore.exceptions import GenericError

        seconds, began, told = retry_seconds(), time.monotonic(), False
        while True:
            try:
                return call()
            except GenericError as error:
                if time.monotonic() - began >= seconds:
                    raise
                if not told:
                    note(f"{self.url} does not answer, trying for {seconds:g} s: {first_line(error)}")
                told = True
            time.sleep(PAUSE_SECONDS)

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(self._insist(lambda: self._store.get(name).bytes()))
        except FileNotFoundError:
            return None

    def read_piece(self, name: str, tail_bytes: int, find: FindPiece) -> bytes | None:
        from obstore.exceptions import PreconditionError

        while True:
            try:
                last, meta = self._insist(partial(self._get, name, {"range": {"suffix": tail_bytes}}))
                piece = find(last, meta["size"])
                if piece is None:
                    return None
                start, length = piece
                options = {"range": (start, start + length), "if_match": meta["e_tag"]}
                return self._insist(partial(self._get, name, options))[0]  # type: ignore[no-any-return]
            except FileNotFoundError:
                return None
            except PreconditionError:
                continue  # it was replaced meanwhile

    def _get(self, name: str, options: dict[str, Any]) -> tuple[bytes, Any]:
        answer = self._store.get(name, options=options)
        return bytes(answer.bytes()), answer.meta

    def write(self, name: str, data: bytes) -> None:
        """Writes an object in one request, since parts of an upload that was killed would stay, unseen."""
        self._insist(lambda: self._store.put(name, data, use_multipart=False))

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        self.write(name, b"".join(pieces))

    def names(self, folder: str) -> list[str]:
        batches = self._insist(lambda: list(self._store.list(folder)))
        return sorted(item["path"] for batch in batches for item in batch)

    def top_names(self) -> set[str]:
        listing = self._insist(self._store.list_with_delimiter)
        return {*listing["common_prefixes"], *(item["path"] for item in listing["objects"])}

    def delete(self, names: Iterable[str]) -> None:
        wanted = list(names)
        self._insist(lambda: self._store.delete(wanted))

    def prune(self, folders: Iterable[str]) -> None:
        """Does nothing, since an object store has no folders."""

    def sync(self, names: Iterable[str]) -> None:
        """Does nothing, since an object is durable once it is put."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        from obstore.exceptions import BaseError

        return (OSError, BaseError)

    @contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        with lease(self._store, self.url) as check:
            yield lambda: self._insist(check)

    def remove_partials(self, folders: Iterable[str] = ("",)) -> None:
        """Does nothing, since an interrupted upload leaves no object."""

    def bytes(self, names: Iterable[str] = ("",)) -> int:
        return sum(self._insist(partial(self._bytes, name)) for name in names)

    def _bytes(self, name: str) -> int:
        if name:
            with suppress(FileNotFoundError):
                return int(self._store.head(name)["size"])
        return sum(item["size"] for batch in self._store.list(name or None) for item in batch)

    def zarr(self) -> Store:
        from zarr.storage import ObjectStore

        seconds = timedelta(seconds=retry_seconds())
        patient = {"retry_config": {"max_retries": MOST_RETRIES, "retry_timeout": seconds}} if seconds else {}
        return ObjectStore(self._open(**patient))
