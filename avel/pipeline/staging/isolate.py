"""Decoding in a process of its own: a crash, a hang or a swollen heap costs one clip and one process.

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
from avel.pipeline.media.refusal import Reason
from avel.pipeline.staging.child import HASHED, MIB
from avel.stores.clip_writer import erase, is_run_of
from avel.stores.clips import read_attributes
from avel.stores.location import locate
from avel.stores.manifest import Entry, failed

CHILD_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
"""A core each; and glibc keeps what a clip frees for the next: 2000 page faults a clip otherwise."""

POLL_SECONDS = 0.05
GLANCE_SECONDS = 1.0
"""The most that one poll counts: time for which a run was stopped (Ctrl-Z, a suspended job) is no clip's."""
START_SECONDS = 120.0
KILLS_FORGIVEN = 2
"""SIGKILL comes from outside (an operator, the kernel short of memory): tried again so often."""


class IsolationError(AvelError):
    """The decoding process cannot be started, or was closed while it was needed."""


@dataclass(frozen=True)
class Lost:
    """How a child was lost over a clip."""

    reason: Reason
    detail: str
    killed: bool = False
    seconds: float = 0.0


class Isolated:
    """A child process that stages clips into one store for one run, replaced when it is lost.

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
        self._in_use = threading.Lock()

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def launch(self) -> None:
        """Starts the child without waiting until it has loaded its libraries.

        Raises:
            IsolationError: this was closed.
        """
        with self._in_use:
            self._launch()

    def close(self) -> None:
        """Ends the child at once; a clip in work, in another thread, stays pending."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._in_use:
            self._end()
            self._errors.close()

    def stage(self, entry: Entry) -> Entry:
        """Stages one clip -> its entry, failed, or staged but for the flush to the disk.

        Only what a fresh child repeats is the clip's fault.

        Raises:
            IsolationError: no child can be started, or this was closed.
            StaleError: another run has begun on the store.
            WriteError: the store cannot be written.
        """
        with self._in_use:
            return self._stage(entry)

    def _stage(self, entry: Entry) -> Entry:
        kills = 0
        while True:
            self._make_ready()
            fresh = not self._served
            outcome = self._ask(entry)
            if isinstance(outcome, Entry):
                self._served += 1
                return outcome
            self._end()
            if self._closed:
                raise IsolationError("closed in the middle of a clip")
            kills += outcome.killed
            if outcome.reason == "timeout" or (kills > KILLS_FORGIVEN if outcome.killed else fresh):
                return given_up(entry, outcome, self._store, self._config, self._run)

    def _ask(self, entry: Entry) -> Entry | Lost:
        """Hands the clip over and watches: an answer, or how the child was lost."""
        assert self._connection is not None
        try:
            self._connection.send(entry)
            return self._watch()
        except (EOFError, OSError):
            return self._post_mortem()

    def _watch(self) -> Entry | Lost:
        """Waits for the answer for as long as the limits allow, by the time that was spent looking."""
        assert self._connection is not None
        limit = self._config.time_limit
        silent = used = 0.0
        while True:
            began = time.monotonic()
            came = self._connection.poll(POLL_SECONDS)
            glance = min(time.monotonic() - began, GLANCE_SECONDS)
            silent, used = silent + glance, used + glance
            if came:
                message = self._connection.recv()
                if isinstance(message, Entry):
                    return message
                if isinstance(message, Exception):
                    raise message
                silent, used = 0.0, 0.0 if message == HASHED else used
            if self._closed:
                return Lost("crashed", "closed")
            held = self._resident_mib()
            if held > self._config.memory_limit:
                detail = f"held {held} MiB, the limit is {self._config.memory_limit} MiB"
                return Lost("memory", detail, seconds=used)
            if silent > limit:
                return Lost("timeout", f"no sign of life for {limit:g} s", seconds=used)
            if used > limit * -(-self._config.segments // CHUNK_SEGMENTS):
                return Lost("timeout", f"not done after {used:.0f} s", seconds=used)

    def _post_mortem(self) -> Lost:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.returncode
        if code is None:
            return Lost("crashed", "stopped answering")
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return Lost("crashed", f"the decoding process died of {name}", killed=code == -signal.SIGKILL)

    def _resident_mib(self) -> int:
        assert self._process is not None
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss) // MIB
        except psutil.Error:  # it has just ended
            return 0

    def _launch(self) -> None:
        if self._closed:
            raise IsolationError("already closed")
        if self._process is not None and self._process.poll() is None:
            return
        self._end()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "avel.pipeline.staging.child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=os.environ | CHILD_ENVIRONMENT,
            )
        self._connection, self._served, self._ready = Connection(ours.detach()), 0, False
        with suppress(OSError):  # one that died at once is found out when it is awaited
            self._connection.send((self._store, self._config, self._run, os.getpid()))

    def _make_ready(self) -> None:
        """A child that has loaded its libraries and opened the store; one killed before that is replaced."""
        for _ in range(1 + KILLS_FORGIVEN):
            self._launch()
            if self._ready or self._greeted():
                return
            self._end()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        raise IsolationError("the decoding process does not start", hint=said[-1] if said else "")

    def _greeted(self) -> bool:
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
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is not None:
            process.kill()
            process.wait()
        if connection is not None:
            connection.close()


def given_up(entry: Entry, lost: Lost, store: str, config: ExtractConfig, run: str = "") -> Entry:
    """The entry of a clip whose process was lost, as failed; what it wrote is erased.

    But for what another run may have staged meanwhile, in the place of one that was killed.

    Raises:
        WriteError: the store cannot be written.
    """
    location, made_with = locate(store), digest(config)
    attributes = read_attributes(location)
    if attributes is not None and attributes.digest == made_with and is_run_of(location, run):
        erase(location, attributes, entry.row)
    entry = failed(with_source(entry), lost.reason, lost.detail)
    return replace(entry, settings=made_with, decode_seconds=round(lost.seconds, 6))


def with_source(entry: Entry) -> Entry:
    """The entry with its source's size and time, so that a clip that killed its reader is known again."""
    with suppress(OSError):
        status = os.stat(entry.source_path)
        return replace(entry, source_bytes=status.st_size, source_mtime_ns=status.st_mtime_ns)
    return entry
