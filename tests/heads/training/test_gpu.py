"""Heads on a GPU: they learn, predict and are evaluated as on the CPU."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avel.config import settings_of
from avel.heads.config import HEADS, TrainConfig
from avel.heads.evaluation.evaluate import evaluate, predict_split
from avel.heads.evaluation.predictions import read_predictions
from avel.heads.train import train_head
from avel.heads.training import fit as fitting
from avel.heads.training.data import Data, read_data
from avel.heads.training.fit import TrialOutcome, fit
from avel.heads.training.records import load_model, read_trials
from avel.heads.training.trials import Trial
from avel.stores.features import FeatureCache
from avel.stores.runs import Run
from tests.heads.parsing import write_parsing_cache
from tests.heads.synthetic import train_config, trials_of, write_cache

pytestmark = pytest.mark.gpu
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
QUICK: dict[str, Any] = {"epochs": 4, "lr": 1e-3, "batch_size": 16}
ONE_LABEL = [head for head in HEADS if "single_label" in HEADS[head].tasks]
SEVERAL_LABELS = [head for head in HEADS if "multi_label" in HEADS[head].tasks]
STACKABLE = [head for head in HEADS if HEADS[head].stackable]


@pytest.fixture
def as_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of float32 as such and not as TF32, for comparisons with those of the CPU."""
    monkeypatch.setattr(fitting, "tf32", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "c.h5", arrays=("f_a", "f_v", "cnn_a", "cnn_v", "maps"), segments=8)


def config_of(head: str, **settings: Any) -> TrainConfig:
    names = [setting.name for setting in settings_of(HEADS[head].Config())]
    still = {name: 0.0 for name in names if name.endswith(("dropout", "noise"))}
    return train_config(head=head, **(QUICK | still | settings))


def data_on(device: torch.device, cache: Path, config: TrainConfig) -> Data:
    return read_data(FeatureCache.open(cache), config, device)


def trained(trials: list[Trial], data: Data, device: torch.device) -> tuple[list[TrialOutcome], np.ndarray]:
    """The trials, and their losses (epochs, M)."""
    lines: list[dict[str, Any]] = []
    outcome = fit(trials, data, device, lines.append)
    return outcome, np.array([line["loss"] for line in lines]).reshape(-1, len(trials))


@pytest.mark.usefixtures("as_float32")
@pytest.mark.parametrize("head", STACKABLE)
@pytest.mark.parametrize("supervision", ["full", "weak"])
def test_each_trial_equals_its_own_training(head: str, supervision: str, cache: Path) -> None:
    config = config_of(head, supervision=supervision, standardise=True)
    data, trials = data_on(CUDA, cache, config), trials_of(config, 3)
    together, losses = trained(trials, data, CUDA)
    for place, trial in enumerate(trials):
        (alone,), own = trained([trial], data, CUDA)
        np.testing.assert_allclose(losses[:, place], own[:, 0], rtol=1e-3)
        for name, value in alone.state.items():
            torch.testing.assert_close(together[place].state[name], value, rtol=1e-3, atol=5e-4)


@pytest.mark.usefixtures("as_float32")
@pytest.mark.parametrize("head", STACKABLE)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_as_cuda_graphs_train_the_same(
    head: str, dtype: str, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(head, dtype=dtype, epochs=8, clip_norm=1.0, lr_decay=0.7, lr_decay_every=2)
    data, trials = data_on(CUDA, cache, config), trials_of(config, 3)
    by_graphs, losses = trained(trials, data, CUDA)
    assert "without CUDA graphs" not in capsys.readouterr().err
    monkeypatch.setattr(fitting, "can_replay", lambda *_: False)
    as_they_are, expected = trained(trials, data, CUDA)
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    for one, other in zip(by_graphs, as_they_are, strict=True):
        for name, value in other.state.items():
            torch.testing.assert_close(one.state[name], value, rtol=1e-3, atol=5e-4)


@pytest.mark.usefixtures("as_float32")
@pytest.mark.parametrize("head", ONE_LABEL)
@pytest.mark.parametrize("memory_gb", [None, 0.0], ids=["held", "streamed"])
def test_every_head_learns_as_on_the_cpu(head: str, memory_gb: float | None, cache: Path) -> None:
    config = config_of(head, memory_gb=memory_gb)
    count = 3 if head in STACKABLE else 1
    (_, there), (_, here) = (
        trained(trials_of(config, count), data_on(device, cache, config), device) for device in (CUDA, CPU)
    )
    np.testing.assert_allclose(there, here, rtol=5e-3)


@pytest.mark.parametrize("head", ONE_LABEL)
def test_every_head_trains_in_bfloat16(head: str, cache: Path) -> None:
    count = 3 if head in STACKABLE else 1
    losses = {}
    for dtype in ("float32", "bfloat16"):
        config = config_of(head, dtype=dtype)
        outcome, losses[dtype] = trained(trials_of(config, count), data_on(CUDA, cache, config), CUDA)
        assert {value.dtype for one in outcome for value in one.state.values()} == {torch.float32}
    assert (losses["bfloat16"][-1] < losses["bfloat16"][0]).all()
    np.testing.assert_allclose(losses["bfloat16"][0], losses["float32"][0], rtol=0.02)


@pytest.mark.parametrize("head", SEVERAL_LABELS)
def test_the_classes_of_videos_are_learned_in_bfloat16(head: str, tmp_path: Path) -> None:
    config = config_of(head, supervision="weak", dtype="bfloat16")
    data = data_on(CUDA, write_parsing_cache(tmp_path / "several.h5"), config)
    _, losses = trained(trials_of(config, 1), data, CUDA)
    assert (losses[-1] < losses[0]).all()


@pytest.mark.parametrize("head", ONE_LABEL)
def test_a_run_is_predicted_and_evaluated(head: str, cache: Path, tmp_path: Path) -> None:
    """Five seeds, stacked where the head allows it, end in predictions that the CPU gives as well."""
    train_head(cache, tmp_path / "run", config_of(head, seeds=5, device=str(CUDA)))
    run = Run.open(tmp_path / "run", "heads")
    trials = read_trials(run)
    config = trials[0].config
    here, written = data_on(CPU, cache, config), read_predictions(run)["test"]
    for trial, found in zip(trials, written, strict=True):
        expected = predict_split(load_model(run, trial, CPU), trial, here, "test")
        # The GPU's are of TF32.
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-2)
    assert run.record.hardware.endswith("float32 as TF32")
    group = evaluate(run.path).groups[head]
    mean = float(np.mean([trial.test_score for trial in trials]))
    assert group.accuracy_percent.mean == pytest.approx(100 * mean, abs=1e-3)
