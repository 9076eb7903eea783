"""`runs`: what is listed of a folder with finished, unfinished and other runs."""

import csv
import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import avel
import avel.heads.train
from avel.cli import cli
from avel.console import DONE, USAGE
from avel.console import run as run_command
from avel.errors import MissingPathError, StoreError, TrainingError
from avel.heads.evaluation.compare import compare
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.evaluation.evaluation import Evaluation, FailedTrial
from avel.heads.evaluation.runs import RunLine, best_line, list_runs, run_headline, run_table
from avel.heads.train import sweep, train_head
from avel.pipeline.config import PretrainConfig
from avel.stores.runs import Run
from tests.heads.synthetic import write_cache


def test_runs_are_listed_with_results_and_what_sets_them_apart(tmp_path: Path, monkeypatch: Any) -> None:
    cache = write_cache(tmp_path / "features.h5")
    runs = tmp_path / "runs"
    sweep(cache, runs / "theta", {"theta": [0, 0.1]}, seeds=2, epochs=2, d_h=8)
    results = train_head(cache, runs / "deep" / "mlp", head="mlp", epochs=2)
    monkeypatch.setattr(avel.heads.train, "fit", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_head(cache, runs / "broken", head="mlp", epochs=2, lr=0.5)
    lines = list_runs(runs)
    assert [(line.run, line.seeds) for line in lines] == [
        *(("broken", 0), ("deep/mlp", 1), ("theta", 2), ("theta", 2))
    ]
    assert [line.group for line in lines[:2]] == ["", "mlp"]
    assert {line.group for line in lines[2:]} == {"theta=0.0", "theta=0.1"}
    assert [line.state for line in lines] == ["not finished", "finished", "finished", "finished"]
    assert lines[0].accuracy_percent is None
    mlp = results.groups["mlp"]
    assert lines[1].accuracy_percent == mlp.accuracy_percent.mean
    assert (lines[1].low_percent, lines[1].high_percent) == mlp.interval_percent
    assert lines[0].differs["lr"] == 0.5
    assert lines[1].differs["lr"] == 1e-4
    assert lines[2].validation_percent is not None
    assert lines[2].holding_background_percent is not None
    assert set(lines[1].differs) == {"lr"}
    assert len({line.inputs for line in lines}) == 1


def test_lines_of_a_sweep_begin_with_the_best_on_validation(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "features.h5")
    run = sweep(cache, tmp_path / "runs" / "lr", {"lr": [1e-9, 1e-2]}, head="mlp", epochs=3)
    scores = [group.validation_score_percent.mean for group in run.groups.values()]
    assert scores[1] > scores[0]
    assert [line.group for line in list_runs(tmp_path / "runs")] == ["lr=0.01", "lr=1e-09"]


def test_a_folder_that_is_a_run_is_called_by_its_head(tmp_path: Path) -> None:
    train_head(write_cache(tmp_path / "features.h5"), tmp_path / "run", head="mlp", epochs=1)
    assert run_headline(list_runs(tmp_path / "run")).startswith("1 run; best on validation: mlp, test ")


def test_a_default_sets_a_run_apart_from_one_that_was_given_another_value(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "features.h5")
    train_head(cache, tmp_path / "runs" / "with", head="psp", epochs=1)
    train_head(cache, tmp_path / "runs" / "without", head="psp", epochs=1, pair_loss=0)
    assert [line.differs for line in list_runs(tmp_path / "runs")] == [
        {"pair_loss": 100.0},
        {"pair_loss": 0.0},
    ]


def test_a_setting_that_another_run_sweeps_sets_a_run_apart(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "features.h5")
    sweep(cache, tmp_path / "runs" / "sweep", {"theta": [0, 0.1]}, epochs=1, d_h=8)
    train_head(cache, tmp_path / "runs" / "tacma", epochs=1, d_h=8, theta=0.2)
    train_head(cache, tmp_path / "runs" / "mlp", head="mlp", epochs=1)
    differs = {line.run: line.differs for line in list_runs(tmp_path / "runs")}
    assert differs == {"sweep": {}, "tacma": {"theta": 0.2}, "mlp": {}}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A sweep over heads and one over theta, and a run of a head."""
    cache = write_cache(tmp_path / "features.h5")
    sweep(cache, tmp_path / "runs" / "heads", {"head": ["mlp", "cross_attention"]}, epochs=2)
    sweep(cache, tmp_path / "runs" / "theta", {"theta": [0, 0.1]}, epochs=2, d_h=8, seeds=2)
    train_head(cache, tmp_path / "runs" / "tacma", epochs=2, d_h=16, device="cpu")
    return tmp_path / "runs"


def test_each_line_of_a_sweep_over_heads_names_its_head(runs: Path) -> None:
    heads = {(line.group, line.head) for line in list_runs(runs) if line.run == "heads"}
    assert heads == {("head=cross_attention", "cross_attention"), ("head=mlp", "mlp")}
    (runs / "heads" / "results.json").unlink()
    assert [line.head for line in list_runs(runs) if line.run == "heads"] == [""]


def test_the_command_shows_what_one_compares_by(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(cli, ["runs", str(runs)]) == DONE
    header, _, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert re.split("  +", header) == [
        *("run", "settings", "seeds", "test", "event F1", "val", "best test epoch", "holding background")
    ]
    lines = list_runs(runs)
    settings = {
        "heads": "{}",
        "tacma": "{} d_h=16 theta=0.03",
        "theta": "tacma {} d_h=8",
    }
    assert [re.split("  +", row)[:3] for row in rows] == [
        [line.run, settings[line.run].format(line.group), str(line.seeds)] for line in lines
    ]
    last = lines[-1]
    assert re.split("  +", rows[-1])[3:] == [
        f"{last.accuracy_percent:.1f} ± {last.std_percent:.1f}",
        f"{last.event_f1_percent:.1f}",
        f"{last.validation_percent:.1f}",
        f"{last.best_test_epoch_percent:.1f}",
        f"{last.holding_background_percent:.1f}",
    ]
    assert max(map(len, [header, *rows])) <= 120


def test_the_command_gives_every_column_as_json_and_csv(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [field.name for field in fields(RunLine)]
    lines = list_runs(runs)
    assert run_command(cli, ["runs", str(runs), "--json"]) == DONE
    shown = json.loads(capsys.readouterr().out)
    assert [list(row) for row in shown] == [names] * len(lines)
    assert [row["accuracy_percent"] for row in shown] == [line.accuracy_percent for line in lines]
    assert run_command(cli, ["runs", str(runs), "--csv"]) == DONE
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [list(row) for row in rows] == [names] * len(lines)
    assert [float(row["accuracy_percent"]) for row in rows] == [line.accuracy_percent for line in lines]
    assert [json.loads(row["differs"]) for row in rows] == [line.differs for line in lines]
    assert run_command(cli, ["runs", str(runs), "--csv", "--json"]) == USAGE
    assert "--csv and --json together" in capsys.readouterr().err


def test_trials_that_failed_are_counted_and_a_group_of_them_keeps_its_line(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    sweep(write_cache(tmp_path / "c.h5"), runs / "lr", {"lr": [1e-3, 1e38]}, head="mlp", epochs=1, seeds=2)
    run = Run.open(runs / "lr")
    found = run.read_results(Evaluation)
    assert [(trial.name, trial.group) for trial in found.failed_trials] == [
        ("lr=1e+38,seed=0", "lr=1e+38"),
        ("lr=1e+38,seed=1", "lr=1e+38"),
    ]
    one_more = FailedTrial("lr=0.001,seed=2", "lr=0.001", "the loss is nan in epoch 1")
    run.finish(replace(found, failed_trials=(*found.failed_trials, one_more)))
    lines = list_runs(runs)
    assert [(line.group, line.seeds, line.failed) for line in lines] == [
        ("lr=0.001", 2, 1),
        ("lr=1e+38", 0, 2),
    ]
    header, _, evaluated, failed = (re.split("  +", row) for row in run_table(lines)[:4])
    assert header[:5] == ["run", "settings", "seeds", "failed", "test"]
    assert evaluated[1:4] == ["mlp lr=0.001", "2", "1"]
    assert failed[1:4] == ["mlp lr=1e+38", "2", "failed"]
    assert "failed: lr: lr=1e+38,seed=0: the scores are not finite after epoch 1" in run_table(lines)


def test_a_run_all_of_whose_trials_failed_says_why(tmp_path: Path) -> None:
    runs, cache = tmp_path / "runs", write_cache(tmp_path / "c.h5")
    why = "seed=0: the scores are not finite after epoch 1"
    with pytest.raises(TrainingError, match=why):
        train_head(cache, runs / "a", head="mlp", lr=1e38, epochs=1, seeds=2)
    (line,) = list_runs(runs)
    assert (line.state, line.seeds, line.failed, line.failure) == ("failed", 0, 2, why)
    assert f"failed: a: {why}" in run_table([line])
    for read in (lambda: avel.report([runs / "a"], tmp_path / "report"), lambda: evaluate(runs / "a")):
        with pytest.raises(TrainingError, match=why):
            read()


def test_no_run_is_the_best_where_validation_scores_are_of_several_kinds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, cache = tmp_path / "runs", write_cache(tmp_path / "c.h5")
    for supervision in ("full", "weak"):
        train_head(cache, runs / supervision, head="mlp", epochs=1, supervision=supervision)
    lines = list_runs(runs)
    assert [line.selected_by for line in lines] == ["segments", "videos"]
    assert not any(line.differences for line in lines)
    assert best_line(lines) is None
    assert run_command(cli, ["runs", str(runs)]) == DONE
    shown = capsys.readouterr()
    told = " ".join((shown.out + shown.err).split())
    assert "2 runs; their validation scores are of several kinds, so none is the best" in told
    assert f"next: avel runs {runs} --against RUN" in told


def test_runs_are_compared_with_one_of_them(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = {(line.run, line.group): line for line in list_runs(runs, against=runs / "tacma")}
    assert lines["tacma", "tacma"].differences == {}
    for group in ("theta=0.0", "theta=0.1"):
        found = compare(runs / "theta", runs / "tacma", settings_a=group)
        assert lines["theta", group].differences == found.differences
    assert run_command(cli, ["runs", str(runs), "--against", str(runs / "tacma")]) == DONE
    told, header, _, *rows, note = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert re.fullmatch(r"minus tacma: these clips and seeds resolve about \d+\.\d points of accuracy", told)
    assert re.split("  +", header) == ["run", "settings", "accuracy, 95 %", "event F1, 95 %", "would show it"]
    assert len(rows) == 4
    assert "clips or seeds" in note
    last = list(lines.values())[-1].differences
    shown = [str(last["accuracy"]), str(last["event_f1"]), last["accuracy"].needed]
    assert re.split("  +", rows[-1])[2:] == [each for each in shown if each]


def test_lines_compared_with_several_runs_or_by_several_measures_have_tables_of_their_own(runs: Path) -> None:
    lines = [line for line in list_runs(runs, against=runs / "tacma") if line.differences]
    of_parsing = {
        "segment_f1": lines[1].differences["segment_f1"],
        "event_f1": lines[1].differences["event_f1"],
    }
    told = run_table([lines[0], replace(lines[1], differences=of_parsing, against="han"), *lines[2:]])
    tables = [at for at, text in enumerate(told) if text.startswith("minus ")]
    assert [told[at].partition(":")[0] for at in tables] == ["minus tacma", "minus han"]
    headers = [re.split("  +", told[at + 1])[2] for at in tables]
    assert headers == ["accuracy, 95 %", "segment F1, 95 %"]
    assert [told[at].rpartition(" of ")[2] for at in tables] == ["accuracy", "segment F1"]
    assert re.split("  +", told[tables[1] + 3])[2] == str(of_parsing["segment_f1"])


def test_runs_are_compared_with_the_best_on_validation_unless_another_is_named(runs: Path) -> None:
    lines = list_runs(runs)
    best = max(lines, key=lambda line: line.validation_percent or 0)
    assert [line.differences == {} for line in lines] == [line is best for line in lines]
    others = list_runs(runs, against=runs / "tacma")
    assert {line.against for line in others} == {"tacma", ""}
    named = best.run if best.group in ("tacma", best.head) else f"{best.run} ({best.group})"
    assert {line.against for line in lines} == {named, ""}


def test_runs_on_other_samples_or_without_predictions_are_listed_without_differences(
    runs: Path, tmp_path: Path
) -> None:
    train_head(write_cache(tmp_path / "other.h5", segments=5), runs / "other", head="mlp", epochs=1, lr=0)
    with pytest.raises(StoreError, match=r"runs/heads and .*/runs/other: .* differ in labels or videos"):
        list_runs(runs, against=runs / "other")
    lines = list_runs(runs)
    best = max(lines, key=lambda line: line.validation_percent or 0).run
    compared = {line.run for line in lines if line.differences}  # heads and theta have two lines each
    assert compared == {"heads", "theta", "tacma"} - ({best} & {"tacma"})
    lost = "heads" if best == "tacma" else "tacma"
    (runs / lost / "predictions.parquet").unlink()
    assert {line.run for line in list_runs(runs) if line.differences} == compared - {lost}


def test_a_finished_run_is_listed_though_the_record_of_a_trial_is_damaged(tmp_path: Path) -> None:
    train_head(write_cache(tmp_path / "features.h5"), tmp_path / "run", head="mlp", epochs=1)
    (record,) = (tmp_path / "run" / "trials").glob("*.json")
    record.write_text("{}")
    (line,) = list_runs(tmp_path)
    assert line.accuracy_percent is not None


def test_the_table_names_caches_where_there_are_several(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("other", 1)):
        train_head(write_cache(tmp_path / f"{name}.h5", seed=seed), tmp_path / "runs" / name, epochs=1)
    lines = list_runs(tmp_path / "runs")
    header, _, *rows = run_table(lines)
    assert header.endswith("cache")
    assert [row.split()[-1] for row in rows] == [line.inputs for line in lines]


def test_runs_of_another_kind_are_listed_without_figures(tmp_path: Path) -> None:
    Run.create(tmp_path / "avbt", "pretrain", PretrainConfig(), inputs={})
    (line,) = list_runs(tmp_path)
    assert (line.run, line.kind, line.head, line.accuracy_percent) == ("avbt", "pretrain", "", None)
    assert re.split("  +", run_table([line])[2]) == ["avbt", "pretrain", "not finished"]


def test_a_run_whose_results_are_damaged_is_named(runs: Path) -> None:
    (runs / "tacma" / "results.json").write_text("{}")
    with pytest.raises(StoreError, match=r"tacma/results.json: task is missing\s+next: delete the file"):
        list_runs(runs)


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="no avel run here"):
        list_runs(tmp_path)
