"""Files of trained trials: weights `trials/NAME.safetensors`, then the record `trials/NAME.json`."""

from __future__ import annotations

import dataclasses
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
from avel.heads.training.fit import TrialOutcome
from avel.stores.files import atomic_path, write_json
from avel.stores.runs import Run

FOLDER = "trials"


@dataclass(frozen=True)
class TrialRecord:
    """One trial as its run records it; `settings` are those a sweep varied, accuracies are fractions.

    `train_seconds` is 0 in runs that did not record it.
    """

    name: str
    settings: dict[str, Any]
    seed: int
    config: TrainConfig
    widths: Widths
    source: str
    epochs: int
    best_epoch: int
    val_accuracy: float
    test_accuracy: float | None
    best_test_epoch: int
    best_test_accuracy: float | None
    failure: str
    train_seconds: float = 0.0

    @property
    def trained(self) -> bool:
        """True if loss and scores stayed finite."""
        return not self.failure


def write_trial(
    run: Run, outcome: TrialOutcome, widths: Widths, source: str, settings: Mapping[str, Any]
) -> None:
    """Writes a trial's weights, then the record that says it is done."""
    name = outcome.trial.name
    if outcome.state:
        with atomic_path(_path(run, name, "safetensors")) as partial:
            save_file({key: value.cpu().contiguous() for key, value in outcome.state.items()}, partial)
    record = {
        "name": name,
        "settings": dict(settings),
        "seed": outcome.trial.config.seed,
        "config": as_dict(outcome.trial.config),
        "widths": as_dict(widths),
        "source": source,
    }
    measured = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)}
    del measured["trial"], measured["state"]
    write_json(_path(run, name, "json"), record | measured)


def is_trained(run: Run, name: str) -> bool:
    """Returns whether the trial has been trained to its end."""
    return _path(run, name, "json").is_file()


def read_trial(run: Run, name: str) -> TrialRecord:
    """Reads a trial's record.

    Raises:
        StoreError: the run has no such trial, or has not trained it yet.
    """
    if not is_trained(run, name):
        trained = ", ".join(sorted(path.stem for path in (run.path / FOLDER).glob("*.json"))) or "none"
        raise StoreError(f"{run.path}: no trained trial {name!r}", hint=f"the run holds {trained}")
    record = json.loads(_path(run, name, "json").read_text())
    config = resolve(TrainConfig, "train-head", options=record.pop("config"))
    return TrialRecord(config=config, widths=Widths(**record.pop("widths")), **record)


def read_trials(run: Run) -> list[TrialRecord]:
    """Reads all trials that are done, in the order of the run's plan."""
    return [read_trial(run, name) for name in run.inputs["trials"] if is_trained(run, name)]


def load_model(run: Run, trial: TrialRecord, device: torch.device | str = "cpu") -> Model:
    """Loads a trial's model at its best validation epoch, in evaluation mode."""
    model = build_model(trial.config, trial.widths, trial.seed)
    model.load_state_dict(load_file(_path(run, trial.name, "safetensors")))
    return model.to(device).eval()


def _path(run: Run, name: str, ending: str) -> Path:
    return run.path / FOLDER / f"{name}.{ending}"
