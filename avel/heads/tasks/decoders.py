"""Decoders: class probabilities -> labels of segments."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Decoder = Literal["argmax", "event", "threshold"]


def decode_argmax(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """Returns the most probable class of each segment: (R, T, K) -> (R, T)."""
    return np.asarray(probabilities.argmax(-1), np.int64)


def decode_event(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """Returns one event class for each sample, or background, in each segment: (R, T, K) -> (R, T).

    The class is the event with the highest mean probability over time. A segment holds it where it is more
    probable than background.
    """
    background = probabilities.shape[-1] - 1
    category = probabilities[..., :background].mean(1).argmax(-1)[:, None]
    score = np.take_along_axis(probabilities, category[..., None], -1)[..., 0]
    return np.asarray(np.where(score > probabilities[..., background], category, background), np.int64)


def decode_threshold(probabilities: NDArray[Any]) -> NDArray[np.int8]:
    """Returns 1 for each class with a probability of at least 0.5, else 0: (R, T, K) -> (R, T, K)."""
    return np.asarray(probabilities >= 0.5, np.int8)
