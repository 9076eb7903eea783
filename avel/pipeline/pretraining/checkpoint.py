"""Checkpoints of a pretraining run: weights and optimizer state in one safetensors file, whole or absent.

One file, so that weights and optimizer state can never be of different epochs; no pickle.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from avel.config import settings_of
from avel.errors import MissingPathError, StoreError
from avel.pipeline.config import BACKBONES, PretrainConfig
from avel.pipeline.encoders.header import encoder_file, is_of_folder, read_spec
from avel.pipeline.encoders.vectors import CACHED
from avel.pipeline.pretraining.projector import ProjectedEncoder
from avel.stores.documents import parse, typed
from avel.stores.runs import Run
from avel.stores.tensors import load_tensors, save_tensors
from avel.values import default_text

CHECKPOINT = "checkpoint.safetensors"
FORMAT = "avel-checkpoint-3"
CNNS = ("encoder.visual.", "encoder.audio.")
ARCHITECTURE = ("visual.", "audio.", "encoder.", "objective.projector", "objective.shared_projector")
"""Beginnings of the keys of settings that decide which weights a network has."""
NOT_ARCHITECTURE = {"visual.weights", "audio.weights"}
"""Settings whose keys begin so, but which do not decide that."""
OF_VECTORS = {f"{kind}_{name}" for kind in BACKBONES for name in ("backbone", "features", "dimensions")}
"""Names of settings that `avel pretrain` takes from a feature cache, in the place of CNNs."""


@dataclass(frozen=True)
class Reached:
    """Progress of a run: epochs done, and the best score so far with its epoch."""

    epochs: int = 0
    best_score: float | None = None
    best_epoch: int = 0


def copy_state(projected: ProjectedEncoder, optimizer: Optimizer) -> dict[str, Tensor]:
    """Copies model and optimizer state to the CPU: `model.NAME` and `optimizer.NAME:KEY`.

    Frozen CNNs are left out, since they never change and the encoder's file has them.
    """
    tensors = {
        f"model.{name}": value
        for name, value in projected.state_dict().items()
        if not (projected.frozen and name.startswith(CNNS))
    }
    for name, parameter in projected.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}:{key}"] = value
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}


def save_checkpoint(path: Path, state: dict[str, Tensor], reached: Reached) -> None:
    """Writes what `copy_state` returned into one file, whole or absent."""
    save_tensors(path, state, format=FORMAT, reached=json.dumps(asdict(reached)))


def load_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer) -> Reached:
    """Puts back what `save_checkpoint` wrote, onto the devices of the model's parameters.

    Raises:
        StoreError: not a checkpoint, or one of another model.
    """
    hint = f"remove it: {shlex.join(['rm', str(path)])}"
    tensors, reached = _read(path, hint)
    _put(tensors, model, path, hint)
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            of, _, key = name.removeprefix("optimizer.").rpartition(":")
            if of not in parameters:
                raise StoreError(f"{path}: of another model: no weight {of!r} here", hint=hint)
            fused = bool(optimizer.defaults.get("fused"))
            optimizer.state[parameters[of]][key] = _beside(parameters[of], value, fused)
    return reached


def check_start(run: Path, config: PretrainConfig) -> None:
    """Checks that a network of these settings can take the weights of another run.

    Raises:
        MissingPathError: the run has no checkpoint.
        StoreError: its encoder or projector has another architecture.
    """
    if not (run / CHECKPOINT).is_file():
        raise MissingPathError(
            f"{run / CHECKPOINT}: not there", hint="--start-from names a run folder of avel pretrain"
        )
    theirs, ours = map(_architecture, (Run.open(run, "pretrain").config(PretrainConfig), config))
    differing = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    differing = [name for name in differing if not _moved(run, name, ours)]
    if differing:
        shown = ", ".join(
            f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} here" for name in differing
        )
        hint = " ".join(f"--set {name}={default_text(theirs[name])}" for name in differing if name in theirs)
        if CACHED in (theirs["visual_backbone"], ours["visual_backbone"]) and OF_VECTORS & {*differing}:
            hint = "give the STORE of that run; of a feature cache its --audio-features and --visual-features"
        raise StoreError(f"{run}: of another model: {shown}", hint=hint)


def _architecture(config: PretrainConfig) -> dict[str, Any]:
    """Returns the settings that decide which weights a network has, by name."""
    return {
        setting.name: setting.of(config)
        for setting in settings_of(config)
        if (setting.key not in NOT_ARCHITECTURE and setting.key.startswith(ARCHITECTURE))
        or (config.encoder.agva and setting.name == "crop_size")  # AGVA has weights for each cell of a map
    }


def _moved(run: Path, name: str, ours: Mapping[str, Any]) -> bool:
    """Returns whether a setting is the folder of a model, here and in the run: the folder may have moved.

    When the network is built, it checks that the folder holds the same model.
    """
    kind, _, setting = name.partition("_")
    if setting != "model" or not Path(ours.get(name, "")).is_dir():
        return False
    return is_of_folder(read_spec(encoder_file(run))[1][kind])


def load_start(model: nn.Module, run: Path) -> None:
    """Gives `model` the weights that another run of the same architecture ended with."""
    path, hint = run / CHECKPOINT, "name another run"
    _put(_read(path, hint)[0], model, path, hint)


def _read(path: Path, hint: str) -> tuple[dict[str, Tensor], Reached]:
    tensors, header = load_tensors(path, hint)
    if header.get("format") != FORMAT:
        raise StoreError(f"{path}: no checkpoint of format {FORMAT}", hint=hint)
    where = f"{path}: reached"
    return tensors, typed(Reached, parse(header.get("reached", "").encode(), where, hint), where, hint)


def _put(tensors: dict[str, Tensor], model: nn.Module, path: Path, hint: str) -> None:
    """Loads the weights in a checkpoint's tensors; CNNs that it lacks, since they were frozen, stay."""
    weights = {
        name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")
    }
    own = {name: value for name, value in model.state_dict().items() if name.startswith(CNNS)}
    if not weights.keys() & own.keys():
        weights |= own
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
        raise StoreError(f"{path}: of another model: {lines[0]}{more}", hint=hint) from None


def _beside(parameter: nn.Parameter, value: Tensor, fused: bool) -> Tensor:
    """Returns an optimizer state on the parameter's device; a step count stays on the CPU unless `fused`."""
    if value.shape == parameter.shape:
        return torch.empty_like(parameter).copy_(value)
    return value.to(parameter.device) if fused else value
