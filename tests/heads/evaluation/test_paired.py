"""Paired differences: the bootstrap written out in loops, and what is known of intervals beforehand."""

import numpy as np
import pytest

from avel.errors import StoreError
from avel.heads.evaluation.paired import Difference, aligned, difference, differences, tally
from avel.heads.evaluation.predictions import Predictions
from avel.heads.tasks.metrics import Tally
from avel.heads.tasks.single_label import SingleLabel

TASK = SingleLabel(("bell", "dog"))


def made(trials: int, clips: int, seed: int, right: float = 0.7) -> Tally:
    """Ten segments a clip; clips and trials differ in how many are right."""
    random = np.random.default_rng(seed)
    chance = np.clip(right + 0.2 * random.normal(size=clips) + 0.05 * random.normal(size=(trials, 1)), 0, 1)
    return Tally(random.binomial(10, chance).astype(float), np.full((trials, clips), 10.0))


def ids(clips: int) -> np.ndarray:
    return np.array([f"v{clip}" for clip in range(clips)], object)


def longhand(a: Tally, b: Tally, video_id: np.ndarray, draws: int = 1000) -> np.ndarray:
    """Draws videos and, of M seeds, M - 1, one after the other, and averages what is right."""
    random = np.random.default_rng(99)
    videos = sorted(set(video_id))
    found = []
    for _ in range(draws):
        clips = [
            clip for video in random.choice(videos, len(videos)) for clip in np.flatnonzero(video_id == video)
        ]
        means = []
        for each in (a, b):
            trials = range(len(each.part))
            chosen = random.choice(trials, len(trials) - 1) if len(trials) > 1 else trials
            parts = [each.part[trial, clips].sum() / each.whole[trial, clips].sum() for trial in chosen]
            means.append(sum(parts) / len(parts))
        found.append(100 * (means[0] - means[1]))
    return np.array(found)


@pytest.mark.parametrize("trials", [(4, 4), (3, 1)])
def test_the_interval_is_that_of_drawing_by_hand(trials: tuple[int, int]) -> None:
    a, b = made(trials[0], 40, 0, 0.8), made(trials[1], 40, 1)
    shared = np.repeat(ids(20), 2)  # two samples a video
    found, drawn = difference(a, b, shared), longhand(a, b, shared)
    means = [each.part.sum() / (400 * count) for each, count in zip((a, b), trials, strict=True)]
    assert found.points == pytest.approx(100 * (means[0] - means[1]))
    width = np.subtract(*np.quantile(drawn, [0.975, 0.025]))
    assert found.low_points == pytest.approx(np.quantile(drawn, 0.025), abs=0.1 * width)
    assert found.high_points == pytest.approx(np.quantile(drawn, 0.975), abs=0.1 * width)
    assert found.resolved_points == pytest.approx(width / 2, rel=0.1)
    assert (found.clips, found.seeds) == (40, trials)


def test_seeds_that_differ_widen_the_interval_as_their_mean_spreads() -> None:
    """Every clip alike, so that seeds alone make the interval: 1.96 s / sqrt(M) for each of the runs."""
    levels = np.random.default_rng(0).normal(5, 1, size=(2, 8, 1))
    a, b = (Tally(np.repeat(level, 30, 1), np.full((8, 30), 10.0)) for level in levels)
    error = np.sqrt(sum(np.var(10 * level, ddof=1) / 8 for level in levels))
    assert difference(a, b, ids(30)).resolved_points == pytest.approx(1.96 * error, rel=0.06)


def test_what_is_shared_by_both_runs_cancels() -> None:
    clips = np.random.default_rng(0).integers(0, 10, 50).astype(float)
    harder = Tally(np.tile(clips, (2, 1)), np.full((2, 50), 10.0))
    better = Tally(np.tile(clips + 1, (2, 1)), np.full((2, 50), 10.0))
    found = difference(better, harder, ids(50))
    assert (found.points, found.low_points, found.high_points) == (pytest.approx(10),) * 3
    assert not found.level
    assert found.clips_needed == found.seeds_needed == 1
    same = difference(harder, harder, ids(50))
    assert (same.points, same.level, same.clips_needed, same.seeds_needed) == (0, True, None, None)


def test_clips_needed_are_those_with_which_the_difference_is_just_resolved() -> None:
    a, b = made(1, 60, 0, 0.75), made(1, 60, 1)
    few = difference(a, b, ids(60))
    assert few.level
    assert few.seeds_needed is None  # one seed says nothing of their spread
    assert few.clips_needed is not None
    times = few.clips_needed / 60
    copies = round(times)
    grown = [Tally(np.tile(each.part, copies), np.tile(each.whole, copies)) for each in (a, b)]
    many = difference(*grown, ids(60 * copies))
    assert many.resolved_points == pytest.approx(abs(many.points) * np.sqrt(times / copies), rel=0.06)


