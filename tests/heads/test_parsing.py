"""Video parsing end to end: weak and full training, every figure, predictions, runs, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from avel.cli import cli
from avel.console import DONE, ERROR, run
from avel.errors import ConfigError, TrainingError
from avel.heads.evaluation.evaluate import evaluate, evaluate_split
from avel.heads.evaluation.predictions import Predictions, read_predictions, write_predictions
from avel.heads.evaluation.runs import list_runs, run_table
from avel.heads.train import LoadedCache, sweep, train_head
from avel.recipes.leaderboard.leaderboard import leaderboard
from avel.stores.datasets.labels import EventTable
from avel.stores.runs import Run
from tests.heads.parsing import C, T, longhand_labels, random_events, write_parsing_cache
from tests.heads.synthetic import train_config, write_cache

QUICK: dict[str, Any] = {"head": "mlp", "epochs": 2, "device": "cpu"}
TYPES = ("audio", "visual", "audio-visual", "Type@AV", "Event@AV")


def test_heads_learn_from_labels_of_segments(tmp_path: Path) -> None:
    cache = write_parsing_cache(tmp_path / "c.h5", weak_train=False)
    found = train_head(cache, tmp_path / "run", head="mlp", epochs=40, lr=3e-3, device="cpu")
    assert (found.task, found.measure, found.decoder) == (
        "multi_label",
        "Type@AV F1 of segments",
        "threshold",
    )
    group = found.groups["mlp"]
    assert group.parsing is not None
    assert set(group.parsing.segment_f1_percent) == set(group.parsing.event_f1_percent) == set(TYPES)
    assert group.score_percent.mean is not None
    assert group.score_percent.mean > 30 + max(found.trivial_baselines_percent.values())
    low, high = group.interval_percent or (0, 0)
    assert low < group.score_percent.mean < high
    assert group.accuracy_percent.mean is None
    val = evaluate(tmp_path / "run", "val").groups["mlp"]
    assert val.score_percent.mean == pytest.approx(group.validation_score_percent.mean)


def test_heads_learn_from_the_classes_of_clips_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cache = write_parsing_cache(tmp_path / "c.h5")
    found = train_head(
        cache, tmp_path / "run", head="mlp", supervision="weak", epochs=40, lr=3e-3, device="cpu"
    )
    score = found.groups["mlp"].score_percent.mean
    assert found.groups["mlp"].selected_by == "segments"  # val has events
    val = evaluate(tmp_path / "run", "val").groups["mlp"].score_percent.mean
    assert found.groups["mlp"].validation_score_percent.mean == pytest.approx(val)
    assert score is not None
    assert score > 5 + max(found.trivial_baselines_percent.values())
    assert "leaves out" not in capfd.readouterr().err  # clips of several classes are learned from
    with pytest.raises(
        TrainingError, match="36 of 36 train samples have known classes, but no known times"
    ) as refused:
        train_head(cache, tmp_path / "full", **QUICK)
    assert "--supervision weak" in str(refused.value)


def test_a_perfect_head_scores_100_in_everything(tmp_path: Path) -> None:
    """Predictions made of the labels, in the place of a head's."""
    train_head(write_parsing_cache(tmp_path / "c.h5", weak_train=False), tmp_path / "run", **QUICK)
    opened = Run.open(tmp_path / "run", "heads")
    (held,) = read_predictions(opened)["test"]
    labels = longhand_labels(random_events())[48:].reshape(12, T, 2 * C)
    assert held.label.tolist() == labels.tolist()
    perfect = Predictions(
        held.trial, "test", held.number, held.video_id, held.leaked, held.label, labels.astype(np.float32)
    )
    group = evaluate_split(opened, [perfect], "test").groups["mlp"]
    assert group.parsing is not None
    for figures in (group.parsing.segment_f1_percent, group.parsing.event_f1_percent):
        assert {name: spread.mean for name, spread in figures.items()} == dict.fromkeys(TYPES, 100.0)
    assert group.interval_percent == (100.0, 100.0)
    unlabelled = Predictions(
        held.trial, "val", held.number, held.video_id, held.leaked, 0 * labels - 1, perfect.probabilities
    )
    write_predictions(opened, [perfect, unlabelled])
    assert (read_predictions(opened)["val"][0].label == -1).all()
    table = pq.read_table(opened.path / "predictions.parquet")
    assert table["label"].null_count == 12 * T
    assert table["prediction"].to_pylist()[: 12 * T] == labels.reshape(-1, 2 * C).tolist()
    none = evaluate_split(opened, [unlabelled], "test")
    assert (none.samples, none.unknown_samples, none.groups["mlp"].score_percent.mean) == (0, 12, None)


