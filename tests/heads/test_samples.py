"""Samples with several events, with none, and with events that nobody knows: trained, evaluated, said."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from avel.cli import cli
from avel.console import DONE, ERROR, run
from avel.errors import DatasetError, StoreError, TrainingError
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.evaluation.runs import list_runs, run_table
from avel.heads.tasks.results import Spread
from avel.heads.train import sweep, train_head
from avel.stores.datasets.labels import EventTable
from avel.stores.export import export_features
from avel.stores.features import FeatureCache
from tests.heads.synthetic import write_cache
from tests.samples import events_of

SAMPLES, T, BACKGROUND = 60, 6, 3
QUICK: dict[str, Any] = {"head": "mlp", "epochs": 3, "seeds": 2, "device": "cpu"}


def many_events() -> np.ndarray:
    """Labels: a third of the samples has two events of a class, a third two classes, a third no event."""
    label = np.full((SAMPLES, T), BACKGROUND)
    for sample in range(SAMPLES):
        first, kind = (sample // 3) % 3, sample % 3
        if kind < 2:
            label[sample, 0:2] = first
            label[sample, 4:6] = (first + kind) % 3
    return label


def at_fractions(label: np.ndarray) -> EventTable:
    """The events of the labels, onsets 0.3 s late and offsets 0.2 s early: the labels stay."""
    events = events_of(label, BACKGROUND)
    return replace(
        events, onset_seconds=events.onset_seconds + 0.3, offset_seconds=events.offset_seconds - 0.2
    )


def event_at(sample: int, category: int, onset: float, offset: float) -> EventTable:
    return EventTable(*map(np.array, ([sample], [category], [onset], [offset], [0])))


def joined(*tables: EventTable) -> EventTable:
    names = ("sample", "category", "onset_seconds", "offset_seconds", "modality")
    return EventTable(*(np.concatenate([getattr(table, name) for table in tables]) for name in names))


def known_but(*samples: int) -> np.ndarray:
    return ~np.isin(np.arange(SAMPLES), samples)


def test_any_number_of_events_at_fractional_seconds_is_learned(tmp_path: Path) -> None:
    label = many_events()
    cache = write_cache(tmp_path / "c.h5", label=label, event_table=at_fractions(label))
    opened = FeatureCache.open(cache)
    assert opened.labels().tolist() == label.tolist()
    assert opened.samples.events.onset_seconds[:2].tolist() == [0.3, 4.3]
    found = train_head(cache, tmp_path / "run", head="mlp", epochs=60, lr=3e-3, device="cpu")
    test = label[48:]
    background = 100 * (test == BACKGROUND).mean()
    assert found.trivial_baselines_percent == {
        "always background": pytest.approx(background),
        "right class, never background": pytest.approx(100 - background),
    }
    assert (found.samples, found.unknown_samples) == (12, 0)
    accuracy = found.groups["mlp"].accuracy_percent.mean
    assert accuracy is not None
    assert accuracy > 20 + max(found.trivial_baselines_percent.values())
    events = found.groups["mlp"].events
    assert events.recall_percent.mean is not None
    lines = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pylist()
    assert {line["sample"] for line in lines} == set(range(136, 160))
    assert all(line["label"] == label[line["sample"] - 100, line["segment"]] for line in lines)


def test_they_go_out_as_the_published_files(tmp_path: Path) -> None:
    label = many_events()
    known = known_but(59)
    path = write_cache(
        tmp_path / "c.h5",
        label=label,
        number=np.arange(SAMPLES),
        event_table=at_fractions(label),
        known=known,
    )
    findings = export_features(path, tmp_path / "out").findings
    assert "1 row of unknown events: zeros for labels" in findings
    segments, videos = np.zeros((SAMPLES, T, 4)), np.zeros((SAMPLES, 4))
    for sample in range(59):
        for segment in range(T):
            segments[sample, segment, label[sample, segment]] = 1
        for event_class in set(label[sample].tolist()) - {BACKGROUND} or {BACKGROUND}:
            videos[sample, event_class] = 1
    for name, wanted in (("labels.h5", segments), ("mil_labels.h5", videos)):
        with h5py.File(tmp_path / "out" / name) as file:
            np.testing.assert_array_equal(file["avadataset"][()], wanted, err_msg=name)


def test_events_of_two_classes_at_once_leave_no_run_behind(tmp_path: Path) -> None:
    label = many_events()
    events = joined(at_fractions(label), event_at(40, 2, 1.5, 2.5))
    path = write_cache(tmp_path / "c.h5", label=label, event_table=events)
    words = r"c\.h5: sample 140 \(-video40\): 'event \d' and 'event \d' overlap from 1.5 s to 1.8 s"
    with pytest.raises(DatasetError, match=words):
        train_head(path, tmp_path / "run", **QUICK)
    with pytest.raises(DatasetError, match=words):
        export_features(path, tmp_path / "out")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "out").exists()
    split = np.where(np.arange(SAMPLES) == 40, "", np.repeat(["train", "val", "test"], (36, 12, 12)))
    path = write_cache(tmp_path / "d.h5", label=label, event_table=events, split=split)
    train_head(path, tmp_path / "run", **QUICK)  # the sample is in no split


def test_weak_supervision_leaves_out_samples_without_one_class(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of three samples one has events of one class, one of two classes, one none: that one is background."""
    path = write_cache(tmp_path / "c.h5", label=many_events())
    train_head(path, tmp_path / "run", supervision="weak", **QUICK)
    said = capfd.readouterr().err
    assert said.count("weak supervision leaves out 12 of 36 train samples") == 1
    assert "the first is sample 101" in said
    label = np.full((SAMPLES, T), BACKGROUND)
    label[:, :2], label[:, 4:] = 0, 1
    with pytest.raises(TrainingError, match="no train sample has events of one class"):
        train_head(
            write_cache(tmp_path / "d.h5", label=label), tmp_path / "other", supervision="weak", **QUICK
        )


