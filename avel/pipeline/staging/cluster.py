"""A dask client, of a local cluster or of a scheduler that exists, on an event loop that outlives both."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from avel.errors import AvelError, ConfigError
from avel.progress import note

if TYPE_CHECKING:
    from tornado.ioloop import IOLoop

CONNECT_SECONDS = 30
PATIENCE_SECONDS = 5
"""A cluster's scheduler that has no worker by then is named."""
LOOPBACK = "127.0.0.1"
LINGER_SECONDS = 0.02
"""Longer than dask's senders wait for more to send (10 ms)."""


class SchedulerLostError(AvelError):
    """The dask scheduler ended, or cannot be reached any more, while a run was at work."""


@contextmanager
def cluster(threads: int, scheduler: str | None) -> Iterator[Any]:
    """A dask client of the scheduler at an address, or of a cluster of `threads` in this process.

    Threads, because each only watches a decoding process: a dask process around it would cost 100 MB and two
    seconds, and guard nothing more.

    Raises:
        ConfigError: no scheduler answers at the address.
    """
    with event_loop() as loop:
        if scheduler:
            with _client(scheduler, loop) as client:
                yield client
        else:
            from distributed import Client

            with _local_cluster(threads, loop) as local, Client(local) as client:
                yield client


def threads(scheduler: str) -> int:
    """How many clips the workers of a running scheduler decode at once; at least 1.

    Raises:
        ConfigError: no scheduler answers at the address.
    """
    with cluster(1, scheduler) as client:
        counts: dict[str, int] = client.nthreads()
        return max(1, sum(counts.values()))


def await_worker(client: Any) -> None:
    """Says so where a scheduler has no worker; one that joins later does the work."""
    if client.cluster is not None:
        return
    with suppress(TimeoutError):
        client.wait_for_workers(1, timeout=PATIENCE_SECONDS)
        return
    address = client.scheduler.address
    note(f"{address} has no workers yet, this run waits for one: dask worker {address}")


@contextmanager
def watching(client: Any) -> Iterator[None]:
    """Turns what dask raises in the block when its scheduler is gone into SchedulerLostError."""
    from distributed import CancelledError
    from distributed.comm import CommClosedError

    address = client.scheduler.address
    try:
        yield
    except (CancelledError, CommClosedError) as error:
        raise SchedulerLostError(
            f"the dask scheduler {address} is gone: {str(error).splitlines()[0]}",
            hint="start one, then the same command: it does what is left",
        ) from None


def dashboard(client: Any) -> str:
    """The address of the client's dashboard."""
    local = client.cluster
    if local is None:
        return str(client.dashboard_link)
    return f"http://{LOOPBACK}:{local.scheduler.services['dashboard'].port}/status"


@contextmanager
def event_loop() -> Iterator[IOLoop]:
    """A running loop for a cluster and its client, which must both be closed when the block ends.

    dask would end a loop of its own at once, under senders that still wait with a time-out. If that runs out
    in the loop's last turn nobody hears of it, and Python says "Future exception was never retrieved".
    """
    from tornado.ioloop import IOLoop

    started: SimpleQueue[tuple[IOLoop, asyncio.Event]] = SimpleQueue()

    async def serve() -> None:
        ended = asyncio.Event()
        started.put((IOLoop.current(), ended))
        await ended.wait()
        for _ in range(2):  # once for the time-outs to run out, once for their waiters to hear of it
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
    from distributed import Client

    try:
        return Client(scheduler, timeout=CONNECT_SECONDS, loop=loop)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--scheduler {scheduler}: {error}", hint="dask scheduler, then dask worker ADDRESS"
        ) from None


def _local_cluster(threads: int, loop: IOLoop) -> Any:
    import dask
    from distributed import LocalCluster

    # its threads only wait for the processes that decode, so to sample them shows nothing and costs time
    unwatched = dask.config.set({"distributed.worker.profile.enabled": False})
    with warnings.catch_warnings(), unwatched:
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        local = LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            processes=False,
            memory_limit=0,
            dashboard_address=f"{LOOPBACK}:8787",
            scheduler_kwargs={"dashboard": False},  # its server runs; its pages come when they are asked for
            loop=loop,
        )
    local.scheduler.http_application.add_application(_Pages(local.scheduler))
    return local


class _Pages:
    """The dashboard's pages, loaded for the first request: 0.7 s that most runs need not spend."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler, self._loaded = scheduler, False

    def find_handler(self, request: Any, **_: Any) -> None:
        """Asked by dask's router, which asks next what this adds to it."""
        if not self._loaded:
            from distributed.dashboard.scheduler import connect

            self._loaded = True
            connect(self._scheduler.http_application, self._scheduler.http_server, self._scheduler)
