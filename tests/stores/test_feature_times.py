"""Features of any window and hop on a grid: against loops, and in the usual cases."""

import pytest

from avel.errors import ConfigError
from avel.stores.feature_times import Timing


def by_the_rule(window: float, hop: float, count: int, segments: int, length: float) -> list[list[int]]:
    """The documented rule, a segment and a feature at a time."""
    found = []
    for segment in range(segments):
        onset, offset = segment * length, (segment + 1) * length
        inside = [k for k in range(count) if onset <= k * hop < offset and k * hop + window <= offset]
        if not inside:
            middle, best = (onset + offset) / 2, None
            for k in range(count + 1):
                far = abs(k * hop + window / 2 - middle)
                if k * hop <= middle <= k * hop + max(window, hop) and (best is None or far < best[0]):
                    best = (far, min(k, count - 1))
            inside = [] if best is None else [best[1]]
        found.append(inside)
    return found


@pytest.mark.parametrize(
    ("window", "hop", "count"),
    [(0, 0.125, 80), (0.5, 0.25, 38), (1, 1, 10), (2, 2, 4), (4, 1, 7), (0, 2, 5), (0, 1.5, 7), (3, 0.5, 15)],
)
@pytest.mark.parametrize("length", [1.0, 0.5, 2.0])
def test_the_rule(window: float, hop: float, count: int, length: float) -> None:
    """All numbers are binary fractions, so that loops and numpy see the same edges."""
    segments = int(10 / length)
    places = Timing(window, hop).places(count, segments, length)
    assert [each.tolist() for each in places] == by_the_rule(window, hop, count, segments, length)


def test_edges_that_rounding_moves_do_not_cost_a_feature() -> None:
    """VGGish's 0.96 s, and 25 frames a second, whose times no float holds."""
    assert [each.tolist() for each in Timing(0.96, 0.96).places(10, 10, 1.0)] == [[k] for k in range(10)]
    frames = Timing(0, 0.04).places(250, 10, 1.0)
    assert [each.tolist() for each in frames] == [list(range(25 * k, 25 * k + 25)) for k in range(10)]


def test_a_last_window_that_is_not_full_is_forgiven_and_no_more() -> None:
    """Ten seconds hold three windows of 2.56 s; two of them leave the last segments without any."""
    assert [each.tolist() for each in Timing(2.56, 2.56).places(3, 10, 1.0)][-2:] == [[2], [2]]
    assert [len(each) for each in Timing(2.56, 2.56).places(2, 10, 1.0)] == [1] * 8 + [0, 0]


def test_one_of_window_and_hop_stands_for_both() -> None:
    assert Timing.declared(None, 0.5) == Timing.declared(0.5, None) == Timing(0.5, 0.5)
    assert Timing.declared(None, None) is None
    for window, hop in ((0.0, 0.0), (-1.0, 1.0)):
        with pytest.raises(ConfigError, match=f"features of {window:g} s every {hop:g} s"):
            Timing(window, hop)
