"""Trained members in a run folder: `members/NAME.safetensors`, and `members/NAME.json` as the done-marker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from avel.config import as_dict, resolve
from avel.errors import StoreError
from avel.heads.config import TrainConfig
from avel.heads.models.head import Model, Widths, build_model
from avel.heads.training.fit import Fitted
from avel.stores.files import atomic_path, write_json
from avel.stores.runs import Run

FOLDER = "members"


@dataclass(frozen=True)
class Kept:
    """One member as its run keeps it; `settings` are those a sweep varied, accuracies are shares."""

    name: str
    settings: dict[str, Any]
    seed: int
    config: TrainConfig
    widths: Widths
    source: str
    epochs: int
    best_epoch: int
    val_accuracy: float
    test_accuracy: float
    best_test_epoch: int
    best_test_accuracy: float
    failure: str

    @property
    def trained(self) -> bool:
        """Whether it stayed finite."""
        return not self.failure


def keep_member(run: Run, fitted: Fitted, widths: Widths, source: str, settings: Mapping[str, Any]) -> None:
    """Writes a member's weights, then the record that says it is done."""
    name = fitted.member.name
    if fitted.state:
        with atomic_path(_path(run, name, "safetensors")) as partial:
            save_file({key: value.cpu().contiguous() for key, value in fitted.state.items()}, partial)
    scalars = (
        "epochs",
        "best_epoch",
        "val_accuracy",
        "test_accuracy",
        "best_test_epoch",
        "best_test_accuracy",
    )
    write_json(
        _path(run, name, "json"),
        {
            "name": name,
            "settings": dict(settings),
            "seed": fitted.member.config.seed,
            "config": as_dict(fitted.member.config),
            "widths": as_dict(widths),
            "source": source,
            "failure": fitted.failure,
        }
        | {key: getattr(fitted, key) for key in scalars},
    )


def is_kept(run: Run, name: str) -> bool:
    """Whether the member has been trained to its end."""
    return _path(run, name, "json").is_file()


def kept_member(run: Run, name: str) -> Kept:
    """A member's record.

    Raises:
        StoreError: the run has no such member, or has not trained it yet.
    """
    if not is_kept(run, name):
        held = ", ".join(sorted(path.stem for path in (run.path / FOLDER).glob("*.json"))) or "none"
        raise StoreError(f"{run.path}: no trained member {name!r}", hint=f"the run holds {held}")
    record = json.loads(_path(run, name, "json").read_text())
    config = resolve(TrainConfig, "train-head", options=record.pop("config"))
    return Kept(config=config, widths=Widths(**record.pop("widths")), **record)


def kept_members(run: Run) -> list[Kept]:
    """All members that are done, in the order of the run's plan."""
    return [kept_member(run, name) for name in run.inputs["members"] if is_kept(run, name)]


def load_model(run: Run, member: Kept, device: torch.device | str = "cpu") -> Model:
    """A member's network at its best validation epoch, in evaluation mode."""
    model = build_model(member.config, member.widths, member.seed)
    model.load_state_dict(load_file(_path(run, member.name, "safetensors")))
    return model.to(device).eval()


def _path(run: Run, name: str, ending: str) -> Path:
    return run.path / FOLDER / f"{name}.{ending}"
