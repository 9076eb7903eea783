"""Computes parts of a feature cache here, in one process a GPU, or on the workers of a dask cluster."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout

from avel.device import choose_device, choose_dtype, explain_full_memory, note_slow_bfloat16, tf32
from avel.errors import AvelError
from avel.pipeline.caching.encode import Encoded, PartEncoder, Work
from avel.pipeline.caching.forecast import check_batch_fits, note_long_encoding
from avel.progress import Progress
from avel.stores.feature_parts import Row

if TYPE_CHECKING:
    from avel.pipeline.staging.cluster import Versions

Written = tuple[dict[str, Row], dict[str, str]]
"""Places of the videos of a part, and reasons why others could not be read."""
Sources = Mapping[str, str]

SMALLER_BATCH = "name a smaller --batch-size; finished parts are kept"
_computing = Lock()
"""One thread of a process at a time: drawing weights and tracing a CNN change what all threads share, and one
forward takes all cores anyway."""
_device = ""
"""Device that a process of `_on_devices` was given."""
_dealing = Lock()
_places: dict[str, tuple[int, FileLock]] = {}
"""Address of a dask worker of this process -> its place on this machine, and the lock that keeps it."""


def encode_all(work: Work, parts: Sequence[Sources], scheduler: str | None) -> Iterator[Written]:
    """Computes and writes every part; yields them as they are done."""
    total = sum(len(part) for part in parts)
    with Progress(total, "clips", of="encoding") as progress:
        if scheduler is not None:  # before `devices_of`: its workers may have devices that this machine lacks
            yield from _on_cluster(work, parts, scheduler, progress)
            return
        devices = devices_of(work.config.device)
        note_slow_bfloat16(torch.device(devices[0]), work.recipe["preprocessing"]["dtype"])
        if len(devices) > 1 and len(parts) > 1:
            yield from _on_devices(work, parts, devices, progress)
        else:
            yield from _here(work, parts, devices[0], progress)


def devices_of(asked: str) -> list[str]:
    """Returns the devices asked for ("cuda:0,cuda:1"); for "auto" every GPU, or the CPU.

    Raises:
        ConfigError: one of them is not a device, or is not there.

    >>> devices_of("cpu, cpu")
    ['cpu', 'cpu']
    """
    if asked == "auto":
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
    return [str(choose_device(name.strip())) for name in asked.split(",")]


def dtype_of_devices(asked: str) -> str:
    """Returns bfloat16 where all devices asked for are GPUs that compute it, else float32."""
    dtypes = {choose_dtype("auto", torch.device(name)) for name in devices_of(asked)}
    return dtypes.pop() if len(dtypes) == 1 else "float32"


def _here(work: Work, parts: Sequence[Sources], device: str, progress: Progress) -> Iterator[Written]:
    place = torch.device(device)
    with tf32(place), explain_full_memory(SMALLER_BATCH):
        encoder = PartEncoder(work, device)
        if device == "cpu":
            names = [name for part in parts for name in part]
            check_batch_fits(encoder, names)
            note_long_encoding(encoder, names)
        computed = encoder.parts([tuple(part) for part in parts], progress)
        for sources, encoded in zip(parts, computed, strict=True):
            yield _write(work, sources, encoded)


def _write(work: Work, sources: Sources, encoded: Encoded) -> Written:
    if not encoded.video_ids:
        return {}, encoded.failures
    kept = {name: sources[name] for name in encoded.video_ids}
    places = work.parts.write(kept, encoded.arrays, cnn=encoded.cnn, hardware=encoded.hardware)
    return places, encoded.failures


def _on_cluster(
    work: Work, parts: Sequence[Sources], scheduler: str, progress: Progress
) -> Iterator[Written]:
    """Computes parts on a cluster; each worker loads the encoder once and writes into the shared folder."""
    from distributed import KilledWorker
    from distributed import as_completed as as_dask_completed

    from avel.pipeline.staging.cluster import await_worker, cluster, versions, watching

    with cluster(1, scheduler) as client, watching(client):
        await_worker(client)
        same = [work] * len(parts)
        futures = client.map(_encode_on_worker, same, list(parts), expected=versions(), pure=False)
        try:
            for future in as_dask_completed(futures):
                yield _counted(future.result(), progress)
        except KilledWorker as error:
            raise AvelError(
                f"the workers of {scheduler} died: {error}",
                hint="look at their logs; a smaller --batch-size takes less memory; the same command goes on",
            ) from None


def _encode_on_worker(work: Work, sources: Sources, expected: Versions) -> Written:
    """Runs `encode_part` in a dask worker."""
    from distributed import get_worker

    from avel.pipeline.staging.cluster import check_versions

    check_versions(expected)
    devices = devices_of(work.config.device)
    return encode_part(work, sources, devices[place_of(get_worker().address) % len(devices)])


def place_of(worker: str) -> int:
    """Returns a dask worker's place among those of its machine, by which the machine's devices are dealt out.

    It is the first that no running worker holds, so one that joins late takes a free device.
    """
    with _dealing:
        places = itertools.count()
        while worker not in _places:
            place = next(places)
            lock = FileLock(Path(tempfile.gettempdir()) / f"avel-worker-{os.getuid()}-{place}.lock")
            with suppress(Timeout):
                lock.acquire(blocking=False)
                _places[worker] = place, lock
        return _places[worker][0]


def _on_devices(
    work: Work, parts: Sequence[Sources], devices: list[str], progress: Progress
) -> Iterator[Written]:
    """Computes parts in one process a device; each takes the next part when it is done with one."""
    spawn = get_context("spawn")
    free = spawn.Queue()
    for device in devices:
        free.put(device)
    with ProcessPoolExecutor(len(devices), spawn, _take_device, (free,)) as pool:
        try:
            for future in as_completed([pool.submit(_encode_on_device, work, part) for part in parts]):
                yield _counted(future.result(), progress)
        except BrokenProcessPool:
            raise AvelError(
                "a process that encodes clips was killed, perhaps because the machine's memory was full",
                hint=f"the same command goes on; if a process is killed again, {SMALLER_BATCH}",
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _take_device(free: Any) -> None:
    global _device
    _device = free.get()


def _encode_on_device(work: Work, sources: Sources) -> Written:
    """Runs `encode_part` in a process that was given a device."""
    return encode_part(work, sources, _device)


def _counted(written: Written, progress: Progress) -> Written:
    progress.advance(len(written[0]) + len(written[1]), failed=len(written[1]))
    return written


def encode_part(work: Work, sources: Sources, device: str) -> Written:
    """Computes and writes one part, in a worker process."""
    with _computing, tf32(torch.device(device)), explain_full_memory(SMALLER_BATCH):
        encoded = next(_encoder(work, device).parts([tuple(sources)]))
    return _write(work, sources, encoded)


@lru_cache(maxsize=1)
def _encoder(work: Work, device: str) -> PartEncoder:
    return PartEncoder(work, device)
