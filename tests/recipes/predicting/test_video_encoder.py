"""Windows over long videos, and their merging, against loops written out."""

import itertools

import numpy as np
import pytest

from avel.recipes.predicting.video_encoder import merge_windows, window_starts


@pytest.mark.parametrize("width", [1, 2, 5, 10])
@pytest.mark.parametrize("segments", [1, 2, 9, 10, 11, 25, 100])
def test_windows_hold_every_segment_and_overlap_by_half(segments: int, width: int) -> None:
    starts = window_starts(segments, width)
    held = {place for start in starts for place in range(start, start + width)}
    assert held >= set(range(segments))
    if segments > width:
        assert max(held) == segments - 1
        assert all(0 < b - a <= -(-width // 2) for a, b in itertools.pairwise(starts))
    else:
        assert starts == [0]


def test_merging_is_the_weighted_mean_of_the_rule() -> None:
    random = np.random.default_rng(0)
    starts, width, classes = [0, 3, 5], 5, 4
    windows = random.dirichlet(np.ones(classes), size=(len(starts), width))
    merged = merge_windows(windows, starts)
    assert merged.shape == (10, classes)
    for segment in range(10):
        total, weights = np.zeros(classes), 0.0
        for start, window in zip(starts, windows, strict=True):
            place = segment - start
            if 0 <= place < width:
                weight = 1 + min(place, width - 1 - place)
                total += weight * window[place]
                weights += weight
        np.testing.assert_allclose(merged[segment], total / weights)
    np.testing.assert_allclose(merged.sum(1), 1)


def test_windows_that_agree_are_not_changed_by_merging() -> None:
    truth = np.random.default_rng(1).dirichlet(np.ones(3), size=17)
    starts = window_starts(17, 6)
    windows = np.stack([truth[start : start + 6] for start in starts])
    np.testing.assert_allclose(merge_windows(windows, starts), truth)
