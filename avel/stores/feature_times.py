"""Brings features of any window and hop onto the segments of a grid, by one rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avel.errors import ConfigError

OVERHANG = 1e-6
"""Seconds by which a window may reach over the edge of a segment and still lie inside."""


@dataclass(frozen=True)
class Timing:
    """Window and hop of features: feature k covers `window_seconds` from k * `hop_seconds` on.

    Raises:
        ConfigError: the hop is not positive, or the window is negative.
    """

    window_seconds: float
    hop_seconds: float

    def __post_init__(self) -> None:
        if not (self.hop_seconds > 0 and self.window_seconds >= 0):
            raise ConfigError(
                f"features of {self.window_seconds:g} s every {self.hop_seconds:g} s",
                hint="give a hop above 0, and a window of 0 (a single frame) or more",
            )

    @classmethod
    def declared(cls, window_seconds: float | None, hop_seconds: float | None) -> Timing | None:
        """Returns the timing that a user gave; one of the two stands for both, None for neither."""
        window = hop_seconds if window_seconds is None else window_seconds
        hop = window_seconds if hop_seconds is None else hop_seconds
        return None if window is None or hop is None else cls(window, hop)

    def seconds_of(self, count: int) -> float:
        """Returns where the last of `count` features ends."""
        return (count - 1) * self.hop_seconds + self.window_seconds

    def places(self, count: int, segments: int, segment_seconds: float) -> list[NDArray[np.int64]]:
        """Returns for each segment the features that its vector is the mean of.

        These are the features whose windows lie inside the segment. If there are none, it is the feature
        whose window covers the middle of the segment, and of several the one whose own middle is nearest; a
        gap after a window counts as part of it. Networks drop a last window that is not full: a segment whose
        middle it would have covered takes the last feature. Later segments have none.

        >>> [places.tolist() for places in Timing(0.96, 0.96).places(10, 4, 1.0)]
        [[0], [1], [2], [3]]
        >>> [places.tolist() for places in Timing(0, 0.25).places(12, 3, 1.0)]
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        """
        starts = np.arange(count + 1) * self.hop_seconds  # the last is of the window that was dropped
        ends = starts + self.window_seconds
        until = starts + max(self.window_seconds, self.hop_seconds)
        features_of = []
        for segment in range(segments):
            onset, offset = segment * segment_seconds, (segment + 1) * segment_seconds
            middle = (onset + offset) / 2
            inside = (starts >= onset - OVERHANG) & (ends <= offset + OVERHANG) & (starts < offset - OVERHANG)
            chosen = np.flatnonzero(inside[:count])
            if not len(chosen):
                covering = np.flatnonzero((starts <= middle + OVERHANG) & (until >= middle - OVERHANG))
                distance = np.abs((starts + ends)[covering] / 2 - middle)
                chosen = np.minimum(covering[np.argsort(distance, kind="stable")[:1]], count - 1)
            features_of.append(chosen)
        return features_of
