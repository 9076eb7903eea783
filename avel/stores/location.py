"""Where a clip store lives: a local folder, or a prefix of an object store (s3://, gs://, az://)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from avel.errors import ConfigError
from avel.stores.files import atomic_path, only_one
from avel.stores.lease import lease

if TYPE_CHECKING:
    from zarr.abc.store import Store

ZARR_PARTIAL = re.compile(r"zarr\.[0-9a-f]{32}\.partial")
"""What zarr's LocalStore leaves of a zarr.json whose writer was killed; `sweep` removes it."""


class Location(Protocol):
    """A tree of named files. Names are relative, with "/"; a write is whole or absent."""

    @property
    def url(self) -> str:
        """The path or URL."""

    def read(self, name: str) -> bytes | None:
        """The bytes of `name`, None where there is no such file."""

    def write(self, name: str, data: bytes) -> None:
        """`data` as `name`, durable when this returns."""

    def names(self, folder: str) -> list[str]:
        """Sorted names of the files below `folder`."""

    def top(self) -> set[str]:
        """Names of the files and folders that lie directly in it."""

    def delete(self, names: Iterable[str]) -> None:
        """Removes files; those that are not there are no error."""

    def sync(self, names: Iterable[str]) -> None:
        """Makes files that zarr wrote durable."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What reading and writing raise when the place, not the caller, is at fault."""

    def alone(self) -> AbstractContextManager[Callable[[], None]]:
        """Holds the place for this process; raises BusyError while another one does.

        What it yields raises BusyError once another process has taken the place over.
        """

    def sweep(self) -> None:
        """Removes what killed writers left half-written; call it only while nobody writes."""

    def bytes(self) -> int:
        """Bytes of all files together."""

    def zarr(self) -> Store:
        """The same place as a zarr store."""


def first_line(error: Exception) -> str:
    """What an error says, without the pages that obstore adds."""
    return str(error).partition("\n")[0] or type(error).__name__


def locate(url: str | os.PathLike[str]) -> Location:
    """The location a path or URL names.

    Raises:
        ConfigError: a URL whose library is not installed.
    """
    if "://" in str(url):
        return RemoteLocation(str(url).rstrip("/"))
    return LocalLocation(str(Path(url).absolute()))


@dataclass(frozen=True)
class LocalLocation:
    """A folder."""

    url: str

    @property
    def path(self) -> Path:
        """The folder's path."""
        return Path(self.url)

    def read(self, name: str) -> bytes | None:
        """The bytes of `name`, None where there is no such file."""
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, data: bytes) -> None:
        """`data` as `name`: written beside, fsynced, renamed."""
        with atomic_path(self.path / name) as partial:
            partial.write_bytes(data)

    def names(self, folder: str) -> list[str]:
        """Sorted names of the files below `folder`, without hidden ones."""
        files = (self.path / folder).rglob("*")
        return sorted(
            str(file.relative_to(self.path))
            for file in files
            if not file.name.startswith(".") and file.is_file()
        )

    def top(self) -> set[str]:
        """Names of the files and folders that lie directly in it, but hidden ones and zarr's partial ones."""
        if not self.path.is_dir():
            return set()
        names = os.listdir(self.path)
        return {name for name in names if not (name.startswith(".") or ZARR_PARTIAL.fullmatch(name))}

    def delete(self, names: Iterable[str]) -> None:
        """Removes files; those that are not there are no error."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def sync(self, names: Iterable[str]) -> None:
        """fsync of files that zarr wrote: it renames whole files but does not wait for the disk."""
        for name in names:
            handle = os.open(self.path / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the file system raises."""
        return (OSError,)

    @contextmanager
    def alone(self) -> Iterator[Callable[[], None]]:
        """Holds the folder; the kernel lets go when this process ends, and not before."""
        with only_one(self.path, "store"):
            yield lambda: None

    def sweep(self) -> None:
        """Removes the partial files of killed writers, zarr's and ours."""
        for file in self.path.rglob("*.partial"):
            file.unlink(missing_ok=True)

    def bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def zarr(self) -> Store:
        """The folder as a zarr store."""
        from zarr.storage import LocalStore

        return LocalStore(self.url)


@dataclass(frozen=True)
class RemoteLocation:
    """A prefix of an object store, through obstore; credentials and endpoint come from the environment."""

    url: str

    @cached_property
    def _store(self) -> Any:
        try:
            from obstore.store import from_url
        except ImportError:
            raise ConfigError(
                f"{self.url}: obstore is not installed", hint="pip install 'avel[s3]'"
            ) from None
        # plain http only where the user's own endpoint asks for it
        endpoint = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", ""))
        options = {"client_options": {"allow_http": True}} if endpoint.startswith("http://") else {}
        try:
            return from_url(self.url, **options)
        except self.errors as error:
            raise ConfigError(
                f"{self.url}: {first_line(error)}", hint="give s3://, gs:// or az://, or a folder"
            ) from None

    def read(self, name: str) -> bytes | None:
        """The bytes of `name`, None where there is no such object."""
        try:
            return bytes(self._store.get(name).bytes())
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """`data` as `name`; an object is whole or absent by the protocol."""
        self._store.put(name, data)

    def names(self, folder: str) -> list[str]:
        """Sorted names of the objects below `folder`."""
        return sorted(item["path"] for batch in self._store.list(folder) for item in batch)

    def top(self) -> set[str]:
        """Names of the objects and prefixes that lie directly in it."""
        found = self._store.list_with_delimiter()
        return {*found["common_prefixes"], *(item["path"] for item in found["objects"])}

    def delete(self, names: Iterable[str]) -> None:
        """Removes objects; those that are not there are no error."""
        self._store.delete(list(names))

    def sync(self, names: Iterable[str]) -> None:
        """Nothing to do: an object that was put is durable."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What obstore raises, after its own retries."""
        from obstore.exceptions import BaseError

        return (OSError, BaseError)

    def alone(self) -> AbstractContextManager[Callable[[], None]]:
        """Holds the prefix by a lock object."""
        return lease(self._store, self.url)

    def sweep(self) -> None:
        """Nothing to do: an upload that is cut short leaves no object."""

    def bytes(self) -> int:
        """Bytes of all objects together."""
        return sum(item["size"] for batch in self._store.list() for item in batch)

    def zarr(self) -> Store:
        """The prefix as a zarr store."""
        from zarr.storage import ObjectStore

        return ObjectStore(self._store)
