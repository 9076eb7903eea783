"""Parts of a feature cache, computed here, by one process a GPU, or by the workers of a dask cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from multiprocessing import get_context
from threading import Lock
from typing import Any

import torch

from avel.pipeline.caching.encode import Encoded, PartEncoder, Work, part_encoder
from avel.pipeline.caching.parts import Place
from avel.progress import Progress

Written = tuple[dict[str, Place], dict[str, str]]
"""Where the videos of a part lie, and why others could not be read."""
Sources = Mapping[str, str]

_building = Lock()
_device = ""
"""The device of a worker process; "" where the process was not given one."""


def encode_all(work: Work, parts: Sequence[Sources], scheduler: str | None) -> Iterator[Written]:
    """Computes and writes every part; yields them as they are done."""
    total = sum(len(part) for part in parts)
    with Progress(total, "clips") as progress:
        devices = devices_of(work.config.device)
        if scheduler is not None:
            yield from _on_cluster(work, parts, scheduler, progress)
        elif len(devices) > 1 and len(parts) > 1:
            yield from _on_devices(work, parts, devices, progress)
        else:
            yield from _here(work, parts, devices[0], progress)


def devices_of(asked: str | None) -> list[str]:
    """The devices asked for ("cuda:0,cuda:1"); by default every GPU, or the CPU.

    >>> devices_of("cuda:0, cuda:1")
    ['cuda:0', 'cuda:1']
    """
    if asked:
        return [device.strip() for device in asked.split(",")]
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def _here(work: Work, parts: Sequence[Sources], device: str, progress: Progress) -> Iterator[Written]:
    def advance(done: int, failed: int) -> None:
        progress.advance(done, failed=failed)

    computed = part_encoder(work, device).parts([tuple(part) for part in parts], advance)
    for sources, encoded in zip(parts, computed, strict=True):
        yield _write(work, sources, encoded)


def _write(work: Work, sources: Sources, encoded: Encoded) -> Written:
    if not encoded.video_ids:
        return {}, encoded.failures
    kept = {name: sources[name] for name in encoded.video_ids}
    return work.parts.write(kept, encoded.arrays, encoded.cnn), encoded.failures


def _on_cluster(
    work: Work, parts: Sequence[Sources], scheduler: str, progress: Progress
) -> Iterator[Written]:
    """Each worker loads the encoder once; parts are written by the worker, so it must see the folder."""
    from distributed import as_completed as as_dask_completed

    from avel.pipeline.staging.cluster import cluster

    with cluster(1, scheduler) as client:
        futures = client.map(encode_part, [work] * len(parts), list(parts), pure=False)
        for future in as_dask_completed(futures):
            yield _counted(future.result(), progress)


def _on_devices(
    work: Work, parts: Sequence[Sources], devices: list[str], progress: Progress
) -> Iterator[Written]:
    """One process a device; each takes the next part when it is done with one."""
    spawn = get_context("spawn")
    free = spawn.Queue()
    for device in devices:
        free.put(device)
    with ProcessPoolExecutor(len(devices), spawn, _take_device, (free,)) as pool:
        try:
            for future in as_completed([pool.submit(encode_part, work, part) for part in parts]):
                yield _counted(future.result(), progress)
        finally:
            pool.shutdown(cancel_futures=True)


def _take_device(free: Any) -> None:
    global _device
    _device = free.get()


def _counted(written: Written, progress: Progress) -> Written:
    progress.advance(len(written[0]) + len(written[1]), failed=len(written[1]))
    return written


def encode_part(work: Work, sources: Sources) -> Written:
    """The task of a worker process: one part, computed and written."""
    with _building:  # weights drawn from one process-wide generator: one thread at a time
        encoder = _encoder(_Same(work), _device or devices_of(work.config.device)[0])
    return _write(work, sources, next(encoder.parts([tuple(sources)])))


class _Same:
    """Work compared by what it computes, so that one worker loads one encoder."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._key = (work.store, str(work.parts.folder))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Same) and other._key == self._key


@lru_cache(maxsize=1)
def _encoder(same: _Same, device: str) -> PartEncoder:
    return part_encoder(same.work, device)
