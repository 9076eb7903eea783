"""Parts of a feature cache, computed in this process or by the workers of a dask cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any

from avel.pipeline.cache_parts import Place
from avel.pipeline.encode import Encoded, PartEncoder, Work
from avel.progress import Progress

Written = tuple[dict[str, Place], dict[str, str]]
"""Where the videos of a part lie, and why others could not be read."""
Sources = Mapping[str, str]

_building = Lock()


def encode_all(work: Work, parts: Sequence[Sources], scheduler: str | None) -> Iterator[Written]:
    """Computes and writes every part; yields them as they are done."""
    total = sum(len(part) for part in parts)
    with Progress(total, "clips") as progress:
        if scheduler is None:
            yield from _here(work, parts, progress)
        else:
            yield from _on_cluster(work, parts, scheduler, progress)


def _here(work: Work, parts: Sequence[Sources], progress: Progress) -> Iterator[Written]:
    def advance(done: int, failed: int) -> None:
        progress.advance(done, failed=failed)

    computed = PartEncoder(work).parts([tuple(part) for part in parts], advance)
    for sources, encoded in zip(parts, computed, strict=True):
        yield _write(work, sources, encoded)


def _write(work: Work, sources: Sources, encoded: Encoded) -> Written:
    if not encoded.video_ids:
        return {}, encoded.failures
    kept = {name: sources[name] for name in encoded.video_ids}
    return work.parts.write(kept, encoded.arrays), encoded.failures


def _on_cluster(
    work: Work, parts: Sequence[Sources], scheduler: str, progress: Progress
) -> Iterator[Written]:
    """Each worker loads the encoder once; parts are written by the worker, so it must see the folder."""
    from distributed import as_completed

    from avel.pipeline.workers import cluster

    with cluster(1, scheduler) as client:
        futures = client.map(encode_part, [work] * len(parts), list(parts), pure=False)
        for future in as_completed(futures):
            written: Written = future.result()
            progress.advance(len(written[0]) + len(written[1]), failed=len(written[1]))
            yield written


def encode_part(work: Work, sources: Sources) -> Written:
    """The task of a dask worker: one part, computed and written."""
    with _building:  # weights drawn from one process-wide generator: one thread at a time
        encoder = _encoder(_Same(work))
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
def _encoder(same: _Same) -> PartEncoder:
    return PartEncoder(same.work)
