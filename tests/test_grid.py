"""The grid: every length follows from five numbers."""

import pytest

from avel.errors import ConfigError
from avel.grid import Grid


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


@pytest.mark.parametrize("field", ["segments", "segment_seconds", "fps", "hz", "size"])
def test_lengths_are_positive(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        Grid(**{field: 0})
