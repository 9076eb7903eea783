"""Locks a store in an object store for one writer, by a lock object that the writer keeps renewing."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from avel.errors import BusyError
from avel.progress import note
from avel.stores.files import LOCK, process_runs

RENEW_SECONDS = 10.0
LAPSE_SECONDS = 60.0
"""A lock may be taken over once it has been watched this long without being renewed: six times RENEW_SECONDS.

The watching run measures this itself, so the clocks of two machines are never compared.
"""
WATCH_SECONDS = 1.0
"""Time between two looks at another run's lock."""
UNSURE_SECONDS = 2 * RENEW_SECONDS
"""If the last renewal is older than this, the holder renews the lock before it writes."""


@contextmanager
def lease(store: Any, url: str) -> Iterator[Callable[[], None]]:
    """Holds the lock object in an obstore store. Conditional puts take it, and take it over, atomically.

    Yields a check that raises BusyError once another run has taken the lock over. Call it before each write
    that must not mix with another run's.

    Raises:
        BusyError: another run holds the lock, and runs on this machine, or renewed it while it was watched.
    """
    holding, ended = _Lease(store, url), threading.Event()
    renewing = threading.Thread(target=holding.renew_until, args=(ended,), daemon=True)
    renewing.start()
    try:
        yield holding.check
    finally:
        ended.set()
        renewing.join()
        holding.give_back()


class _Lease:
    """One run's hold on the lock object. Its token distinguishes it from every other run's."""

    def __init__(self, store: Any, url: str) -> None:
        self._store, self._url, self._token = store, url, uuid.uuid4().hex
        self._taken_by: dict[str, Any] | None = None
        self._renewing = threading.Lock()
        self._version = self._take()
        self._renewed = boot_seconds()

    def check(self) -> None:
        """Raises BusyError if another run has taken the lock over, for example while this machine slept."""
        if self._taken_by is None and boot_seconds() - self._renewed > UNSURE_SECONDS:
            self._renew()
        if self._taken_by is not None:
            raise BusyError(
                f"{self._url}: this run gave no sign for {LAPSE_SECONDS:.0f} s, and process "
                f"{self._taken_by['pid']} on {self._taken_by['host']} took the store over",
                hint="wait for that run to end, then the same command: it does what is left",
            )

    def renew_until(self, ended: threading.Event) -> None:
        """Renews the lock until `ended`, or until another run has it. Tries again later after a failure."""
        while not ended.wait(RENEW_SECONDS) and self._taken_by is None:
            with suppress(Exception):
                self._renew()

    def give_back(self) -> None:
        """Deletes the lock object, unless another run has it now."""
        # A lock that stays lapses by itself; an error here would hide the one that ended the run
        with suppress(Exception):
            if self._read_holder()[0]["token"] == self._token:
                self._store.delete([LOCK])

    def _take(self) -> Any:
        """Takes the lock, also from a run that has ended; returns the version of the lock object.

        Watches the lock of a run of which nothing else is known, until it is renewed or lapses.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with suppress(AlreadyExistsError):
            return self._put("create")
        watched, began = None, boot_seconds()
        while True:
            holder, meta = self._read_holder()
            if meta is None:  # given back meanwhile
                with suppress(AlreadyExistsError):
                    return self._put("create")
                continue
            version, runs = _version(meta), _runs(holder)
            if runs or (watched is not None and version != watched):
                raise BusyError(
                    f"{self._url}: process {holder['pid']} on {holder['host']} is at work on it",
                    hint="wait for it to end, then the same command: it does what is left",
                )
            if runs is False or boot_seconds() - began > LAPSE_SECONDS:
                try:
                    return self._put(version)
                except (PreconditionError, FileNotFoundError):
                    continue  # another run was faster
            if watched is None:
                watched = version
                note(
                    f"{self._url}: locked by process {holder['pid']} on {holder['host']}; "
                    f"watching for {LAPSE_SECONDS:.0f} s whether it is alive"
                )
            time.sleep(WATCH_SECONDS)

    def _renew(self) -> None:
        """Puts the lock object again; notes who holds it where another run has taken it over."""
        from obstore.exceptions import PreconditionError

        with self._renewing:
            began = boot_seconds()
            try:
                self._version = self._put(self._version)
            except (PreconditionError, FileNotFoundError):
                holder, meta = self._read_holder()
                if holder["token"] != self._token:
                    self._taken_by = holder
                    return
                self._version = _version(meta)  # our own put, whose answer was lost
            self._renewed = began

    def _put(self, mode: Any) -> dict[str, Any]:
        process = {"host": socket.gethostname(), "pid": os.getpid(), "pids": _pid_space()}
        data = json.dumps(process | {"token": self._token, "seconds": time.time()}).encode()
        return _version(self._store.put(LOCK, data, mode=mode))

    def _read_holder(self) -> tuple[dict[str, Any], Any]:
        """Returns the holder of the lock object and its metadata; _UNKNOWN and None where there is none."""
        try:
            answer = self._store.get(LOCK)
            data, meta = bytes(answer.bytes()), answer.meta
        except FileNotFoundError:
            return _UNKNOWN, None
        try:
            return _UNKNOWN | dict(json.loads(data)), meta
        except (ValueError, TypeError, RecursionError):
            return _UNKNOWN, meta


_UNKNOWN = {"host": "unknown", "pid": "unknown", "pids": "", "token": "", "seconds": 0}


def _version(meta: Any) -> dict[str, Any]:
    """Returns what a conditional put compares: e_tag on S3 and Azure, version on Google."""
    return {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None}


def _runs(holder: dict[str, Any]) -> bool | None:
    """Returns whether the process that holds the lock runs; None if that cannot be told from this machine."""
    import psutil  # here, since it takes 40 ms

    pid, seconds = holder["pid"], holder["seconds"]
    if holder["pids"] != _pid_space() or not isinstance(pid, int) or not isinstance(seconds, int | float):
        return None
    if not process_runs(pid):
        return False
    with suppress(psutil.Error):  # hidden from us, or it has just ended
        return bool(psutil.Process(pid).create_time() <= seconds)  # else the id is another process's now
    return None


def _pid_space() -> str:
    """Identifies the set of processes in which an id is unique: this boot of this machine, this container.

    The host name does not, since two containers may have the same.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def boot_seconds() -> float:
    """Returns the seconds since the machine started, those in which it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
