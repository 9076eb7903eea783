"""Decodes clips in a child process, so that a crash, a hang or too much memory fails only one clip.

`Isolated` is the parent's side, `avel.pipeline.staging.child` the child's. They talk over a socket pair.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import psutil

from avel.config import digest
from avel.errors import AvelError
from avel.grid import CHUNK_SEGMENTS
from avel.pipeline.config import ExtractConfig
from avel.pipeline.staging.child import MIB, UNCOUNTED
from avel.stores.clip_layout import ARRAYS, read_attributes
from avel.stores.clip_writer import erase, is_run_of
from avel.stores.files import file_at
from avel.stores.location import locate
from avel.stores.manifest import Entry, Reason, failed

CHILD_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
"""One core for each child. glibc keeps memory that a clip frees, which saves 2000 page faults a clip."""

POLL_SECONDS = 0.05
MOST_POLL_SECONDS = 1.0
"""Most time that one poll adds to a clip's: one that took longer was stopped meanwhile (Ctrl-Z)."""
START_SECONDS = 120.0
KILL_RETRIES = 2
"""Times that a clip is tried again after a SIGKILL, which a person or a lack of memory causes."""


class IsolationError(AvelError):
    """Failure of a decoding process: it cannot be started, or was closed while it was needed."""


@dataclass(frozen=True)
class LostChild:
    """End of a child that was staging a clip, whether it ended itself or its parent ends it.

    Attributes:
        reason: why the clip fails, if it fails.
        killed: SIGKILL ended it, which may not be the clip's fault.
        seconds: time spent on the clip.
    """

    reason: Reason
    detail: str
    killed: bool = False
    seconds: float = 0.0


