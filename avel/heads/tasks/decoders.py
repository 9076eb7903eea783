"""From class probabilities to labels: the two ways of the field."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Decoder = Literal["argmax", "event"]


def decode_argmax(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """Each segment by itself, the most probable of K classes: (R, T, K) -> (R, T)."""
    return np.asarray(probabilities.argmax(-1), np.int64)


def decode_event(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """One event class a video, and segments that hold it or not: (R, T, K) -> (R, T).

    The class is the event with the highest mean probability over time. The event score of a segment is that
    class's share of its probability and background's; the segment holds the event above one half.
    """
    background = probabilities.shape[-1] - 1
    category = probabilities[..., :background].mean(1).argmax(-1)[:, None]
    score = np.take_along_axis(probabilities, category[..., None], -1)[..., 0]
    return np.asarray(np.where(score > probabilities[..., background], category, background), np.int64)


DECODERS: dict[Decoder, Callable[[NDArray[Any]], NDArray[np.int64]]] = {
    "argmax": decode_argmax,
    "event": decode_event,
}