def test_a_sweep_is_listed_with_its_figures(tmp_path: Path) -> None:
    cache = write_parsing_cache(tmp_path / "c.h5", weak_train=False)
    found = sweep(
        cache, tmp_path / "runs" / "theta", {"theta": [0, 0.1]}, head="tacma", epochs=2, device="cpu"
    )
    lines = list_runs(tmp_path / "runs")
    assert {line.group: line.segment_f1_percent for line in lines} == {
        name: group.score_percent.mean for name, group in found.groups.items()
    }
    assert all(line.accuracy_percent is None for line in lines)
    assert f"{lines[0].segment_f1_percent:.1f}" in run_table(lines)[2]
    best = found.best
    for line in list_runs(tmp_path / "runs", against=tmp_path / "runs" / "theta"):
        assert set(line.differences) == (set() if line.group == best else {"segment_f1", "event_f1"})


def test_a_leaderboard_compares_the_heads_that_can_be_trained(tmp_path: Path) -> None:
    cache = write_parsing_cache(tmp_path / "c.h5", weak_train=False)
    settings = {"epochs": 2, "device": "cpu"}
    board = leaderboard(cache, tmp_path / "board", heads=["mlp", "tacma", "psp"], seeds=2, settings=settings)
    assert {line.head for line in board.heads} == {"mlp", "tacma"}
    assert [skipped.head for skipped in board.skipped] == ["psp"]
    assert "is for task single_label" in board.skipped[0].reason
    best = board.heads[0]
    assert best.segment_f1_percent == best.score_percent
    found = evaluate(tmp_path / "board" / best.head).groups[best.head]
    assert best.score_percent == found.score_percent
    assert {metric for line in board.heads for metric in line.differences} == {"segment_f1", "event_f1"}
    assert any("points of Type@AV F1 of segments" in line for line in board.lines())
    assert "Type@AV F1 of segments" in (tmp_path / "board" / "leaderboard.html").read_text()


def test_from_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cache, here = write_parsing_cache(tmp_path / "c.h5"), str(tmp_path / "run")
    words = f"train-head {cache} {here} --head han --supervision weak --epochs 1 --device cpu --json".split()
    assert run(cli, words) == DONE
    shown = capfd.readouterr()
    assert shown.err.count("head han: cnn inputs are not cached, so it reads encoded inputs") == 1
    found = json.loads(shown.out)
    assert found["groups"]["han"]["parsing"]["segment_f1_percent"]["Type@AV"]["mean"] > 0
    assert run(cli, ["evaluate", here, "--split", "val", "--all"]) == DONE
    lines = capfd.readouterr().out
    assert "F1 of events, Event@AV" in lines
    assert "onset" not in lines  # its events have no tolerance
    assert run(cli, ["evaluate", here, "--decoder", "event"]) != DONE
    assert "no decoder named 'event' for task multi_label" in capfd.readouterr().err
    assert run(cli, ["train-head", str(cache), str(tmp_path / "psp"), "--head", "psp"]) != DONE
    assert "heads that can: cross_attention, han, mlp, tacma" in capfd.readouterr().err
    words = ["train-head", str(cache), str(tmp_path / "other"), "--task", "single_label"]
    assert run(cli, words) == ERROR
    assert "only visible or only audible" in capfd.readouterr().err
    assert run(cli, ["export-features", str(cache), str(tmp_path / "exported")]) == ERROR
    assert "clip36): has events that are only visible or only audible" in capfd.readouterr().err
    assert not (tmp_path / "psp").exists()
    assert not (tmp_path / "other").exists()


def test_overlapping_events_of_both_modalities_train_where_they_are_asked_to(tmp_path: Path) -> None:
    columns = ([0, 0], [1, 2], [0.0, 0.0], [6.0, 6.0], [0, 0])
    every = random_events()
    events = EventTable(
        *(
            np.concatenate((start, values))
            for start, values in zip(columns, vars(every).values(), strict=True)
        )
    )
    events = EventTable(*list(vars(events).values())[:4], modality=0 * events.modality)
    cache = write_cache(tmp_path / "c.h5", event_table=events)
    found = train_head(cache, tmp_path / "run", task="multi_label", **QUICK)
    parsing = found.groups["mlp"].parsing
    assert parsing is not None
    assert set(parsing.segment_f1_percent) == {"audio-visual", "Type@AV", "Event@AV"}
    with pytest.raises(ConfigError, match="'han' needs events of one modality alone"):
        train_head(cache, tmp_path / "han", task="multi_label", **(QUICK | {"head": "han"}))


def test_a_loaded_cache_has_the_labels_of_every_task(tmp_path: Path) -> None:
    loaded = LoadedCache.open(write_cache(tmp_path / "c.h5"), "cpu")
    for task in ("single_label", "multi_label"):
        assert loaded.data(train_config(head="mlp", task=task)).task.name == task
