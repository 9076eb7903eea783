"""`avel cache-features`: runs the frozen encoders once over every staged clip, into one HDF5 file.

Features are computed in parts of 64 videos, each whole or absent, and merged at the end. After an
interruption no finished part is computed again. Features of other inputs or settings are never reused.
"""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.config import resolve
from avel.errors import ConfigError, StaleError, StoreError
from avel.pipeline.caching.adding import check_target, named_features, refuse_replaced
from avel.pipeline.caching.key import pretraining_seed
from avel.pipeline.caching.request import (
    Request,
    Reusable,
    find_reusable,
    make_request,
    options_of,
    request_of_one,
)
from avel.pipeline.config import CacheConfig
from avel.pipeline.encoders.header import read_temporal
from avel.stores.cache_lock import lock_cache
from avel.stores.clips import ClipStore
from avel.stores.feature_adding import add_features, note_dropped, stored_features
from avel.stores.feature_parts import PART_VIDEOS, Gathered, Parts, Row
from avel.stores.feature_samples import samples_of_videos
from avel.stores.features import FeatureCache, write_features
from avel.stores.files import check_can_write
from avel.stores.kinds import kind_of
from avel.stores.named_features import FeatureModality, NewFeatures, which_drops
from avel.stores.provenance import CacheProvenance
from avel.stores.runs import library_versions
from avel.text import duration, first_of, listed, plural, table


