"""A dask client, of a local cluster or of a scheduler that exists, on an event loop that outlives both."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from avel.errors import ConfigError

if TYPE_CHECKING:
    from tornado.ioloop import IOLoop

CONNECT_SECONDS = 30
LOOPBACK = "127.0.0.1"
LINGER_SECONDS = 0.02
"""Longer than dask's senders wait for more to send (10 ms)."""


@contextmanager
def cluster(workers: int, scheduler: str | None) -> Iterator[Any]:
    """A dask client of the scheduler at an address, or of a cluster of `workers` threads in this process.

    Threads, because each only watches a decoding process of its own: a dask process around it would cost
    100 MB and two seconds, and guard nothing more.

    Raises:
        ConfigError: no scheduler answers at the address.
    """
    with event_loop() as loop:
        if scheduler:
            with _client(scheduler, loop) as client:
                yield client
        else:
            from distributed import Client

            with _local_cluster(workers, loop) as local, Client(local) as client:
                yield client


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


def _local_cluster(workers: int, loop: IOLoop) -> Any:
    from distributed import LocalCluster

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        local = LocalCluster(
            n_workers=1,
            threads_per_worker=workers,
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
