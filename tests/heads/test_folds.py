"""`cross_validate`: each sample is predicted once, by networks that saw neither its video nor its group."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import avel
import avel.heads.train
from avel.cli import cli
from avel.console import DONE, USAGE
from avel.console import run as run_command
from avel.errors import ConfigError, DatasetError, StoreError, TrainingError
from avel.heads.evaluation.predictions import read_predictions
from avel.heads.folds import FoldCache, FoldsResult, cross_validate, deal, train_and_val
from avel.heads.train import LoadedCache
from avel.stores.datasets.labels import ClassTable
from avel.stores.features import FeatureCache
from avel.stores.runs import Run
from avel.text import from_plain
from tests.heads.synthetic import train_config, write_cache, write_negatives

QUICK: dict[str, Any] = {"head": "mlp", "epochs": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cache(tmp_path_factory.mktemp("cache") / "c.h5")


@pytest.fixture(scope="module")
def result(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> FoldsResult:
    folder = tmp_path_factory.mktemp("folds") / "f"
    return cross_validate(cache, folder, {"lr": [0.0, 1e-2]}, folds=3, seeds=2, **QUICK)


def own_samples(cache: Path) -> list[int]:
    samples = FeatureCache.open(cache).samples
    return sorted(samples.number[samples.split != "test"].tolist())


def test_each_sample_of_train_and_val_is_predicted_once_a_seed(cache: Path, result: FoldsResult) -> None:
    predicted: dict[str, list[int]] = {}
    for number in (1, 2, 3):
        run = Run.open(Path(result.run).parent / "folds" / str(number), "heads")
        for item in read_predictions(run)["test"]:
            predicted.setdefault(item.trial, []).extend(item.number.tolist())
    assert len(predicted) == 4
    assert all(sorted(samples) == own_samples(cache) for samples in predicted.values())
    assert result.samples == len(own_samples(cache))


def test_the_score_is_that_of_all_predictions_together(result: FoldsResult) -> None:
    right: dict[str, list[Any]] = {}
    for number in (1, 2, 3):
        run = Run.open(Path(result.run).parent / "folds" / str(number), "heads")
        for item in read_predictions(run)["test"]:
            right.setdefault(item.trial, []).append(item.probabilities.argmax(-1) == item.label)
    of_trial = {trial: 100 * np.concatenate(parts).mean() for trial, parts in right.items()}
    for each in result.results:
        own = [of_trial[f"lr={each.settings['lr']},seed={seed}"] for seed in (0, 1)]
        assert each.score_percent.mean == pytest.approx(np.mean(own))
        assert each.score_percent.std == pytest.approx(np.std(own, ddof=1))
    never_learned, learned = result.results
    assert result.best == learned.settings == {"lr": 1e-2}
    gain = learned.difference["accuracy"]
    assert gain.points == pytest.approx(learned.score_percent.mean - never_learned.score_percent.mean)  # type: ignore[operator]
    assert not gain.level
    assert not never_learned.difference


def test_the_best_settings_are_trained_on_the_whole_split(cache: Path, result: FoldsResult) -> None:
    run = Run.open(result.run, "heads")
    samples = FeatureCache.open(cache).samples
    first = read_predictions(run)["test"][0]
    assert first.number.tolist() == samples.number[samples.split == "test"].tolist()
    assert result.evaluation.groups["mlp"].seeds == (0, 1)


def test_the_parts_of_a_fold_share_no_sample(cache: Path) -> None:
    whole = LoadedCache.open(cache, "cpu")
    config = train_config(head="mlp", device="cpu")
    data = whole.data(config)
    fold = np.arange(len(data.splits["train"]) + len(data.splits["val"])) % 4
    for number in range(4):
        splits = FoldCache(whole, fold, number, 4).data(config).splits
        numbers = {name: set(split.number.tolist()) for name, split in splits.items()}
        assert not numbers["train"] & numbers["val"]
        assert not numbers["train"] & numbers["test"]
        assert not numbers["val"] & numbers["test"]
        assert sorted(set.union(*numbers.values())) == own_samples(cache)
        assert {name: split.name for name, split in splits.items()} == {name: name for name in splits}


def test_groups_stay_whole(cache: Path, tmp_path: Path) -> None:
    opened = FeatureCache.open(cache)
    groups = tmp_path / "groups.csv"
    group_of = {id: str(number // 5) for number, id in enumerate(opened.video_ids)}
    groups.write_text("video_id,group\n" + "".join(f"{id},{name}\n" for id, name in group_of.items()))
    found = cross_validate(cache, tmp_path / "f", {}, folds=3, groups=groups, **QUICK)
    folds_of: dict[str, set[int]] = {}
    for number in (1, 2, 3):
        run = Run.open(tmp_path / "f" / "folds" / str(number), "heads")
        for id in read_predictions(run)["test"][0].video_id:
            folds_of.setdefault(group_of[id], set()).add(number)
    assert all(len(folds) == 1 for folds in folds_of.values())
    assert found.groups == len(folds_of)
    groups.write_text("video_id,group\nnobody,1\n")
    with pytest.raises(DatasetError, match="no group for"):
        cross_validate(cache, tmp_path / "g", {}, folds=3, groups=groups, **QUICK)
    with pytest.raises(TrainingError, match="groups of videos have known events, too few for 50 folds"):
        cross_validate(cache, tmp_path / "g", {}, folds=50, **QUICK)


def test_classes_are_dealt_evenly(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "c.h5", samples=200, splits=(0.6, 0.9))
    cross_validate(cache, tmp_path / "f", {}, folds=3, **QUICK | {"epochs": 1})
    counts = []
    for number in (1, 2, 3):
        run = Run.open(tmp_path / "f" / "folds" / str(number), "heads")
        label = read_predictions(run)["test"][0].label
        counts.append(np.bincount(label.min(1), minlength=3))
    assert np.ptp(counts, axis=0).max() <= 1


def test_it_goes_on_where_it_stopped_and_refuses_other_settings(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = avel.heads.train.fit, []

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(avel.heads.train, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(cache, tmp_path / "f", {}, folds=3, **QUICK)
    again = cross_validate(cache, tmp_path / "f", {}, folds=3, **QUICK)
    assert len(calls) == 2 + 2 + 1  # the first fold is not trained again
    assert again == cross_validate(cache, tmp_path / "f", {}, folds=3, **QUICK)
    assert len(calls) == 5
    with pytest.raises(StoreError):
        cross_validate(cache, tmp_path / "f", {}, folds=4, **QUICK)


def test_avel_runs_leaves_the_folds_out(result: FoldsResult) -> None:
    assert [line.run for line in avel.list_runs(Path(result.run).parent)] == [Path(result.run).name]


def test_the_command_prints_a_table(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept = ["--head", "mlp", "--set", "epochs=2", "--set", "weight_decay=0,0.01", "--device", "cpu"]
    command = ["sweep", str(cache), str(tmp_path / "f"), *swept, "--folds", "3"]
    assert run_command(cli, command) == DONE
    shown = capsys.readouterr().out
    assert "minus the first" in shown
    assert "would show it" in shown
    assert "weight_decay=0.01" in shown
    written = (tmp_path / "f" / "folds.json").read_text()

    assert from_plain(FoldsResult, json.loads(written)).lines()[0] in shown
    assert run_command(cli, [*command, "--trials", "3"]) == USAGE
    assert run_command(cli, ["sweep", str(cache), str(tmp_path / "g"), "--groups", "x.csv"]) == USAGE


def test_settings_that_fail_are_named_beside_the_results_of_the_others(cache: Path, tmp_path: Path) -> None:
    found = cross_validate(cache, tmp_path / "f", {"lr": [1e38, 1.00001e38, 1e-3]}, folds=3, **QUICK)
    assert [each.settings for each in found.results] == [{"lr": 1e-3}]
    assert [each.settings for each in found.failed] == [{"lr": 1e38}, {"lr": 1.00001e38}]
    failure = found.failed[0].failure
    assert failure.startswith("fold 1, seed 0: ")
    assert found.lines().count(f"failed: lr=1e+38: {failure}") == 2
    assert found.best == {"lr": 1e-3}


def test_two_folds_are_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none is left"):
        cross_validate(cache, tmp_path / "f", {}, folds=2, **QUICK)


def test_clips_without_events_are_in_the_train_part_of_every_fold(tmp_path: Path) -> None:
    cache, more = write_cache(tmp_path / "c.h5"), write_negatives(tmp_path / "n.h5")
    options = {"head": "mlp", "epochs": 1, "device": "cpu", "supervision": "weak", "negatives": str(more)}
    found = cross_validate(cache, tmp_path / "folds", {}, folds=3, **options)
    assert found.samples == 48
    for fold in range(1, 4):
        lines = read_predictions(Run.open(tmp_path / "folds" / "folds" / str(fold), "heads"))
        assert not [name for item in lines["test"] for name in item.video_id if name.startswith("negative")]


def test_a_network_learns_nothing_of_a_group_that_it_is_evaluated_on(tmp_path: Path) -> None:
    """Of every second sample only the class is known; it is of one group with the sample before it."""
    lacks = np.arange(60) % 2 == 1
    label = np.where(lacks[:, None], -1, np.arange(60)[:, None] // 2 % 3 + np.zeros(6, int))
    label[::4, 3:] = np.where(lacks[::4, None], -1, 3)
    classes = ClassTable(lacks, np.flatnonzero(lacks), np.arange(30) % 3)
    cache = write_cache(tmp_path / "c.h5", label=label, known=~lacks, classes=classes)
    groups = tmp_path / "groups.csv"
    rows = (f"-video{number},{number // 2}\n" for number in range(59))
    groups.write_text("video_id,group\n" + "".join(rows))
    options = QUICK | {"epochs": 1, "supervision": "weak", "select_by": "segments"}
    with pytest.raises(TrainingError, match="have known classes, but no known times"):
        cross_validate(cache, tmp_path / "f", {}, folds=3, groups=groups, **options)
    whole = LoadedCache.open(cache, "cpu")
    config = train_config(head="mlp", device="cpu", supervision="weak")
    samples = train_and_val(whole.data(config))
    group = np.array([str(number // 2) for number in range(48)])
    fold = deal(group, samples, 3, seed=0)
    for number in range(3):
        splits = FoldCache(whole, fold, number, 3).data(config).splits
        assert splits["test"].known.all()
        assert splits["val"].known.all()
        of_split = {name: {int(each - 100) // 2 for each in split.number} for name, split in splits.items()}
        assert not of_split["train"] & (of_split["test"] | of_split["val"])


def test_folds_need_groups_with_known_events(tmp_path: Path) -> None:
    classes = ClassTable(np.ones(60, bool), np.arange(60), np.arange(60) % 3)
    zeros = np.zeros((59, 6, 12))
    cache = write_cache(tmp_path / "c.h5", label=np.full((60, 6), -1), classes=classes, f_a=zeros, f_v=zeros)
    with pytest.raises(TrainingError, match="0 groups of videos have known events, too few for 3 folds"):
        cross_validate(cache, tmp_path / "f", {}, folds=3, supervision="weak", **QUICK)
