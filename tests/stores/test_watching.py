"""What watches a run gets every line: a function of the user's, and TensorBoard."""

import sys
from pathlib import Path
from typing import Any

import pytest

from avel.errors import ConfigError
from avel.heads.train import train_head
from avel.stores.runs import Run
from avel.stores.watching import find_hook
from tests.heads.synthetic import write_cache
from tests.tensorboard import install

HOOK = "received = []\n\ndef log(run, line):\n    received.append((run, line))\n"


def test_a_function_in_the_working_folder_gets_every_line_of_a_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("my_watch.py").write_text(HOOK)
    run = tmp_path / "run"
    train_head(write_cache(tmp_path / "c.h5"), run, epochs=2, seeds=2, metrics_hook="my_watch:log")
    received: Any = sys.modules.pop("my_watch").received  # type: ignore[attr-defined]
    assert [line for _, line in received] == Run.open(run).metrics()
    assert {folder for folder, _ in received} == {str(run)}


def test_each_trial_of_a_head_is_a_curve_of_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = install(monkeypatch)
    run = tmp_path / "run"
    train_head(write_cache(tmp_path / "c.h5"), run, epochs=2, seeds=2, tensorboard=True)
    assert set(made) == {str(run / "tensorboard" / f"seed={seed}") for seed in (0, 1)}
    assert all(events.closed for events in made.values())
    for line in Run.open(run).metrics():
        events = made[str(run / "tensorboard" / line["trial"])]
        assert events.scalars["val_score", line["epoch"]] == line["val_score"]


@pytest.mark.parametrize(
    "name", ["no_such_module:log", "json:no_such_function", "json", "math:pi", "./watch.py:log"]
)
def test_what_is_no_function_is_refused_before_a_run_begins(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"metrics_hook='{name}'"):
        find_hook(name)
    with pytest.raises(ConfigError, match=f"metrics_hook='{name}'"):
        train_head(write_cache(tmp_path / "c.h5"), tmp_path / "run", epochs=1, metrics_hook=name)
    assert not (tmp_path / "run").exists()
