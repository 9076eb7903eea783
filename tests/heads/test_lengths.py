"""Heads on clips of differing lengths, from a cache to figures: nothing after a clip's end counts."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from avel.errors import ConfigError
from avel.heads.catalog import head_lines, list_heads
from avel.heads.config import HEADS
from avel.heads.evaluation.compare import compare
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.evaluation.predictions import read_predictions
from avel.heads.models.head import Head
from avel.heads.models.mlp import MLP
from avel.heads.tasks.multi_label import MultiLabel
from avel.heads.tasks.single_label import SingleLabel
from avel.heads.train import sweep, train_head
from avel.heads.training.data import feature_statistics, read_data
from avel.heads.training.negatives import add_negatives
from avel.stores.datasets.labels import PADDED, EventTable
from avel.stores.features import FeatureCache
from avel.stores.runs import Run
from tests.heads.synthetic import NEGATIVES, train_config, write_cache, write_negatives

SEGMENTS = 6
CPU = torch.device("cpu")


def lengths_of(videos: int) -> np.ndarray:
    return np.arange(videos) % 5 + 2  # 2 to 6


def cache_of(path: Path, **changes: Any) -> Path:
    return write_cache(path, lengths=lengths_of(59), **changes)


@pytest.mark.parametrize(
    ("head", "supervision", "more"),
    [
        ("tacma", "full", {}),
        ("bilstm", "full", {}),
        ("tacma", "weak", {"weak_labels": "event", "select_by": "videos"}),
        ("psp", "weak", {"weak_labels": "fractions", "select_by": "segments"}),
    ],
)
def test_a_run_does_not_depend_on_what_is_after_the_end_of_clips(
    head: str, supervision: str, more: dict[str, Any], tmp_path: Path
) -> None:
    arrays = ("cnn_a", "cnn_v") if head == "bilstm" else ()
    clean = cache_of(tmp_path / "clean.h5", arrays=("f_a", "f_v", *arrays))
    opened = FeatureCache.open(clean)
    outside = np.arange(SEGMENTS) >= opened.lengths[:, None]
    dirty = {}
    for name in opened.shapes:
        dirty[name] = opened.read(name).copy()
        dirty[name][outside] = 1e6
    spoiled = cache_of(tmp_path / "dirty.h5", arrays=tuple(dirty), **dirty)
    options = {"head": head, "epochs": 3, "supervision": supervision, "standardise": True} | more
    one, other = (train_head(cache, tmp_path / cache.stem, seeds=2, **options) for cache in (clean, spoiled))
    assert one.groups[head] == other.groups[head]
    assert one.trivial_baselines_percent == other.trivial_baselines_percent
    assert one.groups[head].accuracy_percent.mean is not None


def test_stacked_trials_train_as_each_by_itself(tmp_path: Path) -> None:
    cache = cache_of(tmp_path / "c.h5")
    options: dict[str, Any] = {"head": "tacma", "epochs": 3, "seeds": 2}
    together, alone = (
        sweep(cache, tmp_path / how, {"theta": [0.0, 0.1]}, together=how, **options)
        for how in ("always", "never")
    )
    for name, group in together.groups.items():
        assert group.validation_score_percent == alone.groups[name].validation_score_percent
        assert group.accuracy_percent == alone.groups[name].accuracy_percent


def test_figures_are_those_of_the_segments_before_the_ends(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_head(cache_of(tmp_path / "c.h5"), run, head="mlp", epochs=2)
    cache = FeatureCache.open(tmp_path / "c.h5")
    rows = pq.read_table(run / "predictions.parquet").to_pydict()
    test = [place for place, split in enumerate(rows["split"]) if split == "test"]
    samples = cache.samples
    length_of = dict(zip(samples.number.tolist(), cache.lengths[samples.video].tolist(), strict=True))
    for number in {rows["sample"][place] for place in test}:
        own = [rows["segment"][place] for place in test if rows["sample"][place] == number]
        assert own == list(range(length_of[number]))
    right = [rows["label"][place] == rows["prediction"][place] for place in test]
    found = evaluate(run)
    assert found.groups["mlp"].accuracy_percent.mean == pytest.approx(100 * np.mean(right))
    background = [rows["label"][place] == 3 for place in test]
    assert found.trivial_baselines_percent["always background"] == pytest.approx(100 * np.mean(background))
    item = read_predictions(Run.open(run, "heads"))["test"][0]
    places = [int(np.flatnonzero(samples.number == number)[0]) for number in item.number.tolist()]
    lengths = cache.lengths[samples.video[places]]
    assert ((item.label == PADDED) == (np.arange(SEGMENTS) >= lengths[:, None])).all()
    assert not item.probabilities[item.label == PADDED].any()
    same = compare(run, shutil.copytree(run, tmp_path / "copy"))
    assert same.agreement.both_percent == pytest.approx(100 * np.mean(right))
    assert sum(vars(same.agreement).values()) == pytest.approx(100)


def test_several_labels_a_segment_are_evaluated_up_to_the_end(tmp_path: Path) -> None:
    """A perfect prediction scores 100, whatever it says after the end of clips."""
    events = EventTable(
        np.arange(60).repeat(2),
        np.arange(120) % 3,
        np.zeros(120),
        np.full(120, 6.0),
        np.arange(120) % 2 + 1,
    )
    path = cache_of(tmp_path / "c.h5", event_table=events)
    data = read_data(FeatureCache.open(path), train_config(head="mlp", task="multi_label"), CPU)
    labels = data.splits["test"].labels
    assert set(labels.unique().tolist()) == {PADDED, 0, 1}
    perfect = (20 * (labels.float() - 0.5)).where(labels != PADDED, 20.0)
    task = data.task
    assert isinstance(task, MultiLabel)
    assert task.points(perfect, labels).tolist() == pytest.approx(task.full_points(labels).tolist())
    decoded = task.decode(task.probabilities(perfect).numpy())
    assert task.sample_scores(decoded, labels.numpy()).mean() == 1
    assert {name: float(tally.value) for name, tally in task.tallies(decoded, labels.numpy()).items()} == {
        "segment_f1": 1.0,
        "event_f1": 1.0,
    }
    assert [len(track) for track in task.classes_of(labels.numpy()[0])] == [
        int((labels[0, :, 0] >= 0).sum())
    ] * 2
    train_head(path, tmp_path / "run", head="han", inputs="encoded", epochs=1)
    assert evaluate(tmp_path / "run").groups["han"].parsing is not None


def test_events_that_reach_the_end_of_a_clip_end_there() -> None:
    task = SingleLabel(("bell",))
    labels = np.array([[0, 0, PADDED, PADDED], [1, 0, 0, 1]])
    predicted = np.array([[0, 0, 0, 0], [1, 0, 0, 1]])
    tallies = task.tallies(predicted, labels)
    assert {name: float(tally.value) for name, tally in tallies.items()} == {
        "accuracy": 1.0,
        "segment_f1": 1.0,
        "event_f1": 1.0,
    }
    assert task.classes_of(labels[0]) == [[(0,), (0,)]]
    assert task.title(labels[0]) == "bell"
    (block,) = task.blocks(task.cut(predicted, labels)[0], labels[0])[0]
    assert (block.first, block.end, block.kind) == (0, 2, "right")


def test_labels_of_videos_are_of_the_segments_before_their_ends() -> None:
    task = SingleLabel(("bell", "dog"))
    labels = torch.tensor([[0, 0, 2, PADDED, PADDED], [1, 1, 1, 1, 1]])
    torch.testing.assert_close(task.fractions(labels), torch.tensor([[2 / 3, 0, 1 / 3], [0, 1.0, 0]]))
    logits = torch.zeros(2, 3, 3)
    logits[:, :2, 2] = 5  # background up to the second segment; after it nothing is said
    assert task.video_points(logits, torch.tensor([2, 2])).tolist() == [False, False]
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert task.video_points(logits, torch.tensor([2, 2]), mask).tolist() == [True, False]
    several = MultiLabel(("bell", "dog"))
    silent = torch.full((1, 3, 2), -1.0)
    silent[0, 2] = 0
    held = torch.tensor([[0, 0]])
    right = 1 - torch.sigmoid(torch.tensor([-1.0]))
    torch.testing.assert_close(several.video_points(silent, held, mask[:1]), right)
    assert several.video_points(silent, held) < right


def test_clips_without_events_have_lengths_of_their_own_too(tmp_path: Path) -> None:
    more = write_negatives(tmp_path / "n.h5", lengths=np.arange(NEGATIVES) % 3 + 1)
    for cache in (cache_of(tmp_path / "own.h5"), write_cache(tmp_path / "even.h5")):
        config = train_config(head="mlp", supervision="weak", negatives=str(more))
        data = add_negatives(read_data(FeatureCache.open(cache), config, CPU), config)
        videos = data.splits["train"].videos
        lengths = data.features.lengths_of(videos)
        assert lengths is not None
        assert lengths[-NEGATIVES:].tolist() == (np.arange(NEGATIVES) % 3 + 1).tolist()
        assert lengths[:36].tolist() == FeatureCache.open(cache).lengths[videos[:36]].tolist()
        outside = torch.arange(SEGMENTS) >= lengths[:, None]
        assert ((data.splits["train"].labels == PADDED) == outside).all()


def test_statistics_are_those_of_segments_before_the_ends(tmp_path: Path) -> None:
    path = cache_of(tmp_path / "c.h5")
    cache = FeatureCache.open(path)
    data = read_data(cache, train_config(head="mlp"), CPU)
    videos = np.unique(cache.samples.video[cache.samples.split == "train"])
    rows = np.concatenate([cache.f_a[video, : cache.lengths[video]] for video in videos])
    mean, std = feature_statistics(data.features, data.splits["train"])["audio"]
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(std, rows.std(0), rtol=1e-4)


def test_a_head_that_cannot_says_which_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MLP, "takes_differing_lengths", False)
    with pytest.raises(ConfigError, match="head 'mlp' takes clips of one length") as refused:
        train_head(cache_of(tmp_path / "c.h5"), tmp_path / "run", head="mlp")
    able = str(refused.value).partition("heads that can: ")[2].split(", ")
    assert able == [name for name in HEADS if name != "mlp"]
    lengths_of_head = {info.name: info.takes_differing_lengths for info in list_heads()}
    assert lengths_of_head == {name: name != "mlp" for name in HEADS}
    listed = {line.split()[0]: line for line in head_lines(list_heads()) if line}
    assert all(f" {lengths} " in listed[name] for name, lengths in (("mlp", "one"), ("tacma", "any")))
    assert " 8 to 11 " in listed["vscg"]
    assert not (tmp_path / "run").exists()
    assert not Head.takes_differing_lengths
    train_head(write_cache(tmp_path / "even.h5"), tmp_path / "run", head="mlp", epochs=1)
