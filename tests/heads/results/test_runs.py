"""`runs`: what is listed of a folder with finished, unfinished and other runs."""

from pathlib import Path
from typing import Any

import pytest

import avel.heads.training.train
from avel.errors import MissingPathError
from avel.heads.results.runs import list_runs
from avel.heads.training.train import sweep, train_head
from avel.stores.files import write_json
from tests.heads.synthetic import write_cache


def test_runs_are_listed_with_results_and_what_sets_them_apart(tmp_path: Path, monkeypatch: Any) -> None:
    cache = write_cache(tmp_path / "features.h5")
    runs = tmp_path / "runs"
    sweep(cache, runs / "theta", {"theta": [0, 0.1]}, seeds=2, epochs=2, d_h=8)
    results = train_head(cache, runs / "deep" / "mlp", head="mlp", epochs=2)
    monkeypatch.setattr(avel.heads.training.train, "fit", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_head(cache, runs / "broken", head="mlp", epochs=2, lr=0.5)
    lines = list_runs(runs)
    assert [(line.run, line.group, line.seeds) for line in lines] == [
        ("broken", "", 0),
        ("deep/mlp", "mlp", 1),
        ("theta", "theta=0.0", 2),
        ("theta", "theta=0.1", 2),
    ]
    assert [line.state for line in lines] == ["not finished", "finished", "finished", "finished"]
    assert lines[0].accuracy_percent is None
    mlp = results["groups"]["mlp"]
    assert lines[1].accuracy_percent == mlp["accuracy_percent"]["mean"]
    assert [lines[1].low_percent, lines[1].high_percent] == mlp["interval_percent"]
    assert lines[0].differs["lr"] == 0.5
    assert lines[1].differs["lr"] == 1e-4
    assert "supervision" not in lines[1].differs
    assert len({line.inputs for line in lines}) == 1


def test_runs_of_another_kind_are_listed_without_figures(tmp_path: Path) -> None:
    record = {"format": 1, "kind": "pretrain", "config": {"epochs": 100}, "inputs": {}, "started": "now"}
    write_json(tmp_path / "avbt" / "run.json", record)
    (line,) = list_runs(tmp_path)
    assert (line.run, line.kind, line.head, line.accuracy_percent) == ("avbt", "pretrain", "", None)


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="no avel run here"):
        list_runs(tmp_path)
