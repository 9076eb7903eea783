"""What a new user reads: each command ends with its result and what is next, within the terminal's width."""

import re
from pathlib import Path

import numpy as np
import pytest

from avel.cli import cli
from avel.console import DONE, run
from avel.heads.train import sweep, train_head
from tests.heads.synthetic import write_cache

RAW = re.compile(r"[{}]|_percent|\bNone\b|\b\w+_\w+_\w+\b(?!\.)")
"""What only scripts should read: dictionaries, keys."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache, two runs of heads, and a sweep."""
    folder = tmp_path_factory.mktemp("made")
    cache = write_cache(folder / "features.h5")
    train_head(cache, folder / "runs" / "mlp", head="mlp", epochs=30, lr=3e-3, seeds=2)
    train_head(cache, folder / "runs" / "tacma", epochs=1, seeds=2)
    sweep(cache, folder / "runs" / "theta", {"theta": [0, 0.03]}, epochs=1)
    return folder


COMMANDS = {
    "inspect features.h5": r"features.h5: a feature cache, 60 samples of 59 clips, 3 classes and background",
    "inspect runs/mlp": r"runs/mlp: a run, avel train-head of head mlp, finished",
    "diff features.h5 features.h5": "A and B hold the same",
    "train-head features.h5 runs/mlp --head mlp --epochs 30 --lr 3e-3 --seeds 2": "better than always",
    "sweep features.h5 runs/theta --set theta=0,0.03 --epochs 1": r"theta=0\.\d*: test accuracy",
    "evaluate runs/mlp": r"test accuracy [\d.]+ ± [\d.]+ % over 2 seeds \(validation .*an oracle\)",
    "evaluate runs/mlp --all": "better than always background",
    "evaluate runs/theta --all": "theta=0",
    "compare runs/mlp runs/tacma": "segment accuracy, A - B:",
    "runs runs": "3 runs; best on validation: mlp, test ",
    "runs runs --against runs/tacma": "3 runs; best on validation",
    "heads": r"\d+ heads",
    "heads psp": r"psp: \d+ settings",
    "export-features features.h5 exported --overwrite": r"exported: \d+ files as the published code",
    "doctor --no-self-test": r"checks",
}
"""Command -> what its last line says."""


@pytest.mark.parametrize("columns", [80, 140])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_with_its_result_and_what_is_next(
    made: Path,
    command: str,
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run(cli, command.split()) == DONE
    out, err = capsys.readouterr()
    wide = [line.strip() for line in out.splitlines() if len(line) > columns]
    wide = [line for line in wide if not line.startswith("https://") or " " in line]  # a URL stays whole
    assert not wide
    printed = out.splitlines()
    first = max(place for place, line in enumerate(printed) if not line.startswith(" "))
    result = " ".join(line.strip() for line in printed[first:])
    assert re.search(COMMANDS[command], result)
    if not command.startswith("diff"):
        assert "  next: " in err
    if not command.startswith("heads "):
        assert not [line for line in printed if RAW.search(line)]


@pytest.mark.parametrize("audio", [128, 8])
def test_exported_files_read_back_by_the_command_that_is_next(
    tmp_path: Path, audio: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """AVE's files have 128 audio and 512 visual features; others need --any-size."""
    arrays = {"f_a": np.zeros((59, 10, audio), np.float32), "f_v": np.zeros((59, 10, 512), np.float32)}
    cache = write_cache(tmp_path / "c.h5", segments=10, **arrays)
    assert run(cli, ["export-features", str(cache), str(tmp_path / "out")]) == DONE
    assert ("--any-size" in capsys.readouterr().err) == (audio != 128)


def test_all_figures_begin_with_the_honest_one(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    assert run(cli, ["-q", "evaluate", "runs/mlp", "--all"]) == DONE
    shown = capsys.readouterr().out
    order = ["accuracy", "95 % interval", "always background", "segment F1", "recall, %", "best test epoch"]
    places = [shown.index(word) for word in order]
    assert places == sorted(places)


def test_the_short_result_leaves_the_details_out(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setenv("COLUMNS", "200")
    assert run(cli, ["-q", "evaluate", "runs/mlp"]) == DONE
    (line,) = capsys.readouterr().out.splitlines()
    assert "validation" in line
