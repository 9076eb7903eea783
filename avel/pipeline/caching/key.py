"""Finds what the numbers in a feature cache depend on. Reads encoder files without importing torch.

A second `avel cache-features` compares this with what the file says of itself, so it must be quick.
"""

import json
from collections.abc import Mapping
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from avel.config import as_dict, settings_of
from avel.digests import digest_of
from avel.errors import ConfigError, StaleError, StoreError
from avel.grid import evenly_spaced
from avel.pipeline.config import BACKBONES, RANDOM, BackboneConfig, CacheConfig, PretrainConfig
from avel.pipeline.encoders.header import ANOTHER_RUN, encoder_file, is_of_folder, read_spec, without_place
from avel.registry import Registry
from avel.stores.clips import ClipStore
from avel.stores.features import FeatureCache
from avel.stores.named_features import FeatureModality, which_drops
from avel.stores.provenance import differing_entries
from avel.stores.runs import RECORD, Run
from avel.stores.seal import file_seal_fault

RECIPE = ("encoder", "staging", "preprocessing", "arrays")
"""Entries of a cache's provenance that decide the features of a clip."""


def recipe(
    clips: ClipStore, encoder: Path | None, config: CacheConfig, modality: FeatureModality | None = None
) -> dict[str, Any]:
    """Returns what a cache of these inputs holds, in plain values: encoder, staging, preprocessing, arrays.

    With `modality` it is what the features of that backbone alone are made of.

    Raises:
        ConfigError: options that exclude each other.
        MissingPathError: no such encoder or weights.
    """
    identity = encoder_identity(encoder, config, modality)
    cnn = ["cnn_a", "cnn_v"] if config.keep_cnn or config.keep_maps else []
    arrays = {None: ["f_a", "f_v", *cnn], "audio": ["f_a"], "visual": ["f_v"]}[modality]
    return {
        "encoder": identity,
        "staging": {"digest": clips.digest, "settings": clips.settings},
        "preprocessing": {"dtype": config.dtype, "own_lengths": clips.dataset.longest_seconds is not None}
        | ({} if modality == "audio" else _frames(clips, encoder, config, identity))
        | ({} if modality == "visual" else _waveform(clips, encoder, config)),
        "arrays": [*arrays, *(["maps"] if config.keep_maps and modality != "audio" else [])],
    }