@dataclass(frozen=True)
class CacheSummary:
    """Results of a call. `encoded` + `kept` + `resumed` are all videos of the cache.

    Attributes:
        samples: samples whose video is in the cache.
        missing: samples and videos without features.
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
    samples: int
    missing: int
    encoded: int
    kept: int
    resumed: int
    failed: dict[str, str]
    arrays: dict[str, tuple[int, ...]]
    seconds: float

    def headline(self) -> str:
        """Returns the result in one line."""
        contents = f"{listed(self.arrays)} of {plural(self.samples, 'sample')}"
        lost = f", {self.missing:,} missing" if self.missing else ", none missing"
        broken = f", {len(self.failed):,} unreadable" if self.failed else ""
        now = f"{plural(self.encoded, 'clip')} encoded now, in {duration(self.seconds)}"
        return f"{self.cache}: {contents} in {plural(self.videos, 'clip')}{lost}{broken}; {now}"

    def lines(self) -> list[str]:
        """Returns the clips that could not be read as a table."""
        rows = list(self.failed.items())
        return [*table(("unreadable clip", "why"), rows), ""] if rows else []


def cache_features(
    store: Path | str,
    cache: Path | str,
    config: CacheConfig | None = None,
    *,
    encoder: Path | str | None = None,
    overwrite: bool = False,
    scheduler: str | None = None,
    audio_name: str | None = None,
    visual_name: str | None = None,
    **options: Any,
) -> CacheSummary:
    """Writes features f_a, f_v (V, T, D) of every staged clip, with samples, splits and provenance.

    A second call with the same inputs does nothing; with new clips it computes only those. With `audio_name`
    or `visual_name` it adds features of backbones, each run alone, to a cache that is there.

    Args:
        store: what `extract` made; or a feature cache with the vectors that `encoder` reads, on which only
            its Bi-LSTMs run.
        cache: the HDF5 file to make or bring up to date.
        config: how to encode; `options` are single fields of it, which win.
        encoder: run of `pretrain`; without one the backbones' own vectors are f_a and f_v.
        overwrite: make the cache again, although one is there, and drop features that were added to the old
            one under names. With a name: replace the features of that name.
        scheduler: address of a dask scheduler whose workers share the parts.
        audio_name: adds the audio backbone's vectors to `cache` under this name.
        visual_name: adds the visual backbone's vectors, and with `keep_maps` its maps as NAME.maps.

    Raises:
        StaleError: the cache there was made by another encoder, from other staging, or otherwise.
        StoreError: nothing is staged.
        BusyError: another process is making this cache.
        WeightsError: weights that are missing or do not fit.
    """
    began = time.monotonic()
    config = resolve(CacheConfig, "cache-features", base=config, options=options)
    check_can_write(Path(cache))
    asked: dict[FeatureModality, str | None] = {"audio": audio_name, "visual": visual_name}
    if names := {modality: name for modality, name in asked.items() if name is not None}:
        if encoder is not None:
            raise ConfigError(
                "--encoder beside --audio-name or --visual-name",
                hint="leave it out: named features are the backbones' own",
            )
        return _add(ClipStore.open(store), Path(cache), config, names, overwrite, scheduler)
    if overwrite:
        note_dropped(Path(cache))
    if kind_of(store) == "cache":
        if scheduler is not None:
            raise ConfigError("--scheduler beside a feature cache, on which no CNN runs", hint="leave it out")
        from avel.pipeline.caching.from_vectors import encode_vectors  # imports torch

        run = None if encoder is None else Path(encoder)
        with lock_cache(Path(cache)):
            new = encode_vectors(Path(store), Path(cache), run, config, overwrite)
        return _summary(new, began, encoded=len(new))
    clips = ClipStore.open(store)
    request = make_request(clips, Path(cache), encoder, config, overwrite, scheduler)
    old = find_reusable(request, overwrite)
    if old.is_whole(request):
        assert old.cache is not None
        return _summary(old.cache, began, kept=len(old.kept), failed=old.damaged)
    with lock_cache(request.cache):
        old = find_reusable(request, overwrite)  # another call may have ended before this one got the lock
        parts = Parts.of(request.cache.absolute(), request.recipe)
        done = {*old.kept, *old.damaged}
        todo = {name: source for name, source in request.sources.items() if name not in done}
        _refuse_named(request, old, todo)
        keeps_cnn = "cnn_a" in request.recipe["arrays"]
        # Read it before the features are computed: meanwhile the encoder may be trained again
        temporal = read_temporal(request.encoder) if request.encoder and keeps_cnn else None
        resumed = parts.finished(todo)
        encoded, failed = _encode(request, parts, [name for name in todo if name not in resumed], scheduler)
        _merge(request, old, parts, resumed | encoded, old.damaged | failed, temporal)
        parts.remove()
    counts = {"encoded": len(encoded), "kept": len(old.kept), "resumed": len(resumed)}
    return _summary(FeatureCache.open(request.cache), began, **counts, failed=old.damaged | failed)


def _add(
    clips: ClipStore,
    cache: Path,
    config: CacheConfig,
    names: Mapping[FeatureModality, str],
    overwrite: bool,
    scheduler: str | None,
) -> CacheSummary:
    """Computes features of each backbone alone, for all videos of a cache, and adds them to it.

    Raises:
        StaleError: the store is not of the cache's videos, one of them is damaged there, or the cache was
            replaced meanwhile.
    """
    began = time.monotonic()
    target, sources = check_target(cache, names, clips, config, overwrite)
    requests = [request_of_one(clips, cache, modality, config, sources, scheduler) for modality in names]
    all_parts = [Parts.of(cache.absolute(), request.recipe) for request in requests]
    new: dict[str, NewFeatures] = {}
    encoded: set[str] = set()
    with lock_cache(cache):
        for (modality, name), request, parts in zip(names.items(), requests, all_parts, strict=True):
            rows = parts.finished(sources)
            now, failed = _encode(request, parts, [each for each in sources if each not in rows], scheduler)
            if failed:
                first, why = next(iter(failed.items()))
                look = shlex.join(["avel", "inspect", clips.location.url, "--verify"])
                raise StaleError(
                    f"{cache}: {len(failed)} of {len(sources)} videos cannot be read in the store; the first "
                    f"is {first!r}: {why}",
                    hint=f"{look} names them, and what fixes them",
                )
            made = request.recipe | _made_with(cache, parts, "the same command computes the features again")
            new |= named_features(name, modality, [(rows | now)[each] for each in sources], made)
            encoded |= {*now}
        refuse_replaced(target)
        added = add_features(cache, new, overwrite=overwrite)
        for parts in all_parts:
            parts.remove()
    return _summary(added, began, encoded=len(encoded), resumed=len(sources) - len(encoded))


def _refuse_named(request: Request, old: Reusable, todo: Mapping[str, str]) -> None:
    """Refuses to add new or changed clips to a cache with named features, which these clips lack.

    Raises:
        StaleError: it holds such features.
    """
    if old.cache is not None and old.cache.named and todo:
        raise StaleError(
            f"{request.cache}: holds {', '.join(old.cache.named)} of {plural(len(old.cache), 'video')}, and "
            f"not of clips that are new or have changed: {first_of(todo)}",
            hint=f"{request.command('--overwrite')} makes it again{which_drops(old.cache.named)}",
        )


def _encode(
    request: Request, parts: Parts, names: list[str], scheduler: str | None
) -> tuple[dict[str, Row], dict[str, str]]:
    """Computes and writes the parts of `names`; returns where each video lies, and why others failed."""
    if not names:
        return {}, {}
    from avel.pipeline.caching.workers import encode_all

    work = request.work(parts)
    chunks = [names[start : start + PART_VIDEOS] for start in range(0, len(names), PART_VIDEOS)]
    sources = [{name: request.sources[name] for name in chunk} for chunk in chunks]
    places: dict[str, Row] = {}
    failed: dict[str, str] = {}
    for written, failures in encode_all(work, sources, scheduler):
        places |= written
        failed |= failures
    return places, failed


def _merge(
    request: Request,
    old: Reusable,
    parts: Parts,
    new_rows: dict[str, Row],
    failed: dict[str, str],
    temporal: Mapping[str, NDArray[np.float32]] | None,
) -> None:
    """Writes one file of all videos in the store's order."""
    places = old.kept | new_rows
    names = tuple(name for name in request.sources if name in places)
    if not names:
        where = request.clips.location.url
        look = shlex.join(["avel", "inspect", where, "--verify"])
        raise StoreError(
            f"{where}: no clip can be read: {next(iter(failed.values()))}",
            hint=f"{look} names them, and what fixes them",
        )
    clips = request.clips
    samples, missing = samples_of_videos(clips.dataset, names, request.reasons | failed)
    ordered = [places[name] for name in names]
    before, named = None, {}
    if old.cache is not None:
        before = old.cache.typed_provenance if old.kept else None
        named = stored_features(old.cache, [old.kept[name] for name in names if name in old.kept])
    again = f"{request.command('--overwrite')} makes it again{which_drops(named)}"
    made_with = _made_with(request.cache, parts, again, before)
    write_features(
        request.cache,
        video_ids=names,
        categories=clips.dataset.categories,
        samples=samples,
        arrays={name: Gathered(name, ordered) for name in request.recipe["arrays"]},
        segment_seconds=clips.grid.segment_seconds,
        missing=missing,
        sources=request.sources,
        lengths=None if clips.lengths is None else np.array([clips.lengths[name] for name in names]),
        provenance=made_with | _provenance(request, made_with["versions"], before, failed),
        named=named,
        temporal=temporal,
    )


