"""Files of trained trials: weights `trials/NAME.safetensors`, then the record `trials/NAME.json`."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avel.config import as_dict
from avel.errors import ConfigError, StoreError, TrainingError
from avel.heads.config import TrainConfig
from avel.heads.models.head import Model, Widths, build_model, projected_width
from avel.heads.tasks.choose import TASKS
from avel.heads.tasks.task import Task, TaskName, TrackName
from avel.heads.training.code import find_head, read_train_config
from avel.heads.training.fit import TrialOutcome
from avel.heads.training.trials import TrialFigures
from avel.stores.documents import read_document, write_document
from avel.stores.runs import RECORD, Run
from avel.stores.tensors import load_tensors, save_tensors

TRIALS_FOLDER = "trials"
TRAIN_AGAIN = "train into another run folder, with the same avel train-head command"


@dataclass(frozen=True)
class HeadInputs:
    """Inputs of a head run: its feature cache with sizes and classes, what else it read, its trials.

    Attributes:
        cache_digest: digest of the cache, with the `named` features.
        negatives: path of a cache of clips without events -> its digest.
        init: path of weights to start from -> their SHA-256.
        swept: names of the settings that a sweep varied.
        head_code: name of a head -> package and module, or file, that it comes from.
        head_code_digest: name of a head -> digest of its source code.
        tags: tag -> numbers of the held-out samples that are evaluated by themselves.
        named: names of those features beside avel's own (`FeatureCache.named`) that its heads read.
        fold: fold of a cross-validation that is the run's test split; "" for the cache's own splits.
    """

    cache: str
    cache_digest: str
    negatives: dict[str, str]
    init: dict[str, str]
    segments: int
    segment_seconds: float
    task: TaskName
    tracks: tuple[TrackName, ...]
    categories: tuple[str, ...]
    swept: tuple[str, ...]
    trials: tuple[str, ...]
    head_code: dict[str, str]
    head_code_digest: dict[str, str]
    tags: dict[str, tuple[int, ...]]
    named: tuple[str, ...] = ()
    fold: str = ""

    def __post_init__(self) -> None:
        if self.segments < 1:
            raise StoreError(f"inputs.segments is {self.segments}")
        if set(self.head_code) != set(self.head_code_digest):
            raise StoreError("inputs.head_code and inputs.head_code_digest do not name the same heads")
        if outside := [name for name in self.trials if "/" in name or name.startswith(".")]:
            raise StoreError(f"inputs.trials holds {outside[0]!r}, which names no file of the run")


def open_runs(folder: Path) -> list[Run]:
    """Opens the runs below a folder; not the folds of a cross-validation, whose test split is their own.

    Raises:
        StoreError: a run of another format.
    """
    runs = [Run.open(path.parent) for path in sorted(folder.rglob(RECORD))]
    return [run for run in runs if not run.record.inputs.get("fold")]


@dataclass
class TrialFile(TrialFigures):
    """A trial's JSON file; `settings` are those a sweep varied.

    In `config`, `project` is the width of the projection that the head has, also where none was asked for.
    """

    name: str
    settings: dict[str, Any]
    seed: int
    config: dict[str, Any]
    widths: Widths
    inputs: str


@dataclass
class TrialRecord(TrialFile):
    """One trial as its run records it, with its config."""

    config: TrainConfig  # type: ignore[assignment]

    @property
    def trained(self) -> bool:
        """Returns True if loss and scores stayed finite."""
        return not self.failure

    @property
    def group(self) -> str:
        """Returns the name of the trials that differ in the seed alone: head, or settings of a sweep."""
        return ",".join(f"{key}={value}" for key, value in self.settings.items()) or self.config.head.name


def task_of(run: Run) -> Task:
    """Returns the task that a run's heads were trained for."""
    inputs = run.read_inputs(HeadInputs)
    return TASKS[inputs.task](inputs.categories, inputs.tracks)


def write_trial(run: Run, outcome: TrialOutcome, widths: Widths, inputs: str) -> None:
    """Writes a trial's weights, then the record that says it is done."""
    name, config = outcome.trial.name, outcome.trial.config
    if outcome.state:
        save_tensors(_path(run, name, "safetensors"), outcome.state)
    record = {
        "name": name,
        "settings": outcome.trial.settings,
        "seed": config.seed,
        "config": as_dict(dataclasses.replace(config, project=projected_width(config, widths))),
        "widths": as_dict(widths),
        "inputs": inputs,
    }
    measured = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(TrialFigures)}
    write_document(_path(run, name, "json"), record | measured)


