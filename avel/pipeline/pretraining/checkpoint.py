"""Checkpoints of a pretraining run: weights and optimiser state in one safetensors file, whole or absent.

One file, so that weights and optimiser state can never be of different epochs; no pickle.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from avel.config import as_dict
from avel.errors import MissingPathError, StoreError
from avel.pipeline.config import PretrainConfig
from avel.stores.files import atomic_path
from avel.stores.runs import Run

CHECKPOINT = "checkpoint.safetensors"
FORMAT = "avel-checkpoint-1"
FORM = (
    "visual_backbone",
    "audio_backbone",
    "agva",
    "visual_width",
    "audio_width",
    "hidden",
    "projector",
    "shared_projector",
)
"""Fields of PretrainConfig that decide which weights a network has."""


@dataclass(frozen=True)
class Reached:
    """How far a run has come: epochs done, steps done, and the best score so far with its epoch."""

    epochs: int = 0
    steps: int = 0
    best_score: float | None = None
    best_epoch: int = 0


def save_checkpoint(path: Path, model: nn.Module, optimiser: Optimizer, reached: Reached) -> None:
    """Model and optimiser state into one file: `model.NAME` and `optimiser.NAME:KEY`."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{name}:{key}"] = value
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as partial:
        save_file(whole, partial, metadata={"format": FORMAT, "reached": json.dumps(asdict(reached))})


def load_checkpoint(path: Path, model: nn.Module, optimiser: Optimizer) -> Reached:
    """Puts back what `save_checkpoint` wrote, onto the devices of the model's parameters.

    Raises:
        StoreError: not a checkpoint, or one of another model.
    """
    tensors, reached = _read(path, f"remove it: rm {path}")
    _put(tensors, model, path)
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            of, _, key = name.removeprefix("optimiser.").rpartition(":")
            optimiser.state[parameters[of]][key] = _beside(parameters[of], value)
    return reached


def can_start_from(run: Path, config: PretrainConfig) -> None:
    """Nothing, if a network that `config` describes can take the weights of another run.

    Raises:
        MissingPathError: the run has no checkpoint.
        StoreError: its encoder or projector is of another form.
    """
    if not (run / CHECKPOINT).is_file():
        raise MissingPathError(
            f"{run / CHECKPOINT}: not there", hint="--start-from names a run folder of avel pretrain"
        )
    theirs, ours = as_dict(Run.open(run, "pretrain").config(PretrainConfig)), as_dict(config)
    names = (*FORM, "crop_size") if config.agva else FORM  # AGVA has weights for each cell of a map
    differing = [name for name in names if theirs[name] != ours[name]]
    if differing:
        shown = ", ".join(f"{name} is {theirs[name]!r} there and {ours[name]!r} here" for name in differing)
        sets = " ".join(f"--set {name}={theirs[name]}" for name in differing)
        raise StoreError(f"{run}: of another model: {shown}", hint=sets)


def start_from(model: nn.Module, run: Path) -> None:
    """Gives `model` the weights that another run of the same form ended with."""
    _put(_read(run / CHECKPOINT, "name another run")[0], model, run / CHECKPOINT)


def _read(path: Path, hint: str) -> tuple[dict[str, Tensor], Reached]:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except SafetensorError as error:
        raise StoreError(f"{path}: damaged: {error}", hint=hint) from None
    if header.get("format") != FORMAT:
        raise StoreError(f"{path}: no checkpoint of format {FORMAT}", hint=hint)
    return load_file(path), Reached(**json.loads(header["reached"]))


def _put(tensors: dict[str, Tensor], model: nn.Module, path: Path) -> None:
    weights = {
        name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
        raise StoreError(f"{path}: of another model: {lines[0]}{more}") from None


def _beside(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """A state of the parameter's shape goes to its device and layout; a step count stays on the CPU."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