def _made_with(cache: Path, parts: Parts, hint: str, before: CacheProvenance | None = None) -> dict[str, Any]:
    """Returns digest of the CNNs, devices and versions behind all features that are merged.

    The recipe has published weights by name only, and later others may be published under the same name.

    Args:
        before: provenance of the features that are kept, if any.

    Raises:
        StaleError: the CNNs are not the same for all. The parts are removed, so that the command of the hint
            does not fail for the same reason.
    """
    cnns, devices = parts.made_with()
    if before is not None:
        cnns, devices = cnns | {str(before.cnn)}, devices | {*before.hardware}
    if len(cnns) > 1:
        parts.remove()
        raise StaleError(
            f"{cache}: the CNNs have other weights now than when it was begun: {' and '.join(sorted(cnns))}",
            hint=hint,
        )
    return {"cnn": next(iter(cnns), None), "hardware": sorted(devices), "versions": library_versions()}


def _provenance(
    request: Request, used: dict[str, str], before: CacheProvenance | None, failed: dict[str, str]
) -> dict[str, Any]:
    earlier = [*before.earlier_versions, before.versions] if before else []
    return request.recipe | {
        "annotations": request.annotations,
        "damaged": {name: source for name, source in request.sources.items() if name in failed},
        "grid": vars(request.clips.grid),
        "earlier_versions": [
            item for place, item in enumerate(earlier) if item not in (used, *earlier[:place])
        ],
        "pretraining_seed": pretraining_seed(request.encoder),
        "store": str(request.clips.location.url),
        "run": None if request.encoder is None else str(request.encoder.resolve()),
        "options": options_of(request.config),
    }


def _summary(
    cache: FeatureCache,
    began: float,
    *,
    encoded: int = 0,
    kept: int = 0,
    resumed: int = 0,
    failed: Mapping[str, str] | None = None,
) -> CacheSummary:
    return CacheSummary(
        cache=str(cache.path),
        digest=cache.digest,
        videos=len(cache.video_ids),
        samples=len(cache.samples),
        missing=len(cache.missing),
        encoded=encoded,
        kept=kept,
        resumed=resumed,
        failed=dict(failed or {}),
        arrays=cache.shapes,
        seconds=time.monotonic() - began,
    )
