"""Cuts a video of any length into windows of T segments, and merges their probabilities.

Windows begin every T / 2 segments (rounded up), the last one ends with the video. A segment's
probabilities are the weighted mean over the windows that hold it; the weight is the segment's distance to the
nearer end of the window, counted from 1, because Bi-LSTMs and attention have least context at the ends.
"""

import numpy as np
from numpy.typing import NDArray


def window_starts(segments: int, width: int) -> list[int]:
    """Lists the first segment of each window of `width`; a video no longer than that is one window.

    >>> window_starts(10, 10), window_starts(24, 10)
    ([0], [0, 5, 10, 14])
    """
    if segments <= width:
        return [0]
    hop = -(-width // 2)
    return [*range(0, segments - width, hop), segments - width]


def merge_windows(probabilities: NDArray[np.float64], starts: list[int]) -> NDArray[np.float64]:
    """Averages probabilities over windows, by weight: (W, T, K) -> (L, K)."""
    width = probabilities.shape[1]
    place = np.arange(width)
    weight = np.minimum(place + 1, width - place).astype(np.float64)
    total = np.zeros((starts[-1] + width, probabilities.shape[2]))
    weights = np.zeros(len(total))
    for start, window in zip(starts, probabilities, strict=True):
        total[start : start + width] += weight[:, None] * window
        weights[start : start + width] += weight
    return total / weights[:, None]
