"""One writer for a store in an object store: a lock object that its holder keeps renewing."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from avel.errors import BusyError

NAME = ".lock"
RENEW_SECONDS = 20.0
LAPSE_SECONDS = 120.0
"""Six renewals missed; also bears clocks that differ by a minute."""


@contextmanager
def lease(store: Any, url: str) -> Iterator[None]:
    """Holds the lock object of an obstore store; taking it and taking it over are atomic (conditional puts).

    Raises:
        BusyError: another run holds it and has renewed it lately.
    """
    tag = _take(store, url)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(store, tag, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        store.delete([NAME])


def _take(store: Any, url: str) -> str:
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    with suppress(AlreadyExistsError):
        return str(store.put(NAME, _holder(), mode="create")["e_tag"])
    try:
        found = store.get(NAME)
        holder, meta = json.loads(bytes(found.bytes())), found.meta
        idle = (datetime.now(UTC) - meta["last_modified"]).total_seconds()
        if idle > LAPSE_SECONDS or _is_gone(holder):
            return str(store.put(NAME, _holder(), mode={"e_tag": meta["e_tag"]})["e_tag"])
    except (FileNotFoundError, PreconditionError):  # given back, or taken over by a third, this very moment
        holder, idle = {"host": "unknown", "pid": "unknown"}, 0.0
    raise BusyError(
        f"{url}: process {holder['pid']} on {holder['host']} is at work on it, last sign {idle:.0f} s ago",
        hint=f"wait for it to end; what a killed run holds lapses after {LAPSE_SECONDS:.0f} s",
    )


def _renew(store: Any, tag: str, ended: threading.Event) -> None:
    """Puts the lock object again and again; a network that fails for a while is tried again."""
    while not ended.wait(RENEW_SECONDS):
        with suppress(Exception):
            tag = store.put(NAME, _holder(), mode={"e_tag": tag})["e_tag"]


def _holder() -> bytes:
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "seconds": time.time()}
    return json.dumps(holder).encode()


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the holder ran on this machine and has ended."""
    return holder["host"] == socket.gethostname() and not Path(f"/proc/{holder['pid']}").exists()