def test_weak_supervision_learns_from_what_is_left(tmp_path: Path) -> None:
    """The same as if the samples that are left out were in no split."""
    label = many_events()
    split = np.repeat(["train", "val", "test"], (36, 12, 12)).astype(object)
    options = QUICK | {"supervision": "weak", "standardise": False}
    whole = train_head(write_cache(tmp_path / "a.h5", label=label), tmp_path / "a", **options)
    split[:36][np.arange(36) % 3 == 1] = ""
    part = train_head(write_cache(tmp_path / "b.h5", label=label, split=split), tmp_path / "b", **options)
    assert whole.groups == part.groups


def test_full_and_weak_of_one_sweep_learn_from_their_own_samples(tmp_path: Path) -> None:
    path = write_cache(tmp_path / "c.h5", label=many_events())
    found = sweep(path, tmp_path / "both", {"supervision": ["full", "weak"]}, select_by="segments", **QUICK)
    for name in ("full", "weak"):
        alone = train_head(path, tmp_path / name, supervision=name, select_by="segments", **QUICK)
        assert found.groups[f"supervision={name}"] == alone.groups["mlp"]


def test_without_a_test_split_a_head_trains_and_says_what_is_not_evaluated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_cache(tmp_path / "c.h5", splits=(0.6, 1.0))
    found = train_head(path, tmp_path / "runs" / "run", **QUICK)
    assert "evaluates 0 test samples\n" in capfd.readouterr().err
    assert (found.split, found.samples, found.unknown_samples, found.leaked_samples) == ("test", 0, 0, 0)
    assert found.trivial_baselines_percent == {}
    assert found.headline() == "test: no figures, for it has no samples"
    group = found.groups["mlp"]
    assert (group.accuracy_percent, group.interval_percent) == (Spread(), None)
    assert group.score_at_best_test_epoch_percent == group.events.f1_percent == Spread()
    assert set(group.recall_percent.values()) == {None}
    assert group.validation_score_percent.mean is not None
    assert group.validation_score_percent.mean > 30
    assert evaluate(tmp_path / "runs" / "run") == found
    val = evaluate(tmp_path / "runs" / "run", "val")
    assert val.samples == 24
    assert val.groups["mlp"].accuracy_percent == group.validation_score_percent
    (line,) = list_runs(tmp_path / "runs")
    assert (line.accuracy_percent, line.low_percent) == (None, None)
    assert line.validation_percent == group.validation_score_percent.mean
    assert "mlp" in run_table([line])[-1]


