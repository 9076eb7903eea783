"""What the tests of reading share: a whole file read at once, and the grid's rule written out longhand."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avel.grid import Grid
from avel.pipeline.media.info import MediaInfo
from avel.pipeline.media.reading import open_media

SMALL = Grid(size=64)
"""The grid of most tests: full length, small pictures."""


def read(path: Path, grid: Grid = SMALL, **options: str) -> tuple[NDArray[np.uint8], NDArray, MediaInfo]:
    """All frames (T * N, S, S, 3), all samples (n,), and the information after both."""
    with open_media(path, grid, **options) as media:
        frames = np.concatenate(list(media.frames()))
        samples = np.concatenate(list(media.samples()))
        return frames, samples, media.info


def on_screen(times: Sequence[Fraction], slots: int = 160, fps: int = 16) -> list[int]:
    """The number of the last picture presented by k / fps, for each slot k; the first one before its time."""
    shown = []
    for slot in range(slots):
        number = 0
        for candidate, time in enumerate(times):
            if time <= Fraction(slot, fps):
                number = candidate
        shown.append(number)
    return shown
