"""One call of `avel cache-features`: what is wanted, what is there already, and what cannot be read."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from avel.config import settings_of
from avel.errors import StoreError
from avel.pipeline.caching.key import annotations_digest, recipe, refuse_stale
from avel.pipeline.config import BackboneConfig, CacheConfig
from avel.stores.clips import ClipStore
from avel.stores.feature_parts import Row
from avel.stores.features import FeatureCache, cache_command
from avel.stores.named_features import FeatureModality
from avel.values import default_text, split_set

if TYPE_CHECKING:
    from avel.pipeline.caching.encode import Work
    from avel.stores.feature_parts import Parts

B = TypeVar("B", bound=BackboneConfig)


@dataclass(frozen=True)
class Request:
    """Inputs of a call, and its recipe, with which caches are compared.

    Attributes:
        sources: staged video id -> hash of its file.
        reasons: video that is not staged -> why.
        annotations: digest of samples, classes and reasons.
    """

    clips: ClipStore
    cache: Path
    encoder: Path | None
    config: CacheConfig
    recipe: dict[str, Any]
    sources: dict[str, str]
    reasons: dict[str, str]
    annotations: str

    def command(self, *more: str) -> str:
        """Returns this call as a command, with the options in `more`."""
        where, options = self.clips.location.url, options_of(self.config)
        return cache_command(where, self.cache, self.encoder, options, *more)

    def work(self, parts: Parts) -> Work:
        """Returns what a process needs to compute parts, on this machine or another, with absolute paths."""
        from avel.pipeline.caching.encode import Work

        return Work(
            self.clips.location.url,
            None if self.encoder is None else self.encoder.absolute(),
            replace(
                self.config,
                visual=self._placed("visual", self.config.visual),
                audio=self._placed("audio", self.config.audio),
            ),
            self.recipe,
            parts,
        )

    def _placed(self, modality: FeatureModality, chosen: B) -> B:
        """Returns a CNN's config that means the same on another machine.

        Paths of weights and model are absolute. A model on the hub has the commit that the recipe names: each
        machine would otherwise take the revision that is the newest there.
        """
        from avel.pipeline.encoders.hub import ModelConfig

        weights, backbone = Path(chosen.weights), chosen.backbone
        if weights.is_file() or (self.encoder is not None and weights.is_dir()):
            chosen = replace(chosen, weights=str(weights.absolute()))
        recorded = self.recipe["encoder"].get(modality)
        if recorded is not None and isinstance(backbone, ModelConfig):
            settings = {"revision": recorded[backbone.name]["revision"]}
            if Path(backbone.model).is_dir():
                settings["model"] = str(Path(backbone.model).absolute())
            chosen = replace(chosen, backbone=replace(backbone, **settings))
        return chosen


def make_request(
    clips: ClipStore,
    cache: Path,
    encoder: Path | str | None,
    config: CacheConfig,
    overwrite: bool = False,
    scheduler: str | None = None,
) -> Request:
    """Returns the request of a call, for the staged clips of the store's dataset.

    Raises:
        StoreError: none is staged.
    """
    path = None if encoder is None else Path(encoder)
    # The recipe alone has the dtype that auto stands for: `config` stays as given, for `Request.command`
    chosen = replace(config, dtype=_dtype(config, None if overwrite else cache, scheduler))
    # clips stay in the store when their video leaves the dataset
    still_there = clips.staged_entries.is_one_of("video_id", clips.dataset.videos.table["video_id"])
    sources = clips.staged_entries.filter(still_there).by_id("source_sha256")
    if not sources:
        where = clips.location.url
        raise StoreError(
            f"{where}: no staged clip of its dataset",
            hint=f"{shlex.join(['avel', 'inspect', where])} says why",
        )
    reasons = {
        entry.video_id: f"{entry.reason or entry.state}: {entry.detail}".removesuffix(": ")
        for entry in clips.entries.filter(~clips.entries.is_one_of("video_id", clips.staged)).records()
    }
    return Request(
        clips,
        cache,
        path,
        config,
        recipe(clips, path, chosen),
        sources,
        reasons,
        annotations_digest(clips, reasons),
    )


def request_of_one(
    clips: ClipStore,
    cache: Path,
    modality: FeatureModality,
    config: CacheConfig,
    sources: dict[str, str],
    scheduler: str | None,
) -> Request:
    """Returns the request of one backbone's features, which are added to a cache."""
    chosen = replace(config, dtype=_dtype(config, cache, scheduler))
    return Request(clips, cache, None, config, recipe(clips, None, chosen, modality), sources, {}, "")


