"""Adds features of further backbones to a cache that is there, under names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avel.errors import ConfigError, StaleError
from avel.pipeline.config import CacheConfig
from avel.progress import note
from avel.stores.clips import ClipStore
from avel.stores.feature_adding import open_target
from avel.stores.feature_parts import Gathered, Row
from avel.stores.features import FeatureCache
from avel.stores.named_features import MAPS, MAPS_ENDING, FeatureModality, NewFeatures
from avel.stores.provenance import NETWORK

OF_FRAMES = ("visual", "frames_per_segment", "crop_size", "keep_maps")
"""Settings, and groups of settings, of visual features alone."""


def check_target(
    cache: Path, names: Mapping[FeatureModality, str], clips: ClipStore, config: CacheConfig, overwrite: bool
) -> tuple[FeatureCache, dict[str, str]]:
    """Checks, before networks run, that features can be added to a cache under these names.

    Notes settings without effect. Returns the cache, and for each of its videos the hash of the file.

    Raises:
        ConfigError: a name that features cannot have, the same name twice, or an untrained encoder.
        MissingPathError: there is no cache.
        StoreError: it holds features of that name, and `overwrite` is not given.
        StaleError: the store has another grid; or a video is not staged there, or is shorter or of another
            file.
    """
    if config.untrained:
        raise ConfigError(
            "--untrained beside --audio-name or --visual-name",
            hint="leave it out: named features are the backbones' own",
        )
    target, grid = open_target(cache, names.values(), overwrite), clips.grid
    idle = [*({"audio"} - {*names}), *(() if "visual" in names else OF_FRAMES), "keep_cnn"]
    if changed := config.changed(idle):
        note(f"without effect on the features that are named: {changed}")
    if (grid.segments, grid.segment_seconds) != (target.grid_segments, target.segment_seconds):
        raise StaleError(
            f"{cache}: {target.grid_segments} segments of {target.segment_seconds:g} s, the store has "
            f"{grid.segments} of {grid.segment_seconds:g} s",
            hint="give the store that the cache was made of",
        )
    staged, made_of = clips.staged_entries.by_id("source_sha256"), target.sources
    lacking = [
        video_id
        for video_id, end in zip(target.video_ids, target.lengths.tolist(), strict=True)
        if video_id not in staged
        or made_of.get(video_id, staged[video_id]) != staged[video_id]
        or (clips.lengths is not None and clips.lengths[video_id] < end)
    ]
    if lacking:
        raise StaleError(
            f"{cache}: {len(lacking)} of {len(target)} videos are not in the store, or have other files or "
            f"fewer segments there; the first is {lacking[0]!r}",
            hint="give the store that the cache was made of, or make the cache again",
        )
    return target, {video_id: staged[video_id] for video_id in target.video_ids}


def refuse_replaced(target: FeatureCache) -> None:
    """Refuses a cache that holds other videos, or another grid, than when `check_target` opened it.

    Raises:
        StaleError: it does.
    """
    before, now = (
        (each.video_ids, each.sources, each.grid_segments, each.segment_seconds, each.lengths.tolist())
        for each in (target, FeatureCache.open(target.path))
    )
    if now != before:
        raise StaleError(
            f"{target.path}: was replaced meanwhile, by a cache of other videos or of another grid",
            hint="give the command again",
        )


def named_features(
    name: str, modality: FeatureModality, rows: Sequence[Row], made: Mapping[str, Any]
) -> dict[str, NewFeatures]:
    """Returns the vectors of one backbone under a name, and its maps, if it has any, as NAME.maps.

    Args:
        rows: places of the cache's videos in finished parts.
        made: what computed them, in the form of a cache's provenance, but of this backbone alone.
    """
    about = {"kind": "backbone", **{key: made[key] for key in (*NETWORK, "hardware", "versions")}}
    names = {"f_a": name, "f_v": name, MAPS: name + MAPS_ENDING}
    return {names[array]: NewFeatures(modality, Gathered(array, rows), about) for array in made["arrays"]}
