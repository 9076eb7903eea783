"""Checks the settings of a pretraining run before anything is made, and finds its device."""

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from avel.config import settings_of
from avel.device import choose_device
from avel.errors import ConfigError
from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES, AugmentConfig, PretrainConfig
from avel.pipeline.pretraining.checkpoint import check_start
from avel.pipeline.pretraining.projector import projector_widths
from avel.progress import note
from avel.stores.watching import check_watchers

IDLE: Mapping[tuple[str, Any], tuple[str, ...]] = {
    ("freeze_backbone", False): ("frozen_augment", "frozen_frames", "frozen_vectors"),
    ("freeze_backbone", True): ("backbone_batchnorm", "clips_at_once", "compile"),
    ("crop", False): ("crop_scale",),
    ("optimizer", "adamw"): ("momentum", "trust"),
}
"""A setting's name and value -> names of settings that have no effect with it. They are noted, not refused,
since a preset or a file may set them for runs with another value."""
AUGMENTATIONS = {field.name for field in fields(AugmentConfig)}


def check_config(config: PretrainConfig) -> PretrainConfig:
    """Returns `config` with its warm-up cut to half of a short run; notes settings without effect.

    Raises:
        ConfigError: settings that cannot be used, would change nothing, or need a package that is not there.
        AvelError: a run to start from that is not there or has another architecture.
    """
    _refuse_unusable(config)
    _refuse_other_inputs(config)
    values = {setting.name: setting.of(config) for setting in settings_of(config)}
    for (setting, value), names in IDLE.items():
        idle = config.changed(names)
        if idle and values[setting] == value:
            note(f"without effect, since {setting} is {str(value).lower()}: {idle}")
    check_watchers(config.metrics_hook, config.tensorboard)
    if config.start_from:
        check_start(Path(config.start_from), config)
    longest = config.epochs / 2
    if config.optimizer.warmup_epochs > longest:
        note(f"warm-up cut from {config.optimizer.warmup_epochs:g} to {longest:g} epochs, half of the run")
        return replace(config, optimizer=replace(config.optimizer, warmup_epochs=longest))
    return config


def _refuse_unusable(config: PretrainConfig) -> None:
    if config.decode == "gpu" and config.device.startswith("cpu"):
        raise ConfigError("decode=gpu needs a GPU, and device=cpu", hint="--decode auto")
    projector_widths(config.objective.projector)
    smallest, largest = config.augmentation.crop_scale
    if smallest > largest:
        raise ConfigError(
            f"crop_scale={smallest:g},{largest:g} ends below its start",
            hint=f"--crop-scale {largest:g},{smallest:g}",
        )
    if config.frozen.vectors and Path(config.frozen.vectors).is_file():
        raise ConfigError(f"frozen_vectors={config.frozen.vectors!r} is a file", hint="name a folder")
    idle = config.changed(AUGMENTATIONS - {"crop_size"})  # the centre crop has that size, too
    if config.freeze_backbone and not config.frozen.augment and idle:
        raise ConfigError(
            f"frozen CNNs read centre crops: {idle} would change nothing", hint="--frozen-augment"
        )


def _refuse_other_inputs(config: PretrainConfig) -> None:
    """Checks that the CNNs read what training gives them: one frame of a segment, and its log-mel patch.

    Raises:
        ConfigError: one reads something else.
    """
    visual, audio = config.visual.backbone, config.audio.backbone
    other = ""
    if VISUAL_BACKBONES[visual.name].reads(visual).frames > 1:
        other = f"{visual.name} sees several frames together"
    elif AUDIO_BACKBONES[audio.name].reads(audio) is not None:
        other = f"{audio.name} reads the waveform"
    if other:
        raise ConfigError(
            f"{other}, and avel pretrain trains CNNs on one frame and one log-mel patch of a segment",
            hint="avel cache-features keeps its vectors, on which heads are trained",
        )


def device_of_process(name: str) -> torch.device:
    """Returns the device of this process by name; for "auto" and "cuda" the GPU that torchrun gave it.

    Raises:
        ConfigError: a name of no device that avel runs on, or a GPU that is not there.
    """
    device = choose_device(name)
    if device.type == "cuda":
        named: int | None = device.index
        if named is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            if device.index >= (there := torch.cuda.device_count()):
                raise ConfigError(
                    f"process {device.index} of torchrun has no GPU: torch finds {there}",
                    hint="torchrun takes one GPU for each process; lower --nproc-per-node",
                )
        elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(f"device={name!r} would give several processes one GPU", hint="--device cuda")
        torch.cuda.set_device(device)
    return device
