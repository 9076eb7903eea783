"""The grid: every length follows from five numbers."""

import pytest

from avel.errors import ConfigError
from avel.grid import Grid, evenly_spaced


def test_the_papers_grid() -> None:
    grid = Grid()
    assert (grid.frames, grid.frames_per_segment, grid.samples, grid.samples_per_segment) == (
        160,
        16,
        160_000,
        16_000,
    )
    assert grid.seconds == 10.0


def test_segments_need_whole_steps() -> None:
    assert Grid(segments=4, segment_seconds=0.5).frames == 32
    with pytest.raises(ConfigError, match="fps"):
        Grid(segment_seconds=0.3)


@pytest.mark.parametrize(
    ("seconds", "fps", "frames"), [(1.2, 10, 12), (0.2, 5, 1), (0.96, 25, 24), (1.1, 30, 33)]
)
def test_segments_of_decimal_seconds_hold_whole_frames(seconds: float, fps: int, frames: int) -> None:
    grid = Grid(segment_seconds=seconds, fps=fps)
    assert (grid.frames_per_segment, grid.samples_per_segment) == (frames, round(16000 * seconds))


def test_a_grid_without_frames_takes_the_lowest_rate() -> None:
    lengths = (1, 2.0, 0.2, 0.96, 0.0625, 2.0625)
    assert [Grid.without_frames(4, seconds).fps for seconds in lengths] == [1, 1, 5, 25, 16, 16]
    for seconds in (float("nan"), float("inf"), 0, -1):
        with pytest.raises(ConfigError, match="segment_seconds"):
            Grid.without_frames(4, seconds)
    for seconds, instead in ((0.0333, "0.033"), (1 / 3, "0.333"), (1e-5, "0.001")):
        with pytest.raises(ConfigError, match=f"={seconds} is no whole number of milliseconds") as refused:
            Grid.without_frames(4, seconds)
        assert refused.value.hint == f"--segment-seconds {instead}, for example"


@pytest.mark.parametrize("field", ["segments", "segment_seconds", "fps", "sample_rate", "size"])
def test_lengths_are_positive(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        Grid(**{field: 0})


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [
        (0, 4, []),
        (16, 1, [8]),
        (16, 4, [2, 6, 10, 14]),
        (4, 4, [0, 1, 2, 3]),
        (4, 16, [0, 1, 2, 3]),
        (100, 5, [10, 30, 50, 70, 90]),
    ],
)
def test_evenly_spaced(count: int, most: int, expected: list[int]) -> None:
    assert evenly_spaced(count, most) == expected


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(0, 4, []), (1, 4, [0]), (3, 4, [0, 1, 2]), (16, 4, [0, 5, 10, 15]), (1000, 3, [0, 499, 999])],
)
def test_evenly_spaced_with_both_ends(count: int, most: int, expected: list[int]) -> None:
    assert evenly_spaced(count, most, ends=True) == expected


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"segments": 10**9}, "segments=1000000000 must be at most 100000"),
        ({"segment_seconds": 1e9}, "segment_seconds=1000000000.0 must be at most 3600"),
        ({"segment_seconds": float("nan")}, "segment_seconds=nan must be positive"),
        ({"fps": 10**9}, "fps=1000000000 must be at most 1000"),
        ({"size": 10**6}, "size=1000000 must be at most 4096"),
        ({"size": 4096, "fps": 500, "segments": 1, "segment_seconds": 3}, "1 segment of 1500 frames of 4096"),
        ({"size": 4096, "fps": 500}, "10 segments of 500 frames of 4096 x 4096 pixels take 234 GiB"),
    ],
)
def test_what_no_memory_could_hold_is_refused(values: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Grid(**values)  # type: ignore[arg-type]
    Grid(segments=100_000)