def test_a_test_split_without_labels_is_predicted_not_evaluated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_cache(tmp_path / "c.h5", known=known_but(*range(48, 60)))
    found = train_head(path, tmp_path / "run", **QUICK)
    assert "evaluates 0 test samples, without 12 more whose events" in capfd.readouterr().err
    assert (found.samples, found.unknown_samples) == (0, 12)
    assert found.groups["mlp"].accuracy_percent == Spread()
    assert found.headline() == "test: no figures, for the events of its 12 samples are not known"
    table = pq.read_table(tmp_path / "run" / "predictions.parquet", filters=[("split", "==", "test")])
    assert table.num_rows == 2 * 12 * T
    assert table["label"].null_count == table.num_rows
    assert np.array(table["probabilities"].to_pylist()).sum(1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "unknown", "split_words"),
    [
        ({"splits": (0.6, 1.0)}, 0, "no predictions of split 'test'\n  next: choose from val"),
        ({"known": np.arange(SAMPLES) < 48}, 12, "no sample of split 'test' has known events"),
    ],
    ids=["no test split", "no labels in test"],
)
def test_from_the_command_line_what_cannot_be_evaluated_is_said(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    unknown: int,
    split_words: str,
) -> None:
    cache, runs = write_cache(tmp_path / "c.h5", **changes), tmp_path / "runs"
    here = str(runs / "run")
    words = f"train-head {cache} {here} --head mlp --epochs 2 --device cpu --json".split()
    assert run(cli, words) == DONE
    said = capfd.readouterr()
    more = f", without {unknown} more whose events are not known" if unknown else ""
    assert f"evaluates 0 test samples{more}\n" in said.err
    found = json.loads(said.out)
    assert found["groups"]["mlp"]["accuracy_percent"] == {"mean": None, "std": None}
    assert run(cli, ["evaluate", here, "--json"]) == DONE
    assert json.loads(capfd.readouterr().out) == found
    assert run(cli, ["evaluate", here, "--split", "val", "--json"]) == DONE
    assert json.loads(capfd.readouterr().out)["groups"]["mlp"]["accuracy_percent"]["mean"] > 0
    assert run(cli, ["runs", str(runs)]) == DONE
    assert "not evaluated" in capfd.readouterr().out
    assert run(cli, ["report", here, "--out", str(tmp_path / "page"), "--no-tsne"]) == DONE
    assert run(cli, ["plot", here, "confusion", "--out", str(tmp_path / "c.png")]) == ERROR
    assert split_words in capfd.readouterr().err
    words = ["plot", here, "confusion", "--out", str(tmp_path / "c.png"), "--split", "val"]
    assert run(cli, words) == DONE


def test_of_a_test_split_the_labelled_samples_are_evaluated(tmp_path: Path) -> None:
    """The same figures as if the others were in no split; the best test epoch too."""
    some = train_head(
        write_cache(tmp_path / "a.h5", known=known_but(*range(50, 60))), tmp_path / "a", **QUICK
    )
    split = np.repeat(["train", "val", "test", ""], (36, 12, 2, 10))
    only = train_head(write_cache(tmp_path / "b.h5", split=split), tmp_path / "b", **QUICK)
    assert (some.samples, some.unknown_samples) == (2, 10)
    assert (some.groups, some.trivial_baselines_percent) == (only.groups, only.trivial_baselines_percent)


def test_an_older_cache_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = write_cache(tmp_path / "c.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 1
    with pytest.raises(StoreError, match=r"version 1, this avel reads 'avel-features' 8\n.*--overwrite"):
        FeatureCache.open(path)


def test_video_labels_are_asked_for_where_they_are_read(tmp_path: Path) -> None:
    several = np.full((SAMPLES, T), BACKGROUND)
    several[:, 0], several[:, 3] = 0, 1
    cache = write_cache(tmp_path / "several.h5", label=several)
    fractions = {"supervision": "weak", "weak_labels": "fractions"}
    with pytest.raises(TrainingError, match=r"no val sample .* no video labels\s+next: --select-by segments"):
        train_head(cache, tmp_path / "run", **QUICK | fractions)
    train_head(cache, tmp_path / "run", select_by="segments", **QUICK | fractions)
    with pytest.raises(TrainingError, match="no val sample"):
        train_head(cache, tmp_path / "other", select_by="videos", **QUICK)
