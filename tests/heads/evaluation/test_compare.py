"""`compare`: two runs over predictions written by hand, counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from avel.cli import cli
from avel.console import DONE, ERROR
from avel.console import run as run_command
from avel.errors import ConfigError, StoreError, UnknownNameError
from avel.heads.evaluation.compare import Agreement, Comparison, compare
from avel.heads.evaluation.predictions import Predictions, write_predictions
from avel.heads.models.head import Widths
from avel.heads.training.fit import TrialOutcome
from avel.heads.training.records import HeadInputs, write_trial
from avel.heads.training.trials import Trial
from avel.stores.runs import Run
from avel.text import as_plain, from_plain
from tests.heads.synthetic import train_config

LABEL = np.array([[2, 0, 0, 2], [1, 1, 1, 1], [2, 1, 2, 2]])
A = ([[2, 0, 0, 2], [1, 1, 1, 1], [2, 2, 2, 2]], [[2, 0, 0, 2], [1, 1, 1, 0], [2, 1, 2, 2]])  # 11, 11 of 12
B = ([[0, 0, 0, 2], [0, 0, 1, 1], [2, 1, 2, 2]],)  # 3 + 2 + 4
KEPT = [0, 1, 2]


def write_run(
    path: Path,
    predicted: dict[str, tuple[list[list[int]], ...]],
    *,
    samples: list[int] = KEPT,
    val: tuple[float, ...] = (0.5, 0.5),
) -> Path:
    """Settings ("" for none) -> the predictions of each seed."""
    names = [
        f"{settings},seed={seed}".strip(",")
        for settings, seeds in predicted.items()
        for seed in range(len(seeds))
    ]
    inputs = HeadInputs(
        "c.h5",
        "0123",
        {},
        {},
        LABEL.shape[1],
        1.0,
        "single_label",
        ("",),
        ("bell", "dog"),
        (),
        tuple(names),
        {},
        {},
        {},
    )
    run = Run.create(path, "heads", train_config(), inputs=as_plain(inputs))
    items = []
    for place, (settings, seeds) in enumerate(predicted.items()):
        swept = {"theta": float(settings.removeprefix("theta="))} if settings else {}
        for seed, rows in enumerate(seeds):
            trial = Trial(f"{settings},seed={seed}".strip(","), train_config(seed=seed, **swept), swept)
            outcome = TrialOutcome(trial, epochs=9, best_epoch=4, val_score=val[place])
            write_trial(run, outcome, Widths(8, 8, 3), "encoded")
            probabilities = 0.1 + 0.7 * np.eye(3, dtype=np.float32)[np.array(rows)[samples]]
            ids = np.array(["-a", "_b", "c"], object)[samples]
            about = np.array(samples) + 10, ids, np.zeros(len(samples), bool), LABEL[samples]
            items.append(Predictions(trial.name, "test", *about, probabilities))
    write_predictions(run, items)
    return path


def test_two_runs_clip_by_clip(tmp_path: Path) -> None:
    found = compare(write_run(tmp_path / "a", {"": A}), write_run(tmp_path / "b", {"": B}))
    assert (found.split, found.samples, found.left_out) == ("test", 3, 0)
    assert (found.a.settings, found.a.seeds, found.b.seeds) == ("tacma", (0, 1), (0,))
    assert found.a.accuracy_percent.mean == pytest.approx(100 * 11 / 12)
    assert found.b.accuracy_percent.mean == pytest.approx(100 * 9 / 12)
    accuracy = found.differences["accuracy"]
    assert accuracy.points == pytest.approx(100 * 2 / 12)
    assert (accuracy.clips, accuracy.seeds) == (3, (2, 1))
    assert found.differences["event_f1"].points == pytest.approx(
        (found.a.event_f1_percent.mean or 0) - (found.b.event_f1_percent.mean or 0)
    )
    clips = [
        (clip.sample, clip.video_id, clip.events, clip.a_percent, clip.b_percent) for clip in found.clips
    ]
    assert clips == [(11, "_b", "dog", 87.5, 50), (10, "-a", "bell", 100, 75), (12, "c", "dog", 87.5, 100)]


def test_who_is_right_counted_over_pairs_of_seeds(tmp_path: Path) -> None:
    found = compare(write_run(tmp_path / "a", {"": A}), write_run(tmp_path / "b", {"": B}))
    counts = dict.fromkeys(((True, True), (True, False), (False, True), (False, False)), 0)
    for a in A:
        for b in B:
            for row in range(3):
                for segment in range(4):
                    true = LABEL[row, segment]
                    counts[a[row][segment] == true, b[row][segment] == true] += 1
    percents = [100 * count / sum(counts.values()) for count in counts.values()]
    assert found.agreement == Agreement(*(pytest.approx(percent) for percent in percents))


def test_clips_that_one_run_lacks_are_left_out(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", {"": A}), write_run(tmp_path / "b", {"": B}, samples=[2, 0])
    found = compare(a, b)
    assert (found.samples, found.left_out) == (2, 1)
    assert {clip.sample for clip in found.clips} == {10, 12}


def test_of_a_sweep_the_best_on_validation_is_compared_unless_named(tmp_path: Path) -> None:
    sweep = write_run(tmp_path / "s", {"theta=0.0": B, "theta=0.03": A}, val=(0.6, 0.9))
    assert compare(sweep, write_run(tmp_path / "b", {"": B})).a.settings == "theta=0.03"
    found = compare(sweep, sweep, settings_b="theta=0.0")
    assert (found.a.settings, found.b.settings) == ("theta=0.03", "theta=0.0")
    assert found.differences["accuracy"].points == pytest.approx(100 * 2 / 12)
    with pytest.raises(UnknownNameError, match="no settings named 'theta=1'"):
        compare(sweep, sweep, settings_a="theta=1")
    with pytest.raises(StoreError, match="no predictions of split 'val'"):
        compare(sweep, sweep, split="val")


def test_a_run_that_lost_its_trials_says_so(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", {"": A}), write_run(tmp_path / "b", {"": B})
    for record in (b / "trials").glob("*.json"):
        record.unlink()
    with pytest.raises(StoreError, match="no trained trial"):
        compare(a, b)


def test_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    sweep = write_run(tmp_path / "s", {"theta=0.0": B, "theta=0.03": A}, val=(0.6, 0.9))
    for settings in (None, "theta=0.03"):
        with pytest.raises(ConfigError, match=r"s \(theta=0\.03\) with itself"):
            compare(sweep, f"{tmp_path}/../{tmp_path.name}/s", settings_b=settings)


def test_the_command_prints_both_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(write_run(tmp_path / name, {"": of})) for name, of in (("a", A), ("b", B))]
    assert run_command(cli, ["compare", *runs]) == DONE
    shown = capsys.readouterr().out
    assert f"A: {runs[0]} (tacma)" in shown
    assert "segment accuracy  91.7 ± 0.0  75.0  +16.7 [" in shown
    assert "3 clips and 2 and 1 seeds resolve" in shown
    assert run_command(cli, ["compare", *runs, "--json"]) == DONE
    assert from_plain(Comparison, json.loads(capsys.readouterr().out)) == compare(*runs)
    assert run_command(cli, ["compare", runs[0], str(tmp_path / "none")]) == ERROR


def test_the_report_that_comes_next_takes_a_run_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = str(write_run(tmp_path / "s", {"theta=0.0": B, "theta=0.03": A}, val=(0.6, 0.9)))
    assert run_command(cli, ["compare", sweep, sweep, "--settings-b", "theta=0.0"]) == DONE
    assert f"next: avel report {sweep} --out report" in " ".join(capsys.readouterr().err.split())
