"""Clips over dask workers: a local cluster, or one that exists; each thread owns one isolated child."""

import logging
import threading
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from avel.errors import AvelError, ConfigError
from avel.pipeline.config import ExtractConfig
from avel.pipeline.staging.isolate import Isolated, with_source
from avel.progress import note
from avel.stores.manifest import Entry

CONNECT_SECONDS = 30
LOOPBACK = "127.0.0.1"

_children: dict[tuple[str, int], Isolated] = {}
_closed: set[str] = set()
_lock = threading.Lock()


def stage_isolated(entry: Entry, run: str, store: str, config: ExtractConfig) -> Entry:
    """The dask task: one whole clip, in the child that belongs to this run and thread."""
    key = run, threading.get_ident()
    with _lock:
        if run in _closed:
            raise AvelError("the run has ended")
        child = _children.get(key) or _children.setdefault(key, Isolated(store, config))
    return child.stage(entry)


def close_children(run: str) -> None:
    """Ends the run's children in this process, also those in the middle of a clip."""
    with _lock:
        _closed.add(run)
        ending = [_children.pop(key) for key in list(_children) if key[0] == run]
    for child in ending:
        child.close()


@contextmanager
def cluster(workers: int, scheduler: str | None) -> Iterator[Any]:
    """A dask client of the scheduler at an address, or of a cluster of `workers` threads in this process.

    Threads, because each only watches a decoding process of its own: a dask process around it would cost
    100 MB and two seconds, and guard nothing more.

    Raises:
        ConfigError: no scheduler answers at the address.
    """
    from distributed import Client, LocalCluster

    if scheduler:
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--scheduler {scheduler}: {error}", hint="dask scheduler, then dask worker ADDRESS"
            ) from None
        with client:
            yield client
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        local = LocalCluster(
            n_workers=1,
            threads_per_worker=workers,
            processes=False,
            memory_limit=0,
            dashboard_address=f"{LOOPBACK}:8787",
        )
    with local, Client(local) as client:
        yield client


def stage_all(
    entries: Sequence[Entry], store: str, config: ExtractConfig, *, workers: int, scheduler: str | None
) -> Iterator[list[Entry]]:
    """Stages every entry; yields them as they are done, in any order.

    Raises:
        AvelError: the store cannot be written, or no decoding process starts.
    """
    from distributed import as_completed

    run = uuid.uuid4().hex
    with _quiet(), cluster(workers, scheduler) as client:
        note(_dashboard(client))
        try:
            futures = client.map(
                stage_isolated, entries, run=run, store=store, config=config, pure=False, key=f"stage-{run}"
            )
            entry_of = {future.key: entry for future, entry in zip(futures, entries, strict=True)}
            for batch in as_completed(futures).batches():
                yield [_result(future, entry_of[future.key]) for future in batch]
        finally:
            close_children(run)
            if scheduler:
                with suppress(Exception):  # workers that are gone have no children left
                    client.cancel(futures)
                    client.run(close_children, run)


@contextmanager
def _quiet() -> Iterator[None]:
    """dask's log stays silent: what matters comes back as exceptions and entries."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _result(future: Any, pending: Entry) -> Entry:
    from distributed import KilledWorker

    try:
        entry: Entry = future.result()
        return entry
    except KilledWorker as error:
        return replace(with_source(pending), state="failed", reason="crashed", detail=str(error)[:500])


def _dashboard(client: Any) -> str:
    cluster = client.cluster
    if cluster is None:
        return f"dask dashboard: {client.dashboard_link}"
    return f"dask dashboard: http://{LOOPBACK}:{cluster.scheduler.services['dashboard'].port}/status"
