"""Stages clips on dask workers, of a local cluster or an existing one; each decodes in child processes."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

from avel.errors import AvelError, StoreError
from avel.pipeline.config import ExtractConfig
from avel.pipeline.staging.cluster import (
    Versions,
    await_worker,
    check_versions,
    cluster,
    dashboard,
    versions,
    watching,
)
from avel.pipeline.staging.isolate import Isolated, LostChild, fail_lost_clip
from avel.progress import note
from avel.stores.clip_writer import flush
from avel.stores.clips import StoreAttributes, read_attributes
from avel.stores.location import locate
from avel.stores.manifest import Entry


class Decoders:
    """Children in which one run decodes clips from this process, `most` at once.

    A clip occupies a child while it is decoded, but not while it is flushed to the disk: meanwhile the child
    decodes the next clip.
    """

    def __init__(self, store: str, config: ExtractConfig, run: str, most: int) -> None:
        self._store, self._config, self._run, self._most = store, config, run, most
        self._location = locate(store)
        self._idle: list[Isolated] = []
        self._all: list[Isolated] = []
        self._changed = threading.Condition()
        self._closed = False

    def launch(self) -> None:
        """Starts all children. They load their libraries while dask loads its own, which saves a second."""
        with self._changed:
            self._idle = [self._make() for _ in range(self._most)]
            for child in self._idle:
                child.launch()

    def stage(self, entry: Entry) -> Entry:
        """Stages one clip; returns its entry as failed, or as staged and on the disk.

        Raises:
            AvelError: `close` was called.
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
        """Ends all children, also those in the middle of a clip."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for child in self._all:
            child.close()

    @contextmanager
    def _one(self) -> Iterator[Isolated]:
        """Yields an idle or new child for the block; waits while `most` children are busy."""
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
                hint="give the same command again to stage all of them",
            )
        return attributes

    def _make(self) -> Isolated:
        self._all.append(Isolated(self._store, self._config, self._run))
        return self._all[-1]


THREADS_A_DECODER = 2
"""Threads for each decoder: one watches the child while the other waits for the disk."""

_decoders: dict[str, Decoders] = {}
_closed: set[str] = set()
_lock = threading.Lock()


def stage_isolated(entry: Entry, run: str, store: str, config: ExtractConfig, expected: Versions) -> Entry:
    """Stages one clip; this is the task that dask runs.

    Raises:
        MixedVersionsError: this worker has other versions than the run.
    """
    check_versions(expected)
    return decoders_of(run, store, config, most=_threads()).stage(entry)


def decoders_of(run: str, store: str, config: ExtractConfig, most: int) -> Decoders:
    """Returns the run's decoders in this process; the first call makes them.

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
    """Ends the run's decoders in this process. They cannot be made again."""
    with _lock:
        _closed.add(run)
        decoders = _decoders.pop(run, None)
    if decoders is not None:
        decoders.close()


def _threads() -> int:
    """Returns the number of threads of the dask worker that runs this task."""
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
    """Stages every entry for the run that prepared `store`; yields entries in batches as they are done.

    Raises:
        AvelError: the store cannot be written, no decoding process starts, or the connection to the
            scheduler is lost.
    """
    try:
        if not scheduler:
            decoders_of(run, store, config, most=min(workers, len(entries))).launch()
        with cluster(THREADS_A_DECODER * workers, scheduler) as client:
            note(f"dask dashboard: {dashboard(client)}")
            await_worker(client)
            with watching(client):
                yield from _staged(client, entries, run, store, config)
    finally:
        close_decoders(run)


def _staged(
    client: Any, entries: Sequence[Entry], run: str, store: str, config: ExtractConfig
) -> Iterator[list[Entry]]:
    """Stages the entries on the client's workers, and at the end closes the run's children on all of them."""
    from distributed import as_completed

    futures = client.map(
        stage_isolated,
        entries,
        run=run,
        store=store,
        config=config,
        expected=versions(),
        pure=False,
        key=f"stage-{run}",
    )
    entry_of = {future.key: entry for future, entry in zip(futures, entries, strict=True)}
    try:
        for batch in as_completed(futures).batches():
            yield [_result(future, entry_of[future.key], run, store, config) for future in batch]
    finally:
        close_decoders(run)  # first: a local cluster waits for its threads when it closes
        if client.cluster is None and client.status == "running":
            with suppress(Exception):  # a worker that has ended has no children any more
                client.cancel(futures)
                client.run(close_decoders, run)


def _result(future: Any, pending: Entry, run: str, store: str, config: ExtractConfig) -> Entry:
    """Returns the future's entry, or the pending one as failed if its worker died."""
    from distributed import KilledWorker

    try:
        entry: Entry = future.result()
        return entry
    except KilledWorker as error:
        return fail_lost_clip(pending, LostChild("crashed", str(error)), store, config, run)
