"""Metrics on cases worked out by hand."""

import itertools
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from avel.grid import Grid
from avel.heads.tasks.metrics import (
    bootstrap_interval,
    confusion,
    event_counts,
    events_of,
    recall_by_class,
    segment_accuracy,
)
from avel.heads.tasks.results import EventEvaluation, LabelSets
from avel.heads.tasks.single_label import SingleLabel
from avel.stores.datasets.formats import read_dataset

TASK = SingleLabel(("bell", "dog"))
BACKGROUND = 2
LABEL = np.array([[2, 0, 0, 2], [1, 1, 1, 1], [2, 2, 2, 2]])
PREDICTED = np.array([[0, 0, 0, 2], [1, 2, 1, 0], [2, 2, 1, 2]])


def test_segment_accuracy_counts_background() -> None:
    assert segment_accuracy(PREDICTED, LABEL) == 8 / 12
    assert math.isnan(segment_accuracy(LABEL[:0], LABEL[:0]))


def test_confusion_and_recall() -> None:
    counts = confusion(PREDICTED, LABEL, 3)
    assert counts.tolist() == [[2, 0, 0], [1, 2, 1], [1, 1, 4]]
    assert recall_by_class(counts).tolist() == [1.0, 0.5, 4 / 6]
    none_of_1 = recall_by_class(confusion(PREDICTED[:1], LABEL[:1], 3))
    assert none_of_1[0] == 1.0
    assert math.isnan(none_of_1[1])


def test_trivial_baselines() -> None:
    found = TASK.trivial_baselines(LABEL)
    assert found == {"always background": 6 / 12, "right class, never background": 6 / 12}


@pytest.mark.shared
def test_trivial_baselines_of_ave(shared: Path) -> None:
    """The figures that belong beside every result on AVE, from its own annotations."""
    dataset = read_dataset(shared / "data" / "ave")
    test = [sample for sample in dataset.samples if sample.split == "test"]
    found = SingleLabel(dataset.categories).trivial_baselines(dataset.labels(Grid(), test))
    assert len(test) == 402
    assert 100 * found["always background"] == pytest.approx(17.79, abs=0.005)
    assert 100 * found["right class, never background"] == pytest.approx(82.21, abs=0.005)


def test_events_are_runs_of_one_class() -> None:
    assert events_of(np.array([2, 0, 0, 2]), BACKGROUND) == [(0, 1, 3)]
    assert events_of(np.array([0, 1, 1, 0]), BACKGROUND) == [(0, 0, 1), (1, 1, 3), (0, 3, 4)]
    assert events_of(np.array([2, 2]), BACKGROUND) == []
    assert events_of(np.array([1]), BACKGROUND) == [(1, 0, 1)]


def events(predicted: np.ndarray, label: np.ndarray, onset: float = 0, offset: float = 0) -> EventEvaluation:
    """Figures of events with these tolerances, of one seed and samples of as many videos."""
    ids, leaked = np.arange(len(label)).astype(object), np.zeros(len(label), bool)
    return TASK.results(LabelSets([predicted], {}, label, ids, leaked, {}, onset, offset)).events


def test_events_exact_and_with_tolerance() -> None:
    """Clip 0: the onset is one too early. Clip 1: one event in three pieces. Clip 2: a false alarm."""
    assert event_counts(PREDICTED, LABEL, BACKGROUND, 0, 0).sum(0).tolist() == [0, 5, 2]
    exact = events(PREDICTED, LABEL)
    assert (exact.precision_percent.mean, exact.recall_percent.mean, exact.f1_percent.mean) == (0, 0, 0)
    assert event_counts(PREDICTED, LABEL, BACKGROUND, 1, 0).sum(0).tolist() == [1, 5, 2]
    near = events(PREDICTED, LABEL, onset=1)
    assert (near.precision_percent.mean, near.recall_percent.mean) == (20, 50)
    assert near.f1_percent.mean == pytest.approx(200 / 7)
    assert event_counts(PREDICTED, LABEL, BACKGROUND, 1, 3).sum(0).tolist() == [2, 5, 2]
    perfect = events(LABEL, LABEL)
    assert (perfect.precision_percent.mean, perfect.recall_percent.mean) == (100, 100)
    assert perfect.f1_percent.mean == 100


def test_no_events_at_all_score_0() -> None:
    nothing = np.full((2, 4), BACKGROUND)
    found = events(nothing, nothing)
    assert (found.precision_percent.mean, found.recall_percent.mean, found.f1_percent.mean) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_as_many_events_are_matched_as_can_be(seed: int) -> None:
    """Against trying every one-to-one assignment."""
    random = np.random.default_rng(seed)
    label, predicted = random.integers(0, 3, (2, 1, 9))
    true, found = events_of(label[0], BACKGROUND), events_of(predicted[0], BACKGROUND)
    fits = [[t[0] == p[0] and abs(t[1] - p[1]) <= 2 and abs(t[2] - p[2]) <= 2 for p in found] for t in true]
    short, long = sorted((len(true), len(found)))
    best = 0
    for chosen in itertools.permutations(range(long), short):
        pairs = enumerate(chosen) if len(true) <= len(found) else ((c, n) for n, c in enumerate(chosen))
        best = max(best, sum(fits[t][p] for t, p in pairs))
    assert event_counts(predicted, label, BACKGROUND, 2, 2)[0, 0] == best


def test_bootstrap_interval_of_independent_videos() -> None:
    """400 videos of which half are right: the normal interval is 0.5 ± 1.96 sqrt(0.25 / 400)."""
    right = np.tile([0.0, 1.0], 200)
    ids = np.array([f"v{number}" for number in range(400)], object)
    low, high = bootstrap_interval(right, ids)
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.006)
    assert bootstrap_interval(right, ids) == (low, high)


def test_bootstrap_of_many_videos_draws_few_of_them_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    right, ids = np.tile([0.0, 1.0], 1000), np.arange(2000).astype(object)
    at_once = bootstrap_interval(right, ids, draws=100)
    monkeypatch.setattr("avel.heads.tasks.metrics.DRAWN_BYTES", 2**16)
    tracemalloc.start()
    assert bootstrap_interval(right, ids, draws=100) == pytest.approx(at_once, abs=1e-12)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2000 * 8


def test_bootstrap_draws_rows_of_one_video_together() -> None:
    """Each video twice: as uncertain as the 200 videos, not as 400 rows."""
    right = np.repeat(np.tile([0.0, 1.0], 100), 2)
    ids = np.repeat(np.array([f"v{number}" for number in range(200)], object), 2)
    low, high = bootstrap_interval(right, ids)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 200), rel=0.1)
