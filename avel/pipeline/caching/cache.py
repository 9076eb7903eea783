"""`avel cache-features`: the frozen encoders once over every staged clip, into one HDF5 file.

Features are computed in parts of 64 videos, each whole or absent, and merged once. Whatever interrupts the
work, no finished part is computed again; whatever changes, a file is never taken for what it is not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avel.config import as_dict, resolve
from avel.errors import StoreError
from avel.grid import Grid
from avel.pipeline.caching.key import annotations_digest, recipe, refuse_stale, refuse_vectors
from avel.pipeline.caching.parts import PART_VIDEOS, Gathered, Parts, Place, parts_folder
from avel.pipeline.config import CacheConfig
from avel.stores.clips import ClipStore
from avel.stores.feature_rows import rows_of_videos
from avel.stores.features import FeatureCache, write_features
from avel.stores.files import only_one
from avel.stores.runs import versions


@dataclass(frozen=True)
class CacheSummary:
    """What a call did. `encoded` + `kept` + `resumed` are all videos of the cache.

    Attributes:
        rows: annotation rows whose video is in the cache.
        missing: annotation rows without features.
        encoded: videos computed in this call.
        kept: videos whose features were in the cache already.
        resumed: videos whose features an interrupted call had left in finished parts.
        failed: videos that the store lists as staged but cannot read: name -> why.
        arrays: shape of each array.
        seconds: wall time.
    """

    cache: str
    digest: str
    videos: int
    rows: int
    missing: int
    encoded: int
    kept: int
    resumed: int
    failed: dict[str, str]
    arrays: dict[str, tuple[int, ...]]
    seconds: float


@dataclass(frozen=True)
class _Task:
    """One call's inputs, compared and ready: what is wanted, and what is there already."""

    clips: ClipStore
    cache: Path
    encoder: Path | None
    config: CacheConfig
    recipe: dict[str, Any]
    sources: dict[str, str]
    reasons: dict[str, str]
    annotations: str
    cnn_from: Path | None


def cache_features(
    store: Path | str,
    cache: Path | str,
    config: CacheConfig | None = None,
    *,
    encoder: Path | str | None = None,
    overwrite: bool = False,
    scheduler: str | None = None,
    cnn_from: Path | str | None = None,
    **options: Any,
) -> CacheSummary:
    """Features f_a, f_v (V, T, D) of every staged clip, with labels (R, T), splits and provenance.

    A second call with the same inputs does nothing; with new clips it computes only those.

    Args:
        store: what `extract` made.
        cache: the HDF5 file to make or bring up to date.
        config: how to encode; `options` are single fields of it, which win.
        encoder: run of `pretrain`; without one the backbones' own vectors are f_a and f_v.
        overwrite: make the cache anew, although one made otherwise is there.
        scheduler: address of a dask scheduler whose workers share the parts.
        cnn_from: a cache of the same clips with the CNN vectors of the same CNNs (`keep_cnn`): they are taken
            from there, and only the Bi-LSTMs run. For encoders whose CNNs were frozen.

    Raises:
        StaleError: the cache there was made by another encoder, from other staging, or otherwise.
        StoreError: nothing is staged.
        BusyError: another process is making this cache.
        WeightsError: weights that are missing or do not fit.
    """
    began = time.monotonic()
    task = _prepare(ClipStore.open(store), Path(cache), encoder, _configured(config, options), cnn_from)
    found = _usable(task, overwrite)
    kept = {} if found is None else _kept_places(task, found)
    if found is not None and _is_current(task, found, kept):
        return _summary(task, found, 0, len(kept), 0, {}, began)
    if task.cnn_from is not None:
        refuse_vectors(task.cnn_from, task.recipe, task.sources)
    parts = Parts.of(task.cache, task.recipe)
    with only_one(parts_folder(task.cache), "feature cache"):
        todo = {name: source for name, source in task.sources.items() if name not in kept}
        resumed = parts.finished(todo)
        names = [name for name in todo if name not in resumed]
        encoded, failed = _encode(task, parts, names, scheduler)
        cnn = found.provenance.get("cnn") if found is not None and kept else parts.cnn()
        _merge(task, kept | resumed | encoded, failed, cnn)
        parts.remove()
    opened = FeatureCache.open(task.cache)
    return _summary(task, opened, len(encoded), len(kept), len(resumed), failed, began)


def _configured(config: CacheConfig | None, options: dict[str, Any]) -> CacheConfig:
    return resolve(CacheConfig, "cache-features", preset=as_dict(config or CacheConfig()), options=options)