def _dtype(config: CacheConfig, cache: Path | None, scheduler: str | None) -> Any:
    """Returns the number format asked for; for auto that of the cache if it exists, else the device's."""
    if config.dtype != "auto":
        return config.dtype
    if cache is not None and cache.exists():
        recorded = FeatureCache.open(cache).provenance.get("preprocessing", {}).get("dtype")
        if recorded is not None:
            return recorded
    if scheduler is not None:
        return "float32"  # the workers may have other devices than this machine
    from avel.pipeline.caching.workers import dtype_of_devices  # imports torch

    return dtype_of_devices(config.device)


@dataclass(frozen=True)
class Reusable:
    """Features of an earlier cache that a request can take over.

    Attributes:
        kept: video id -> row of the cache, of the videos whose file is still the same.
        damaged: id of a clip that the cache records as damaged, and that still cannot be read -> why.
    """

    cache: FeatureCache | None
    kept: dict[str, Row]
    damaged: dict[str, str]

    def is_whole(self, request: Request) -> bool:
        """Returns whether the cache already holds all that is asked for."""
        return (
            self.cache is not None
            and len(self.kept) == len(self.cache.video_ids) == len(request.sources) - len(self.damaged)
            and self.cache.typed_provenance.annotations == request.annotations
        )


def find_reusable(request: Request, overwrite: bool) -> Reusable:
    """Opens the cache that is there, if its features can be kept; none where it is to be made again.

    Raises:
        StaleError: it was made otherwise.
    """
    if overwrite or not request.cache.exists():
        return Reusable(None, {}, {})
    cache = FeatureCache.open(request.cache)
    refuse_stale(cache, request.recipe, request.command("--overwrite"))
    made_of = cache.sources
    kept = {
        name: Row(cache.path.absolute(), index)
        for index, name in enumerate(cache.video_ids)
        if name in request.sources and made_of.get(name) == request.sources[name]
    }
    return Reusable(cache, kept, _still_damaged(request, cache))


def _still_damaged(request: Request, cache: FeatureCache) -> dict[str, str]:
    """Returns clips that a cache records as damaged in the store, and that are still unreadable -> why."""
    recorded: Mapping[str, str] = cache.typed_provenance.damaged
    same = [name for name, source in recorded.items() if request.sources.get(name) == source]
    damage_of = {name: _damage(request, name) for name in same}
    return {name: why for name, why in damage_of.items() if why}


def _damage(request: Request, video_id: str) -> str:
    clips, preprocessing = request.clips, request.recipe["preprocessing"]
    try:
        read = clips.waveform if "waveform" in preprocessing else clips.log_mel
        read(video_id)
        clips.frames(video_id, clips.grid.frames_at(preprocessing["frames"]))
    except StoreError as error:
        return f"damaged in the store: {error.message}"
    return ""


def options_of(config: CacheConfig) -> str:
    """Returns what changes the numbers and is not the default, as options of the command.

    >>> options_of(CacheConfig(dtype="bfloat16", keep_maps=True, batch_size=2))
    '--keep-maps --dtype bfloat16'
    """
    flags = {setting.name for setting in settings_of(CacheConfig)}
    words = []
    for setting in settings_of(config):
        value, flag = setting.of(config), f"--{setting.name.replace('_', '-')}"
        if not setting.in_key or value == setting.default:
            continue
        if setting.name not in flags:  # a backbone's own
            words.append(f"--set {shlex.quote(f'{setting.name}={default_text(value)}')}")
        else:
            words.append(flag if value is True else f"{flag} {shlex.quote(default_text(value))}")
    return " ".join(words)


def parse_options(text: str) -> dict[str, Any]:
    """Returns name -> value of what `options_of` wrote.

    >>> parse_options("--keep-maps --dtype bfloat16 --set window_seconds=2.0")
    {'keep_maps': True, 'dtype': 'bfloat16', 'window_seconds': '2.0'}
    """
    flags = {setting.name for setting in settings_of(CacheConfig) if setting.value_type is bool}
    words, options = iter(shlex.split(text)), dict[str, Any]()
    for word in words:
        name = word.removeprefix("--").replace("-", "_")
        if name == "set":
            name, value = split_set(next(words))
            options[name] = value
        else:
            options[name] = True if name in flags else next(words)
    return options