def test_seeds_needed_shrink_what_seeds_add() -> None:
    """Clips alike, so that M seeds of each run resolve 1.96 sqrt((s_a^2 + s_b^2) / M)."""
    a = Tally(np.repeat([[4.0], [7.0]], 20, 1), np.full((2, 20), 10.0))
    b = Tally(np.repeat([[4.0], [6.0]], 20, 1), np.full((2, 20), 10.0))
    found = difference(a, b, ids(20))
    spread = np.var([40, 70], ddof=1) + np.var([40, 60], ddof=1)
    assert found.seeds_needed == int(np.ceil(spread * 1.96**2 / 5**2))
    assert found.clips_needed is None  # no number of clips makes up for the seeds


def test_clips_needed_agree_with_the_interval_where_seeds_differ_in_clips() -> None:
    """Seeds alike in accuracy that have other clips right, so that the interval counts clips and both."""
    random = np.random.default_rng(3)
    sides = [
        Tally(np.array([10.0 * random.permutation([1] * ones + [0] * (80 - ones)) for _ in range(3)]), whole)
        for ones, whole in ((50, np.full((3, 80), 10.0)), (46, np.full((3, 80), 10.0)))
    ]
    found = difference(*sides, ids(80))
    assert found.level
    scaled = 80 * (found.resolved_points / found.points) ** 2
    assert found.clips_needed == pytest.approx(scaled, rel=0.06)


def test_text_says_what_it_takes() -> None:
    found = Difference(1.6, -0.4, 3.7, True, 402, (5, 5), 2.1, None, None)
    assert str(found) == "+1.6 [-0.4, 3.7] level"
    assert found.explained().endswith("the difference is 1.6: it takes more clips and more seeds")
    told = Difference(-4.0, -6.0, -2.0, False, 81, (1, 3), 2.0, 20, None)
    assert str(told) == "-4.0 [-6.0, -2.0]"
    assert told.explained() == "81 clips and 1 and 3 seeds resolve 2.0 points, the difference is 4.0"
    assert (found.needed, told.needed) == ("more of both", "")
    clips = Difference(1.6, -0.4, 3.7, True, 402, (5, 5), 2.1, 640, None)
    assert clips.needed == "640 clips"


def predictions(sample: list[int], predicted: list[list[int]], label: list[list[int]]) -> Predictions:
    probabilities = 0.1 + 0.7 * np.eye(3, dtype=np.float32)[np.array(predicted)]
    number = np.array(sample)
    video = np.array([f"v{each}" for each in sample], object)
    return Predictions(
        "seed=0", "test", number, video, np.zeros(len(sample), bool), np.array(label), probabilities
    )


def test_runs_are_compared_on_the_samples_that_both_have_labels_for() -> None:
    a = predictions([7, 8, 9], [[0, 2], [1, 1], [2, 2]], [[0, 0], [1, 1], [-1, -1]])
    b = predictions([9, 8, 6, 7], [[0, 0], [1, 2], [0, 0], [0, 0]], [[-1, -1], [1, 1], [0, 0], [0, 0]])
    left, right = aligned([a], [b])
    assert left[0].number.tolist() == right[0].number.tolist() == [7, 8]
    found = differences([a], [b], TASK)
    assert found["accuracy"].points == pytest.approx(0)  # three of four each
    other = predictions([7], [[0, 0]], [[0, 1]])
    with pytest.raises(StoreError, match="differ in labels or videos"):
        aligned([a], [other])
    with pytest.raises(StoreError, match="no sample of split 'test' in common"):
        aligned([a], [predictions([1], [[0, 0]], [[0, 0]])])


def test_metrics_of_a_task_are_sums_over_samples() -> None:
    """Labels 0 0 2 | 1 1 1; predicted 0 2 2 | 1 1 0: segments 4 of 6 right; F1 2 * 3 / (4 + 5)."""
    item = predictions([0, 1], [[0, 2, 2], [1, 1, 0]], [[0, 0, 2], [1, 1, 1]])
    found = {name: each.value for name, each in tally([item], TASK).items()}
    assert found["accuracy"] == pytest.approx([4 / 6])
    assert found["segment_f1"] == pytest.approx([2 * 3 / (4 + 5)])
    assert found["event_f1"] == pytest.approx([2 * 2 / (3 + 2)])  # each offset is off by one: tolerated