def _prepare(
    clips: ClipStore,
    cache: Path,
    encoder: Path | str | None,
    config: CacheConfig,
    cnn_from: Path | str | None,
) -> _Task:
    path = None if encoder is None else Path(encoder)
    sources = {name: clips.entries[name].source_sha256 for name in clips.staged}
    if not sources:
        where = clips.location.url
        raise StoreError(f"{where}: no staged clip", hint=f"avel inspect {where} says why")
    reasons = {
        name: f"{entry.reason or entry.state}: {entry.detail}".removesuffix(": ")
        for name, entry in clips.entries.items()
        if name not in sources
    }
    return _Task(
        clips,
        cache,
        path,
        config,
        recipe(clips, path, config),
        sources,
        reasons,
        annotations_digest(clips, reasons),
        None if cnn_from is None else Path(cnn_from),
    )


def _usable(task: _Task, overwrite: bool) -> FeatureCache | None:
    """The cache that is there, if its features can be kept; None where there is none or it is not wanted."""
    if overwrite or not task.cache.exists():
        return None
    found = FeatureCache.open(task.cache)
    command = f"avel cache-features {task.clips.location.url} {task.cache}"
    command += f" --encoder {task.encoder}" if task.encoder else ""
    refuse_stale(task.cache, found.provenance, task.recipe, command)
    return found


def _kept_places(task: _Task, found: FeatureCache) -> dict[str, Place]:
    """Where the cache holds the features of a source that is still the same."""
    made_of = found.provenance["clips"]
    return {
        name: Place(found.path, index)
        for index, name in enumerate(found.video_ids)
        if name in task.sources and made_of.get(name) == task.sources[name]
    }


def _is_current(task: _Task, found: FeatureCache, kept: dict[str, Place]) -> bool:
    whole = len(kept) == len(task.sources) == len(found.video_ids)
    return whole and found.provenance["annotations"] == task.annotations


def _encode(
    task: _Task, parts: Parts, names: list[str], scheduler: str | None
) -> tuple[dict[str, Place], dict[str, str]]:
    """Computes and writes the parts of `names`: where each video lies, and which could not be read."""
    if not names:
        return {}, {}
    from avel.pipeline.caching.encode import Work
    from avel.pipeline.caching.workers import encode_all

    work = Work(task.clips.location.url, task.encoder, task.config, task.recipe, parts, task.cnn_from)
    chunks = [names[start : start + PART_VIDEOS] for start in range(0, len(names), PART_VIDEOS)]
    sources = [{name: task.sources[name] for name in chunk} for chunk in chunks]
    places: dict[str, Place] = {}
    failed: dict[str, str] = {}
    for written, failures in encode_all(work, sources, scheduler):
        places |= written
        failed |= failures
    return places, failed


def _merge(task: _Task, places: dict[str, Place], failed: dict[str, str], cnn: str | None) -> None:
    """One file of all videos in the store's order."""
    names = tuple(name for name in task.sources if name in places)
    if not names:
        raise StoreError(f"{task.clips.location.url}: no clip can be read: {next(iter(failed.values()))}")
    clips = task.clips
    rows, missing = rows_of_videos(clips.dataset, clips.grid, names, task.reasons | failed)
    ordered = [places[name] for name in names]
    write_features(
        task.cache,
        video_ids=names,
        categories=clips.dataset.categories,
        rows=rows,
        arrays={name: Gathered(name, ordered) for name in task.recipe["arrays"]},
        missing=missing,
        provenance=_provenance(task, names) | {"cnn": cnn},
    )


def _provenance(task: _Task, names: tuple[str, ...]) -> dict[str, Any]:
    grid: Grid = task.clips.grid
    return task.recipe | {
        "annotations": task.annotations,
        "clips": {name: task.sources[name] for name in names},
        "grid": vars(grid),
        "versions": versions(),
        "store": str(task.clips.location.url),
        "run": None if task.encoder is None else str(task.encoder.resolve()),
    }


def _summary(
    task: _Task,
    cache: FeatureCache,
    encoded: int,
    kept: int,
    resumed: int,
    failed: dict[str, str],
    began: float,
) -> CacheSummary:
    return CacheSummary(
        cache=str(task.cache),
        digest=cache.digest,
        videos=len(cache.video_ids),
        rows=len(cache.rows.row),
        missing=len(cache.missing),
        encoded=encoded,
        kept=kept,
        resumed=resumed,
        failed=failed,
        arrays=cache.shapes,
        seconds=time.monotonic() - began,
    )
