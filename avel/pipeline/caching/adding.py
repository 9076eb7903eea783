"""Adds features of further backbones to a cache that is there, under names."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from avel.config import digest
from avel.errors import ConfigError, MissingPathError, StaleError
from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES, AudioConfig, CacheConfig, VisualConfig
from avel.stores.clips import ClipStore
from avel.stores.feature_adding import Stored, add_features, check_new_names
from avel.stores.features import FeatureCache
from avel.stores.named_features import MAPS_ENDING, NewFeatures
from avel.stores.provenance import NETWORK


def only_named(config: CacheConfig, names: Mapping[str, str]) -> CacheConfig:
    """Returns the config with the smallest network for a modality without name, whose output is unused."""
    if "visual" not in names:
        config = replace(config, visual=VisualConfig(VISUAL_BACKBONES["tiny"].Config(), "random"))
    if "audio" not in names:
        config = replace(config, audio=AudioConfig(AUDIO_BACKBONES["tiny"].Config(), "random"))
    return config


def check_target(
    cache: Path, names: Mapping[str, str], clips: ClipStore, config: CacheConfig, overwrite: bool
) -> None:
    """Checks, before networks run, that features can be added to a cache under these names.

    Raises:
        ConfigError: a name that features cannot have, one for both modalities, or an untrained encoder.
        MissingPathError: there is no cache.
        StoreError: it holds features of that name, and `overwrite` is not given.
        StaleError: a video of it is not staged in `clips`, or is of another file or grid there.
    """
    if config.untrained:
        raise ConfigError("--untrained beside a name", hint="names are for the backbones' own features")
    if len(set(names.values())) < len(names):
        raise ConfigError(f"audio and visual features both named {names['audio']!r}", hint="name them apart")
    if not cache.exists():
        raise MissingPathError(
            f"{cache}: no feature cache to which {next(iter(names.values()))!r} could be added",
            hint="leave out --audio-name and --visual-name to make one",
        )
    target = FeatureCache.open(cache)
    check_new_names(target, names.values(), overwrite)
    sources = clips.staged_entries.by_id("source_sha256")
    _check_clips(target, clips.grid.segments, clips.grid.segment_seconds, sources)


def _check_clips(
    cache: FeatureCache, segments: int, segment_seconds: float, sources: Mapping[str, str]
) -> None:
    """Checks that a store has the grid and the videos of a cache.

    Args:
        sources: video id -> hash of its file, of the videos in the store.

    Raises:
        StaleError: it has another grid, or a video is not there or of another file.
    """
    if (segments, segment_seconds) != (cache.grid_segments, cache.segment_seconds):
        raise StaleError(
            f"{cache.path}: {cache.grid_segments} segments of {cache.segment_seconds:g} s, the store has "
            f"{segments} of {segment_seconds:g} s",
            hint="give the store that the cache was made of",
        )
    clips = cache.sources
    lacking = [
        name
        for name in cache.video_ids
        if name not in sources or clips.get(name, sources[name]) != sources[name]
    ]
    if lacking:
        raise StaleError(
            f"{cache.path}: {len(lacking)} of {len(cache.video_ids)} videos are not in the store, or of "
            f"other files there; the first is {lacking[0]!r}",
            hint="give the store that the cache was made of, or make the cache anew",
        )


def beside(cache: Path, config: CacheConfig) -> Path:
    """Returns where the features are computed first, beside the cache that they are added to."""
    return cache.with_name(f".{cache.stem}.{digest(config)[:8]}.h5")


def add_computed(cache: Path, computed: Path, names: Mapping[str, str], overwrite: bool) -> FeatureCache:
    """Adds the features of the cache `computed` to another one under names, and returns it.

    Raises:
        StaleError: a video of the cache lacks them, or they are of another file or grid.
    """
    target, source = FeatureCache.open(cache), FeatureCache.open(computed)
    _check_clips(target, source.grid_segments, source.segment_seconds, source.sources)
    videos = source.places_of_videos(target.video_ids)
    provenance = source.provenance
    made = {"kind": "backbone", **{key: provenance[key] for key in (*NETWORK, "hardware", "versions")}}
    new: dict[str, NewFeatures] = {}
    if "audio" in names:
        new[names["audio"]] = NewFeatures("audio", Stored(source, "f_a", videos), made)
    if "visual" in names:
        new[names["visual"]] = NewFeatures("visual", Stored(source, "f_v", videos), made)
        if "maps" in source.shapes:
            new[names["visual"] + MAPS_ENDING] = NewFeatures("visual", Stored(source, "maps", videos), made)
    return add_features(cache, new, overwrite=overwrite)
