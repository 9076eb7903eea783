"""Clips over dask workers: a local cluster, or one that exists; each thread owns one isolated child."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from avel.errors import AvelError
from avel.pipeline.config import ExtractConfig
from avel.pipeline.staging.cluster import await_worker, cluster, dashboard, watching
from avel.pipeline.staging.isolate import Isolated, Lost, given_up
from avel.progress import note
from avel.stores.manifest import Entry

_children: dict[tuple[str, int], Isolated] = {}
_launched: dict[str, list[Isolated]] = {}
"""Children by run that no thread owns yet."""
_closed: set[str] = set()
_lock = threading.Lock()


def stage_isolated(entry: Entry, run: str, store: str, config: ExtractConfig) -> Entry:
    """The dask task: one whole clip, in the child that belongs to this run and thread."""
    key = run, threading.get_ident()
    with _lock:
        if run in _closed:
            raise AvelError("the run has ended")
        if key not in _children:
            launched = _launched.get(run)
            _children[key] = launched.pop() if launched else Isolated(store, config, run)
        child = _children[key]
    return child.stage(entry)


def launch_children(run: str, count: int, store: str, config: ExtractConfig) -> None:
    """Starts children that load their libraries while dask loads its own: a second less to wait."""
    children = [Isolated(store, config, run) for _ in range(count)]
    with _lock:
        _launched[run] = list(children)
    for child in children:
        child.launch()


def close_children(run: str) -> None:
    """Ends the run's children in this process, also those in the middle of a clip."""
    with _lock:
        _closed.add(run)
        ending = [_children.pop(key) for key in list(_children) if key[0] == run] + _launched.pop(run, [])
    for child in ending:
        child.close()


def stage_all(
    entries: Sequence[Entry],
    run: str,
    store: str,
    config: ExtractConfig,
    *,
    workers: int,
    scheduler: str | None,
) -> Iterator[list[Entry]]:
    """Stages every entry for the run that prepared `store`; yields them as they are done, in any order.

    Raises:
        AvelError: the store cannot be written, no decoding process starts, or the scheduler is lost.
    """
    try:
        if not scheduler:
            launch_children(run, min(workers, len(entries)), store, config)
        with _quiet(), cluster(workers, scheduler) as client:
            note(f"dask dashboard: {dashboard(client)}")
            await_worker(client)
            with watching(client):
                yield from _staged(client, entries, run, store, config)
    finally:
        close_children(run)


def _staged(
    client: Any, entries: Sequence[Entry], run: str, store: str, config: ExtractConfig
) -> Iterator[list[Entry]]:
    """Maps the entries over the client's workers; at the end no worker keeps a child of this run."""
    from distributed import as_completed

    futures = client.map(
        stage_isolated, entries, run=run, store=store, config=config, pure=False, key=f"stage-{run}"
    )
    entry_of = {future.key: entry for future, entry in zip(futures, entries, strict=True)}
    try:
        for batch in as_completed(futures).batches():
            yield [_result(future, entry_of[future.key], run, store, config) for future in batch]
    finally:
        close_children(run)  # before the cluster closes, which waits for its threads
        if client.cluster is None and client.status == "running":
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


def _result(future: Any, pending: Entry, run: str, store: str, config: ExtractConfig) -> Entry:
    from distributed import KilledWorker

    try:
        entry: Entry = future.result()
        return entry
    except KilledWorker as error:
        return given_up(pending, Lost("crashed", str(error)), store, config, run)