def is_trained(run: Run, name: str) -> bool:
    """Returns whether the trial has been trained to its end."""
    return _path(run, name, "json").is_file()


def read_trial(run: Run, name: str) -> TrialRecord:
    """Reads a trial's record.

    Raises:
        StoreError: the run has no such trial, or has not trained it yet; or the record is damaged.
    """
    if not is_trained(run, name):
        trained = ", ".join(sorted(path.stem for path in (run.path / TRIALS_FOLDER).glob("*.json"))) or "none"
        raise StoreError(f"{run.path}: no trained trial {name!r}", hint=f"the run holds {trained}")
    path = _path(run, name, "json")
    record = read_document(TrialFile, path.read_bytes(), path, TRAIN_AGAIN)
    if record.name != name:
        raise StoreError(f"{path}: name is {record.name!r}, not {name!r}", hint=TRAIN_AGAIN)
    return TrialRecord(**vars(record) | {"config": read_train_config(record.config, path)})


def read_trials(run: Run) -> list[TrialRecord]:
    """Reads all trials that are done, in the order of the run's plan."""
    return [read_trial(run, name) for name in run.read_inputs(HeadInputs).trials if is_trained(run, name)]


def read_trained(run: Run) -> list[TrialRecord]:
    """Reads the trials that are done and stayed finite.

    Raises:
        TrainingError: every trial of the run failed.
        StoreError: no trial is done yet, or one is damaged.
    """
    trials = read_trials(run)
    if trained := [trial for trial in trials if trial.trained]:
        return trained
    if len(trials) < len(run.read_inputs(HeadInputs).trials):
        raise StoreError(f"{run.path}: no trained trial", hint="give the same avel train-head command again")
    raise TrainingError(
        f"{run.path}: no trial stayed finite; {trials[0].name}: {trials[0].failure}",
        hint="try a lower --lr, with another run folder",
    )


def trained_groups(trials: Iterable[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Groups the trials that stayed finite and differ in the seed alone, by the name of their group."""
    groups: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        if trial.trained:
            groups.setdefault(trial.group, []).append(trial)
    return groups


def mean_val_score(trials: Sequence[TrialRecord]) -> float:
    """Averages validation scores, fractions, over trials."""
    return sum(trial.val_score for trial in trials) / len(trials)


def load_head(run: Path | str, trial: str | None = None, device: torch.device | str = "cpu") -> Model:
    """Loads a trained head as a module that takes tensors, in evaluation mode.

    >>> scores = load_head("runs/mlp")(f_a, f_v).logits  # (B, T, D), (B, T, D) -> (B, T, K)  # doctest: +SKIP

    Args:
        trial: name of a trial; by default the one with the best score on validation.

    Raises:
        MissingPathError, StoreError: there is no such run or trial, or it is damaged.
        TrainingError: every trial of the run failed.
    """
    opened = Run.open(run, "heads")
    if trial is not None:
        return load_model(opened, read_trial(opened, trial), device)
    return load_model(opened, max(read_trained(opened), key=lambda record: record.val_score), device)


def load_model(run: Run, trial: TrialRecord, device: torch.device | str = "cpu") -> Model:
    """Loads a trial's model at its best validation epoch, in evaluation mode.

    Raises:
        MissingPathError, StoreError: its weights are missing or damaged, or of another form than its record,
            or its head is not installed.
    """
    name, inputs = trial.config.head.name, run.read_inputs(HeadInputs)
    find_head(run, name, inputs.head_code.get(name, ""), inputs.head_code_digest.get(name, ""))
    path = _path(run, trial.name, "safetensors")
    try:
        model = build_model(trial.config, trial.widths, trial.seed)
        model.load_state_dict(load_tensors(path, TRAIN_AGAIN)[0])
    except (RuntimeError, ConfigError) as error:
        what = error.message if isinstance(error, ConfigError) else " ".join(str(error).split())
        raise StoreError(f"{path}: does not fit the trial's record: {what}", hint=TRAIN_AGAIN) from None
    return model.to(device).eval()


def _path(run: Run, name: str, ending: str) -> Path:
    return run.path / TRIALS_FOLDER / f"{name}.{ending}"
