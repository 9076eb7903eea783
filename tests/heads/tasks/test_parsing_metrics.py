"""The metrics of video parsing: against loops written from their definition, and cases worked out by hand."""

import numpy as np
import pytest
import torch

from avel.heads.tasks.multi_label import MultiLabel
from avel.heads.tasks.parsing_metrics import f1, overlap_counts, segment_f1

TASK = MultiLabel(("bark", "bell"), ("audio", "visual"))
NAMES = ("audio", "visual", "audio-visual", "Type@AV", "Event@AV")


def clip(*lines: str) -> np.ndarray:
    """Labels (1, T, 4) from four lines of dots and hashes: audio bark and bell, visual bark and bell."""
    return np.array([[[int(mark == "#") for mark in line] for line in lines]]).swapaxes(1, 2)


def test_a_clip_by_hand() -> None:
    """
    Segments. Audio bark: 2 found, 1 missed, 1 invented: 4/6. Audio bell: 1 invented: 0. So audio 1/3.
    Visual bark: all 3 found: 1; the bell is in neither, and does not count. So visual 1.
    Both bark: labels 1-3, predicted 2-3: 4/5, and that is all. Type@AV (1/3 + 1 + 4/5) / 3.
    Both tracks together: bark 2 (2 + 3) / (2 (2 + 3) + 2) = 10/12, bell 0, so Event@AV 5/12.
    Events. Audio bark 1-3 and 2-4 share 2 of 4 segments: found. The bell is invented. Audio 1/2, visual 1,
    audio-visual 2-3 of 1-3: 2 of 3, found: 1. Event@AV: bark 1, bell 0: 1/2.
    """
    labels = clip(".###..", "......", ".###..", "......")
    predicted = clip("..###.", ".....#", ".###..", "......")
    segments, events = TASK.f1_by_type(predicted, labels)
    wanted = {"audio": 1 / 3, "visual": 1, "audio-visual": 4 / 5, "Type@AV": 32 / 45, "Event@AV": 5 / 12}
    assert {name: values.tolist() for name, values in segments.items()} == {
        name: [pytest.approx(value)] for name, value in wanted.items()
    }
    wanted = {"audio": 1 / 2, "visual": 1, "audio-visual": 1, "Type@AV": 5 / 6, "Event@AV": 1 / 2}
    assert {name: values.tolist() for name, values in events.items()} == {
        name: [pytest.approx(value)] for name, value in wanted.items()
    }


def test_an_overlap_of_less_than_half_is_a_miss_and_an_invention() -> None:
    labels = clip("####..", "......", "......", "......")
    predicted = clip("...###", "......", "......", "......")  # 1 of 6 segments
    found, wrong = overlap_counts(predicted.reshape(1, 6, 2, 2), labels.reshape(1, 6, 2, 2))
    assert (found.sum(), wrong.tolist()) == (0, [[[2, 0], [0, 0]]])
    two = clip("##.###", "......", "......", "......")  # the first of 2 in 4, the second of 1 in 6
    found, wrong = overlap_counts(two.reshape(1, 6, 2, 2), labels.reshape(1, 6, 2, 2))
    assert (found[0, 0, 0], wrong[0, 0, 0]) == (1, 1)


def test_nothing_said_of_nothing_is_right() -> None:
    empty = clip(*["......"] * 4)
    for found in TASK.f1_by_type(empty, empty):
        assert {name: values.tolist() for name, values in found.items()} == {name: [1.0] for name in NAMES}
    noise = clip("#.....", "......", "......", "......")
    segments, events = TASK.f1_by_type(noise, empty)
    assert segments["audio"] == events["audio"] == 0
    assert segments["visual"] == segments["audio-visual"] == 1


def test_random_clips_equal_longhand_loops() -> None:
    random = np.random.default_rng(1)
    shape = (12, 7, 2, 2)
    predicted, labels = (random.random(shape) < 0.45).astype(int), (random.random(shape) < 0.45).astype(int)
    segments, events = TASK.f1_by_type(predicted.reshape(12, 7, 4), labels.reshape(12, 7, 4))
    for sample in range(12):
        by_segment, by_event = longhand(predicted[sample], labels[sample])
        for name in NAMES:
            assert segments[name][sample] == pytest.approx(by_segment[name]), name
            assert events[name][sample] == pytest.approx(by_event[name]), name


def longhand(predicted: np.ndarray, labels: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """F1 of one clip (T, 2, C), by loops."""
    found = {}
    for level in ("segment", "event"):
        counts = {}
        for name, track in (("audio", 0), ("visual", 1), ("audio-visual", None)):
            for number in range(2):
                guessed, true = (
                    [
                        bool(side[t, track, number] if track is not None else side[t, :, number].all())
                        for t in range(len(side))
                    ]
                    for side in (predicted, labels)
                )
                counts[name, number] = (
                    of_segments(guessed, true) if level == "segment" else of_events(guessed, true)
                )
        figures = {
            name: mean_f1([counts[name, number] for number in range(2)])
            for name in ("audio", "visual", "audio-visual")
        }
        figures["Type@AV"] = sum(figures.values()) / 3
        both = [
            tuple(a + b for a, b in zip(counts["audio", number], counts["visual", number], strict=True))
            for number in range(2)
        ]
        figures["Event@AV"] = mean_f1(both)
        found[level] = figures
    return found["segment"], found["event"]


def of_segments(guessed: list[bool], true: list[bool]) -> tuple[int, ...]:
    pairs = list(zip(guessed, true, strict=True))
    return pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True))


def of_events(guessed: list[bool], true: list[bool]) -> tuple[int, ...]:
    one, other = runs(guessed), runs(true)
    hits = sum(any(2 * len(a & b) >= len(a | b) for b in other) for a in one)
    missed = sum(not any(2 * len(a & b) >= len(a | b) for a in one) for b in other)
    return hits, len(one) - hits, missed


def runs(marks: list[bool]) -> list[set[int]]:
    """Sets of neighbouring places that are marked."""
    found: list[set[int]] = []
    for place, marked in enumerate(marks):
        if marked and place and marks[place - 1]:
            found[-1].add(place)
        elif marked:
            found.append({place})
    return found


def mean_f1(counts: list[tuple[int, ...]]) -> float:
    present = [2 * tp / (2 * tp + fp + fn) for tp, fp, fn in counts if tp + fp + fn]
    return sum(present) / len(present) if present else 1.0


def test_torch_and_numpy_say_the_same() -> None:
    random = np.random.default_rng(2)
    predicted, labels = ((random.random((3, 5, 6, 2, 4)) < 0.4).astype(float) for _ in range(2))
    ours = segment_f1(torch.from_numpy(predicted), torch.from_numpy(labels))
    np.testing.assert_allclose(ours.numpy(), segment_f1(predicted, labels), rtol=1e-12)
    assert f1(np.array([0.0]), np.array([0.0])) == 1
