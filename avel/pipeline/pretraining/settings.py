"""What a pretraining run is asked for: settings, looked at before anything is made, and its device."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from avel.errors import ConfigError
from avel.pipeline.config import PretrainConfig
from avel.pipeline.pretraining.checkpoint import can_start_from
from avel.pipeline.pretraining.projector import projector_widths
from avel.pipeline.pretraining.record import event_writer
from avel.pipeline.pretraining.vectors import AUGMENTATIONS
from avel.progress import note

IDLE: Mapping[tuple[str, Any], tuple[str, ...]] = {
    ("freeze_backbone", False): ("frozen_augment", "frozen_frames", "frozen_vectors"),
    ("freeze_backbone", True): ("backbone_batchnorm", "clips_at_once", "compile"),
    ("crop", False): ("crop_scale",),
    ("optimiser", "adamw"): ("momentum", "trust"),
}
"""A setting with a value -> settings that it leaves without effect. A preset or a file may hold them for
another one, so they are noted, not refused."""


def checked(config: PretrainConfig) -> PretrainConfig:
    """`config`, its warm-up cut to half of a short run.

    Raises:
        ConfigError: settings that cannot be used, would change nothing, or need a package that is not there.
        AvelError: a run to start from that is not there or of another form.
    """
    _refuse_unusable(config)
    for (setting, value), names in IDLE.items():
        idle = _changed(config, names)
        if idle and getattr(config, setting) == value:
            note(f"without effect, since {setting} is {str(value).lower()}: {idle}")
    if config.tensorboard:
        event_writer()
    if config.start_from:
        can_start_from(Path(config.start_from), config)
    longest = config.epochs / 2
    if config.warmup_epochs > longest:
        note(f"warm-up cut from {config.warmup_epochs:g} to {longest:g} epochs, half of the run")
        return replace(config, warmup_epochs=longest)
    return config


def _refuse_unusable(config: PretrainConfig) -> None:
    projector_widths(config.projector)
    smallest, largest = config.crop_scale
    if smallest > largest:
        raise ConfigError(
            f"crop_scale={smallest:g},{largest:g} ends below its start", hint=f"{largest:g},{smallest:g}"
        )
    if config.frozen_vectors and Path(config.frozen_vectors).is_file():
        raise ConfigError(f"frozen_vectors={config.frozen_vectors!r} is a file", hint="name a folder")
    unseen = _changed(config, AUGMENTATIONS)
    if config.freeze_backbone and not config.frozen_augment and unseen:
        raise ConfigError(
            f"frozen CNNs see centre crops: {unseen} would change nothing", hint="--frozen-augment"
        )


def _changed(config: PretrainConfig, names: tuple[str, ...]) -> str:
    """Those of `names` that are not at their default."""
    default = PretrainConfig()
    return ", ".join(name for name in names if getattr(config, name) != getattr(default, name))


def pick_device(name: str | None) -> torch.device:
    """The device by name; by default this process's GPU, or the CPU where there is none.

    Raises:
        ConfigError: a name of no device that avel runs on, or a GPU that is not there.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name!r} is no device for training", hint="cpu, cuda or cuda:1")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"device={name!r}, but torch finds no GPU", hint="--device cpu")
        named: int | None = device.index
        if named is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(f"device={name!r} would give several processes one GPU", hint="--device cuda")
        if device.index >= torch.cuda.device_count():
            raise ConfigError(
                f"device={str(device)!r}, but torch finds {torch.cuda.device_count()} GPUs",
                hint="cuda:0 is the first; torchrun takes one GPU for each process",
            )
        torch.cuda.set_device(device)
    return device
