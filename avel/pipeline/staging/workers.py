"""Stages clips on dask workers, of a local cluster or an existing one; each decodes in child processes."""

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from queue import LifoQueue
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
from avel.stores.clip_layout import StoreAttributes, read_attributes
from avel.stores.clip_writer import flush
from avel.stores.location import locate
from avel.stores.manifest import Entry, Manifest

THREADS_PER_DECODER = 2
"""Threads for each decoder: one watches the child while the other waits for the disk."""
TASK_CLIPS = 32
"""Most clips of a task, which share the work that dask and the manifest have with each task."""
TASK_SECONDS = 5.0
"""Seconds after which a task begins no further clip."""
LEAST_TASKS = 256
"""Least number of tasks, if there are enough clips, so that all workers end at about the same time."""
WINDOW = 256
"""Most tasks that dask has at once, or two for each thread of the workers where that is more. A million tasks
would take 13 GiB."""
LOOK_SECONDS = 10.0
"""Time between two looks at how many threads the workers have."""


class Decoders:
    """Children of this process that decode the clips of one run, `most` at once.

    A clip occupies a child while it is decoded, but not while it is flushed to the disk: meanwhile the child
    decodes the next clip.
    """

    def __init__(self, store: str, config: ExtractConfig, run: str, most: int) -> None:
        self._store, self._run, self._location = store, run, locate(store)
        self._all = [Isolated(store, config, run) for _ in range(most)]
        self._idle: LifoQueue[Isolated] = LifoQueue()  # last in, first out: the others may not run yet
        for child in self._all:
            self._idle.put(child)
        self._closed = False

    def launch(self) -> None:
        """Starts all children. They load their libraries while dask loads its own, which saves a second."""
        for child in self._all:
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
        self._closed = True
        for child in self._all:
            self._idle.put(child)  # wakes whoever waits for one
            child.close()

    @contextmanager
    def _one(self) -> Iterator[Isolated]:
        """Yields an idle child for the block; waits while all are busy."""
        child = self._idle.get()
        try:
            if self._closed:
                raise AvelError("the run has ended")
            yield child
        finally:
            self._idle.put(child)

    @cached_property
    def _attributes(self) -> StoreAttributes:
        attributes = read_attributes(self._location)
        if attributes is None:
            raise StoreError(
                f"{self._store}: was removed while clips were staged into it",
                hint="give the same command again to stage all of them",
            )
        return attributes


_decoders: dict[str, Decoders] = {}
_closed: set[str] = set()
_lock = threading.Lock()


def stage_isolated(
    entries: Sequence[Entry], run: str, store: str, config: ExtractConfig, expected: Versions
) -> list[Entry]:
    """Stages clips in turn, for TASK_SECONDS but at least one; this is the task that dask runs.

    Returns the entries of those that are done, the first ones. The others are left for another task, so that
    a killed worker costs seconds, however long the clips are.

    Raises:
        MixedVersionsError: this worker has other versions than the run.
    """
    from distributed import get_worker

    check_versions(expected)
    decoders, done = decoders_of(run, store, config, most=int(get_worker().state.nthreads)), []
    began = time.monotonic()
    for entry in entries:
        done.append(decoders.stage(entry))
        if time.monotonic() - began > TASK_SECONDS:
            break
    return done


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


def stage_all(
    entries: Manifest,
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
        with cluster(THREADS_PER_DECODER * workers, scheduler) as client:
            note(f"dask dashboard: {dashboard(client)}", level=1 if scheduler else 2)
            await_worker(client)
            with watching(client):
                yield from _staged(client, entries, run, store, config)
    finally:
        close_decoders(run)


def _staged(
    client: Any, entries: Manifest, run: str, store: str, config: ExtractConfig
) -> Iterator[list[Entry]]:
    """Stages the entries on the client's workers, and at the end closes the run's children on all of them."""
    from distributed import as_completed

    queue = _Queue(entries)
    given: dict[str, tuple[Any, list[Entry]]] = {}  # key of a task -> its future and its clips
    options = {"run": run, "store": store, "config": config, "expected": versions(), "pure": False}

    def submit(count: int) -> list[Any]:
        blocks = queue.take(count)
        keys = [f"stage-{run}-{queue.taken - place}" for place in range(len(blocks))]
        futures: list[Any] = client.map(stage_isolated, blocks, key=keys, **options) if blocks else []
        given.update((future.key, (future, block)) for future, block in zip(futures, blocks, strict=True))
        return futures

    try:
        running, window, looked = as_completed(submit(WINDOW)), WINDOW, time.monotonic()
        for batch in running.batches():
            done: list[Entry] = []
            for future in batch:
                _, block = given.pop(future.key)
                done += _result(future, block, queue, store, config, run)
            if time.monotonic() - looked > LOOK_SECONDS:  # workers join and leave
                window, looked = max(WINDOW, 2 * sum(client.nthreads().values())), time.monotonic()
            running.update(submit(max(window - len(given), 0)))
            yield done
    finally:
        close_decoders(run)  # first: a local cluster waits for its threads when it closes
        if client.cluster is None and client.status == "running":
            with suppress(Exception):  # a worker that has ended has no children any more
                client.cancel([future for future, _ in given.values()])
                client.run(close_decoders, run)


class _Queue:
    """Clips that no task has yet, in blocks for one task each."""

    def __init__(self, entries: Manifest) -> None:
        size = min(max(len(entries) // LEAST_TASKS, 1), TASK_CLIPS)
        self._new, self._left = entries.blocks(size), deque[list[Entry]]()
        self.taken = 0

    def take(self, count: int) -> list[list[Entry]]:
        """Returns the next blocks, at most `count`; first those that were given back."""
        blocks = [self._left.popleft() for _ in range(min(count, len(self._left)))]
        blocks += itertools.islice(self._new, count - len(blocks))
        self.taken += len(blocks)
        return blocks

    def give_back(self, *blocks: list[Entry]) -> None:
        """Puts back clips that a task has not done."""
        self._left.extend(block for block in blocks if block)


def _result(
    future: Any, block: list[Entry], queue: _Queue, store: str, config: ExtractConfig, run: str
) -> list[Entry]:
    """Returns the entries of a task's clips that are done, and gives the others back to the queue.

    Where the task's workers died, its clips are tried one by one; a clip that was alone in its task fails.
    """
    from distributed import KilledWorker

    try:
        done: list[Entry] = future.result()
    except KilledWorker as error:
        if len(block) == 1:
            return [fail_lost_clip(block[0], LostChild("crashed", str(error)), store, config, run)]
        queue.give_back(*([entry] for entry in block))
        return []
    queue.give_back(block[len(done) :])
    return done