class Isolated:
    """Stages clips into one store, for one run, in a child process that is replaced when it ends.

    >>> with Isolated("clips.zarr", ExtractConfig()) as isolated:  # doctest: +SKIP
    ...     isolated.stage(entry).state
    'staged'
    """

    def __init__(self, store: str, config: ExtractConfig, run: str = "") -> None:
        self._store, self._config, self._run = store, config, run
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as its children
        self._served, self._ready = 0, False
        self._closed = False
        self._in_use = threading.RLock()

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def launch(self) -> None:
        """Starts a child, unless one runs, but does not wait until it has loaded its libraries.

        Raises:
            IsolationError: this was closed, or the child cannot be started.
        """
        with self._in_use:
            if self._closed:
                raise IsolationError("the decoding process was already closed")
            if self._process is not None and self._process.poll() is None:
                return
            self._end()
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    self._process = subprocess.Popen(
                        [sys.executable, "-P", "-m", "avel.pipeline.staging.child", str(theirs.fileno())],
                        pass_fds=[theirs.fileno()],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=self._errors,
                        env=os.environ | CHILD_ENVIRONMENT,
                    )
                except OSError as error:  # no memory, or more processes than one may have
                    ours.close()
                    raise IsolationError(
                        f"the decoding process cannot be started: {error}", hint="lower --workers"
                    ) from None
            self._connection, self._served, self._ready = Connection(ours.detach()), 0, False
            with suppress(OSError):  # `_make_ready` notices a child that died at once
                self._connection.send((self._store, self._config, self._run, os.getpid()))

    def close(self) -> None:
        """Ends the child at once. A clip that another thread is staging stays pending."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._in_use:
            self._end()
            self._errors.close()

    def stage(self, entry: Entry) -> Entry:
        """Stages one clip; returns its entry. A staged one is on disk only after `clip_writer.flush`.

        A crash fails the clip only if it happens in a new child, since an earlier clip may have caused it.

        Raises:
            IsolationError: no child can be started, or this was closed.
            StaleError: another run has begun on the store.
            WriteError: the store cannot be written.
        """
        kills = 0
        with self._in_use:
            while True:
                self._make_ready()
                fresh = not self._served
                outcome = self._ask(entry)
                if isinstance(outcome, Entry):
                    self._served += 1
                    return outcome
                self._end()
                locate(self._store).remove_partials(f"{name}/c/{entry.row}" for name in ARRAYS)
                if self._closed:
                    raise IsolationError("the decoding process was closed in the middle of a clip")
                kills += outcome.killed
                if outcome.reason == "timeout" or (kills > KILL_RETRIES if outcome.killed else fresh):
                    return fail_lost_clip(entry, outcome, self._store, self._config, self._run)

    def _ask(self, entry: Entry) -> Entry | LostChild:
        """Sends the clip to the child and returns its answer, or how the child was lost."""
        assert self._connection is not None
        try:
            self._connection.send(entry)
            return self._watch()
        except (EOFError, OSError):
            return self._post_mortem()

    def _watch(self) -> Entry | LostChild:
        """Waits for the answer within the limits of time and memory.

        Only time spent in polls counts, so that a stopped run does not use up a clip's time.
        """
        assert self._connection is not None
        limit = self._config.time_limit
        silent = used = 0.0  # seconds without a sign, and seconds of staging
        while True:
            began = time.monotonic()
            came = self._connection.poll(POLL_SECONDS)
            waited = min(time.monotonic() - began, MOST_POLL_SECONDS)
            silent, used = silent + waited, used + waited
            if came:
                message = self._connection.recv()
                if isinstance(message, Entry):
                    return message
                if isinstance(message, Exception):
                    raise message
                silent, used = 0.0, 0.0 if message == UNCOUNTED else used
            if self._closed:
                return LostChild("crashed", "closed")
            used_mib = self._resident_mib()
            if used_mib > self._config.memory_limit:
                detail = f"used {used_mib} MiB, the limit is {self._config.memory_limit} MiB"
                return LostChild("memory", detail, seconds=used)
            if silent > limit:
                return LostChild("timeout", f"no sign of life for {limit:g} s", seconds=used)
            if used > limit * -(-self._config.grid().segments // CHUNK_SEGMENTS):
                return LostChild("timeout", f"not done after {used:.0f} s", seconds=used)

    def _post_mortem(self) -> LostChild:
        """Returns how a child ended that no longer answers."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.returncode
        if code is None:
            return LostChild("crashed", "stopped answering")
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return LostChild("crashed", f"the decoding process died of {name}", killed=code == -signal.SIGKILL)

    def _resident_mib(self) -> int:
        """Returns the memory that the child uses, 0 if it has just ended."""
        assert self._process is not None
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss) // MIB
        except psutil.Error:
            return 0

    def _make_ready(self) -> None:
        """Waits for a child with its libraries loaded and the store open; replaces one that dies before."""
        for _ in range(1 + KILL_RETRIES):
            self.launch()
            if self._ready or self._await_ready():
                return
            self._end()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        raise IsolationError("the decoding process does not start", hint=said[-1] if said else "")

    def _await_ready(self) -> bool:
        """Waits for the child's first answer; returns whether it is ready. Raises the error it sent."""
        assert self._connection is not None
        try:
            answer = self._connection.recv() if self._connection.poll(START_SECONDS) else None
        except (EOFError, OSError):
            return False
        if isinstance(answer, Exception):
            self._end()
            raise answer
        self._ready = answer == "ready"
        return self._ready

    def _end(self) -> None:
        """Kills the child, if there is one, and closes the connection."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is not None:
            process.kill()
            process.wait()
        if connection is not None:
            connection.close()


def fail_lost_clip(entry: Entry, lost: LostChild, store: str, config: ExtractConfig, run: str) -> Entry:
    """Returns the entry of a clip whose child was lost, as failed, and deletes the chunks it wrote.

    It has size and modification time of the file, which the next run compares. The chunks stay if another run
    has begun on the store, which may have staged the clip meanwhile.

    Raises:
        WriteError: the store cannot be written.
    """
    location, made_with = locate(store), digest(config)
    attributes = read_attributes(location)
    if attributes is not None and attributes.digest == made_with and is_run_of(location, run):
        erase(location, attributes, [entry.row])
    with suppress(OSError):
        status = os.stat(file_at(entry.source_path))
        entry = replace(entry, source_bytes=status.st_size, source_mtime_ns=status.st_mtime_ns)
    entry = failed(entry, lost.reason, lost.detail)
    return replace(entry, settings=made_with, decode_seconds=round(lost.seconds, 6))