def _frames(
    clips: ClipStore, encoder: Path | None, config: CacheConfig, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns which frames of a segment the visual CNN sees, and their crop.

    Raises:
        ConfigError: more frames than a segment has, or a crop that the encoder does not take.
    """
    if encoder is not None:
        count, crop_size = config.frames_per_segment or 1, config.crop_size or identity["crop_size"]
    else:
        visual = config.pretraining().visual.backbone
        reads = BACKBONES["visual"][visual.name].reads(visual)
        count, crop_size = config.frames_per_segment or reads.frames, config.crop_size or reads.pixels
    there = clips.grid.frames_per_segment
    if count > there:
        raise ConfigError(
            f"frames_per_segment={count}, and a segment of {clips.location.url} has {there}",
            hint=f"--frames-per-segment {there}",
        )
    if has_agva(identity) and crop_size != identity["crop_size"]:
        raise ConfigError(
            f"crop_size={crop_size}: the encoder attends over the cells of {identity['crop_size']} pixels",
            hint="leave out --crop-size",
        )
    crop = "centre, 7/8 of each side"
    return {"frames": evenly_spaced(there, count), "crop": crop, "crop_size": crop_size}


def _waveform(clips: ClipStore, encoder: Path | None, config: CacheConfig) -> dict[str, Any]:
    """Returns what the audio backbone reads of the waveform; nothing where it reads log-mel patches.

    Raises:
        StoreError: the store has no waveform.
    """
    if encoder is not None:
        return {}  # avel pretrain trains on patches
    audio = config.pretraining().audio.backbone
    reads = BACKBONES["audio"][audio.name].reads(audio)
    if reads is None:
        return {}
    if not clips.attributes.waveform:
        clips.waveform(clips.staged[0])  # raises StoreError, with what to do
    return {"waveform": vars(reads)}


def pretraining_seed(encoder: Path | None) -> int | None:
    """Returns the seed that an encoder's run of `pretrain` was started with; None where no run tells."""
    if encoder is None:
        return None
    folder = encoder if encoder.is_dir() else encoder.parent
    return Run.open(folder, "pretrain").config(PretrainConfig).seed if (folder / RECORD).is_file() else None


def encoder_identity(
    encoder: Path | None, config: CacheConfig, modality: FeatureModality | None = None
) -> dict[str, Any]:
    """Returns the entry `encoder` of a cache's provenance; raises as `recipe` does."""
    if encoder is not None:
        spec, digest = encoder_file_digest(encoder)
        _refuse_beside_encoder(config, spec)
        return {"kind": "run", "digest": digest, **spec}
    networks = config.pretraining()
    given: dict[FeatureModality, BackboneConfig]
    given = {name: getattr(networks, name) for name in BACKBONES if modality in (None, name)}
    chosen: dict[str, Any] = {name: _backbone(BACKBONES[name], each) for name, each in given.items()}
    kind = "untrained" if config.untrained else "backbones"
    if config.untrained or RANDOM in (each.weights for each in given.values()):
        chosen["seed"] = config.seed
    return {"kind": kind, "digest": digest_of([kind, _without_places(chosen)]), **chosen}


def _without_places(identity: Any) -> Any:
    """Returns an encoder's identity without the folders of its models, which may be moved."""
    if not isinstance(identity, dict):
        return identity
    networks = {kind: identity.get(kind) for kind in BACKBONES}
    return identity | {
        kind: without_place(about) for kind, about in networks.items() if isinstance(about, dict)
    }


def _refuse_beside_encoder(config: CacheConfig, spec: Mapping[str, Any]) -> None:
    for setting in settings_of(config):
        kind, name = setting.path[0], setting.path[-1]
        if kind in ("visual", "audio") and name == "weights" and is_of_folder(spec[kind]):
            continue  # says where the folder is now
        if setting.name == "untrained" or kind in ("visual", "audio"):
            value = setting.of(config)
            if value != setting.default:
                raise ConfigError(
                    f"{setting.name}={value} beside an encoder, which has CNNs and weights of its own",
                    hint=f"leave out --{setting.name.replace('_', '-')}, or --encoder",
                )


def has_agva(identity: Mapping[str, Any]) -> bool:
    """Returns whether the encoder of a recipe attends over the cells of visual maps."""
    return bool(identity.get("encoder", {}).get("agva"))


def _backbone(registry: Registry[Any], config: BackboneConfig) -> dict[str, Any]:
    """Returns a backbone's name, its settings under that name, and what names its weights."""
    assert config.backbone is not None
    kind = registry[config.backbone.name]
    named = kind.weights_name(config.backbone, config.weights)
    pinned = replace(config, backbone=kind.pinned(config.backbone, config.weights), weights=named)
    return as_dict(pinned)


def encoder_file_digest(path: Path) -> tuple[dict[str, Any], str]:
    """Reads spec and digest of a saved encoder; the digest is `encoder_digest` of the loaded one.

    Raises:
        MissingPathError: there is none.
        StoreError: not an encoder file.
    """
    path = encoder_file(path)
    _, spec = read_spec(path)
    if broken := file_seal_fault(path):
        raise StoreError(f"{path}: {broken}", hint=ANOTHER_RUN)
    with safe_open(path, framework="numpy") as file:
        return spec, digest_of(spec, ((name, file.get_tensor(name)) for name in sorted(file.keys())))


def annotations_digest(clips: ClipStore, reasons: Mapping[str, str]) -> str:
    """Returns the digest of samples, classes and what is missing: they change the file, but no feature."""
    data = clips.dataset
    samples = [astuple(sample) for sample in data.samples]
    return digest_of([data.categories, samples, sorted(reasons.items()), clips.lengths])


def refuse_stale(cache: FeatureCache, wanted: Mapping[str, Any], command: str) -> None:
    """Checks that a cache was made the way this call would make it; the error names what differs.

    `command` makes it again.

    Raises:
        StaleError: another encoder, staging, preprocessing or set of arrays.
    """
    before, now = (
        {**each, "encoder": _without_places(each.get("encoder"))} for each in (cache.provenance, wanted)
    )
    differences = [
        f"{where} was {_short(old)}, is now {_short(new)}"
        for key in RECIPE
        for where, old, new in differing_entries(before.get(key), now[key], where=key)
    ]
    if differences:
        raise StaleError(
            f"{cache.path}: made otherwise than asked: {'; '.join(differences)}",
            hint=f"{command} makes it again{which_drops(cache.named)}; or name another file",
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
