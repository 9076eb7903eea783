"""Clips over dask workers: a local cluster, or one that exists; each decodes in isolated processes."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

from avel.errors import AvelError, StoreError
from avel.pipeline.config import ExtractConfig
from avel.pipeline.staging.cluster import await_worker, cluster, dashboard, watching
from avel.pipeline.staging.isolate import Isolated, Lost, given_up
from avel.progress import note
from avel.stores.clip_writer import flush
from avel.stores.clips import StoreAttributes, read_attributes
from avel.stores.location import locate
from avel.stores.manifest import Entry


class Decoders:
    """The decoding processes that one run has in this process, `most` at once.

    A clip has one of them while it is decoded, and none while the disk takes what was written: by then the
    next clip has it.
    """

    def __init__(self, store: str, config: ExtractConfig, run: str, most: int) -> None:
        self._store, self._config, self._run, self._most = store, config, run, most
        self._location = locate(store)
        self._idle: list[Isolated] = []
        self._all: list[Isolated] = []
        self._changed = threading.Condition()
        self._closed = False

    def launch(self) -> None:
        """Starts all of them: they load their libraries while dask loads its own, a second less to wait."""
        with self._changed:
            self._idle = [self._make() for _ in range(self._most)]
            for child in self._idle:
                child.launch()

    def stage(self, entry: Entry) -> Entry:
        """Stages one clip -> its entry, staged and on the disk, or failed.

        Raises:
            AvelError: the run has ended meanwhile.
            IsolationError, StaleError, WriteError: as `Isolated.stage` does.
        """
        with self._one() as child:
            entry = child.stage(entry)
        if entry.state != "staged":
            return entry
        began = time.perf_counter()
        flush(self._location, self._attributes, entry.row, self._run)
        return replace(entry, write_seconds=entry.write_seconds + time.perf_counter() - began)

    def close(self) -> None:
        """Ends them all, also those in the middle of a clip."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for child in self._all:
            child.close()

    @contextmanager
    def _one(self) -> Iterator[Isolated]:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle or len(self._all) < self._most)
            if self._closed:
                raise AvelError("the run has ended")
            child = self._idle.pop() if self._idle else self._make()
        try:
            yield child
        finally:
            with self._changed:
                self._idle.append(child)
                self._changed.notify()

    @cached_property
    def _attributes(self) -> StoreAttributes:
        attributes = read_attributes(self._location)
        if attributes is None:
            raise StoreError(
                f"{self._store}: was removed while clips were staged into it",
                hint="the same command again stages all of them",
            )
        return attributes

    def _make(self) -> Isolated:
        self._all.append(Isolated(self._store, self._config, self._run))
        return self._all[-1]


THREADS_A_DECODER = 2
"""One watches it, while another waits for the disk."""

_decoders: dict[str, Decoders] = {}
_closed: set[str] = set()
_lock = threading.Lock()


def stage_isolated(entry: Entry, run: str, store: str, config: ExtractConfig) -> Entry:
    """The dask task: one whole clip."""
    return decoders_of(run, store, config, most=_threads()).stage(entry)


def decoders_of(run: str, store: str, config: ExtractConfig, most: int) -> Decoders:
    """The run's decoders in this process, made at the first call.

    Raises:
        AvelError: the run has ended.
    """
    with _lock:
        if run in _closed:
            raise AvelError("the run has ended")
        if run not in _decoders:
            _decoders[run] = Decoders(store, config, run, most)
        return _decoders[run]


def close_decoders(run: str) -> None:
    """Ends the run's decoding processes in this process, for good."""
    with _lock:
        _closed.add(run)
        decoders = _decoders.pop(run, None)
    if decoders is not None:
        decoders.close()


def _threads() -> int:
    from distributed import get_worker

    return int(get_worker().state.nthreads)


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
            decoders_of(run, store, config, most=min(workers, len(entries))).launch()
        with _quiet(), cluster(THREADS_A_DECODER * workers, scheduler) as client:
            note(f"dask dashboard: {dashboard(client)}")
            await_worker(client)
            with watching(client):
                yield from _staged(client, entries, run, store, config)
    finally:
        close_decoders(run)


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
        close_decoders(run)  # before the cluster closes, which waits for its threads
        if client.cluster is None and client.status == "running":
            with suppress(Exception):  # workers that are gone have no children left
                client.cancel(futures)
                client.run(close_decoders, run)


@contextmanager
def _quiet() -> Iterator[None]:
    """dask's log stays silent: what matters comes back as exceptions and entries."""
    import distributed  # noqa: F401 - it sets its log's level when it is first imported

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
