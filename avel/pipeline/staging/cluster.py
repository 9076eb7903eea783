"""Connects to dask: to a local cluster or to an existing scheduler, on an event loop of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import av

from avel.errors import AvelError, ConfigError
from avel.progress import note
from avel.text import first_line

if TYPE_CHECKING:
    from tornado.ioloop import IOLoop

CONNECT_SECONDS = 30
WORKER_SECONDS = 5
"""Time without a worker after which the user is told. Work begins when one joins, however late."""
LOGGERS = frozenset({"asyncio", "bokeh", "dask", "distributed", "tornado"})
LOOPBACK = "127.0.0.1"
LINGER_SECONDS = 0.02
"""Seconds of each wait before a loop ends: longer than the 10 ms for which dask gathers messages to send."""


class MixedVersionsError(AvelError):
    """Different versions of avel, PyAV or FFmpeg in a worker and its run, or in the clips of one store."""


class SchedulerLostError(AvelError):
    """Loss of the dask scheduler during a run: it ended, or cannot be reached any more."""


def _replace_offload_thread() -> None:
    """Gives dask a new thread to offload work to: that of the parent process does not run in a fork."""
    utils: Any = sys.modules.get("distributed.utils")
    if utils is not None:
        utils._offload_executor = ThreadPoolExecutor(1, thread_name_prefix="Dask-Offload")


os.register_at_fork(after_in_child=_replace_offload_thread)


@contextmanager
def cluster(threads: int, scheduler: str | None) -> Iterator[Any]:
    """Yields a dask client of the scheduler at an address, or of a cluster of `threads` in this process.

    Threads are enough, since each only watches a decoding process. A dask process for each would take 100 MB
    and two seconds more, and protect from nothing more.

    Raises:
        ConfigError: no scheduler answers at the address.
    """
    with quiet(), event_loop() as loop:
        if scheduler:
            with _client(scheduler, loop) as client:
                yield client
        else:
            from distributed import Client

            with _local_cluster(threads, loop) as local, Client(local) as client:
                yield client


@contextmanager
def quiet() -> Iterator[None]:
    """Silences dask's logs within the block: whatever matters comes back as exceptions and results.

    Several of dask's loggers have a level of their own, so all are silenced.
    """
    import distributed  # noqa: F401 - the first import sets the levels

    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in LOGGERS]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def worker_threads(scheduler: str) -> int:
    """Returns how many clips the workers of a running scheduler decode at once, at least 1.

    Raises:
        ConfigError: no scheduler answers at the address.
    """
    with cluster(1, scheduler) as client:
        counts: dict[str, int] = client.nthreads()
        return max(1, sum(counts.values()))


def await_worker(client: Any) -> None:
    """Waits for a scheduler's first worker, and after WORKER_SECONDS tells the user that it has none yet."""
    if client.cluster is not None:
        return
    with suppress(TimeoutError):
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
        return
    address = client.scheduler.address
    note(f"{address} has no worker yet, and this run waits for one. Start it: dask worker {address}")


@contextmanager
def watching(client: Any) -> Iterator[None]:
    """Turns dask's errors about a lost scheduler within the block into SchedulerLostError."""
    from distributed import CancelledError
    from distributed.comm import CommClosedError

    address = client.scheduler.address
    try:
        yield
    except (CancelledError, CommClosedError) as error:
        raise SchedulerLostError(
            f"the dask scheduler {address} is gone: {first_line(error)}",
            hint="start a scheduler, then give the same command again: it does what is left",
        ) from None


@dataclass(frozen=True)
class Versions:
    """Versions of what decides the numbers of a staged clip."""

    avel: str
    pyav: str
    ffmpeg: str

    def __str__(self) -> str:
        return f"avel {self.avel}, PyAV {self.pyav}, FFmpeg {self.ffmpeg}"


@cache
def versions() -> Versions:
    """Returns the versions in this process."""
    return Versions(version("avel"), av.__version__, av.ffmpeg_version_info)


def check_versions(expected: Versions) -> None:
    """Checks, on a worker, that it has the versions of the process that gave it the work.

    Raises:
        MixedVersionsError: it has others.
    """
    if (found := versions()) != expected:
        raise MixedVersionsError(
            f"worker on {socket.gethostname()} has {found}, and this run has {expected}",
            hint="install the same versions on all machines, and start the workers again",
        )


def dashboard(client: Any) -> str:
    """Returns the address of the client's dashboard."""
    local = client.cluster
    if local is None:
        return str(client.dashboard_link)
    return f"http://{LOOPBACK}:{local.scheduler.services['dashboard'].port}/status"


@contextmanager
def event_loop() -> Iterator[IOLoop]:
    """Yields a running loop for a cluster and its client, which must both be closed when the block ends.

    dask's own loop ends while some of dask's senders still wait with a timeout, and Python then prints
    "Future exception was never retrieved".
    """
    from tornado.ioloop import IOLoop

    started: SimpleQueue[tuple[IOLoop, asyncio.Event]] = SimpleQueue()

    async def serve() -> None:
        ended = asyncio.Event()
        started.put((IOLoop.current(), ended))
        await ended.wait()
        for _ in range(2):  # first the timeouts expire, then their waiters see it
            await asyncio.sleep(LINGER_SECONDS)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="dask's loop", daemon=True)
    thread.start()
    loop, ended = started.get()
    try:
        yield loop
    finally:
        loop.add_callback(ended.set)
        thread.join()


def _client(scheduler: str, loop: IOLoop) -> Any:
    """Connects to a scheduler; raises ConfigError if none answers."""
    from distributed import Client

    try:
        return Client(scheduler, timeout=CONNECT_SECONDS, loop=loop)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--scheduler {scheduler}: {error}",
            hint="start one with dask scheduler, and its workers with dask worker ADDRESS",
        ) from None


def _local_cluster(threads: int, loop: IOLoop) -> Any:
    """Starts a cluster of threads in this process, with its dashboard on the loopback."""
    import dask
    from distributed import LocalCluster

    # dask's profiler would see only threads that wait for decoding processes, and would cost time
    no_profile = dask.config.set({"distributed.worker.profile.enabled": False})
    with warnings.catch_warnings(), no_profile:
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        local = LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            processes=False,
            memory_limit=0,
            dashboard_address=f"{LOOPBACK}:8787",
            scheduler_kwargs={"dashboard": False},  # the server runs without pages; _Pages loads them
            worker_class=_worker_class(),
            worker_dashboard_address=f"{LOOPBACK}:0",  # without an address it would listen on all
            loop=loop,
        )
    local.scheduler.http_application.add_application(_Pages(local.scheduler))
    return local


def _worker_class() -> type:
    """Returns dask's worker class without dashboard pages; given an address, LocalCluster would load them."""
    from distributed import Worker

    class PagelessWorker(Worker):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"dashboard": False})

    return PagelessWorker


class _Pages:
    """Loads the dashboard's pages at the first request. Loading takes 0.7 s, and most runs need no page."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler, self._loaded = scheduler, False

    def find_handler(self, request: Any, **_: Any) -> None:
        """Loads the pages into dask's router, which calls this first and then finds them itself."""
        if not self._loaded:
            from distributed.dashboard.scheduler import connect

            self._loaded = True
            connect(self._scheduler.http_application, self._scheduler.http_server, self._scheduler)
