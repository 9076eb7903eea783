"""What training heads takes is told beforehand where it is long, and refused where memory cannot hold it."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

import avel
from avel import forecast as ground
from avel.errors import ConfigError
from avel.heads.training import forecast
from avel.heads.training.data import read_data
from avel.heads.training.trials import Trial
from avel.stores.features import FeatureCache
from tests.heads.synthetic import train_config, write_cache

MLP = train_config(head="mlp", batch_size=4, epochs=100, lr=1e-3)


@pytest.fixture
def large_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is measured, as those of large heads are; 1 MB is free."""
    monkeypatch.setattr(forecast, "SMALL_STEP_FLOP", 0)
    monkeypatch.setattr(forecast, "free_memory", lambda: 10**6)


def test_a_step_that_does_not_fit_is_refused_with_the_batch_that_fits(
    tmp_path: Path, large_steps: None
) -> None:
    cache = FeatureCache.open(write_cache(tmp_path / "c.h5", samples=400))
    config = train_config(head="tacma", batch_size=200)
    data = read_data(cache, config, torch.device("cpu"))
    trials = [Trial(f"seed={seed}", dataclasses.replace(config, seed=seed)) for seed in range(2)]
    with pytest.raises(ConfigError, match=r"a step of tacma with 200 clips of 2 trials together") as caught:
        forecast.check_step_fits(trials, data, torch.device("cpu"))
    assert caught.value.hint.endswith("--together never")


def test_the_batch_that_is_named_fits_and_the_next_larger_does_not(
    tmp_path: Path, large_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = write_cache(tmp_path / "c.h5", samples=400)
    options = {"head": "mlp", "epochs": 1}
    with pytest.raises(ConfigError, match=r"takes about .* MB of memory, 1\.0 MB are free") as caught:
        avel.train_head(cache, tmp_path / "run", batch_size=240, **options)
    found = re.fullmatch(r"--batch-size (\d+)", caught.value.hint)
    assert found, caught.value.hint
    with pytest.raises(ConfigError):
        avel.train_head(cache, tmp_path / "run", batch_size=int(found[1]) + 1, **options)
    again = avel.train_head(cache, tmp_path / "run", batch_size=int(found[1]), **options)
    assert again.samples, "a refusal does not take the name of the run"


def test_long_training_is_told_beforehand_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = write_cache(tmp_path / "c.h5")
    plain = avel.train_head(cache, tmp_path / "plain", dataclasses.replace(MLP, seeds=2))
    assert "on this CPU" not in capsys.readouterr().err
    monkeypatch.setattr(ground, "LONG_SECONDS", 0.0)
    told = avel.train_head(cache, tmp_path / "told", dataclasses.replace(MLP, seeds=2))
    assert re.search(r"about .* s on this CPU for 2 trials; ", capsys.readouterr().err)
    assert told.groups["mlp"].accuracy_percent == plain.groups["mlp"].accuracy_percent
    avel.train_head(cache, tmp_path / "short", MLP, epochs=2)
    assert "on this CPU" not in capsys.readouterr().err, "too few steps to be long"


def test_a_leaderboard_tells_it_for_all_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ground, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(forecast, "LONG_STEPS", 1)
    cache = write_cache(tmp_path / "c.h5")
    avel.leaderboard(cache, tmp_path / "out", heads=["mlp", "tacma"], seeds=2, settings={"epochs": 1})
    first, _, rest = capsys.readouterr().err.partition("== head 1 of 2")
    assert "on this CPU for 4 trials" in first
    assert rest.count("on this CPU for 2 trials") == 2
