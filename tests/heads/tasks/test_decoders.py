"""Both decoders on probabilities worked out by hand: classes 0, 1 and background."""

import numpy as np

from avel.heads.tasks.single_label import decode_argmax, decode_event

P = np.array(
    [
        [[0.6, 0.3, 0.1], [0.3, 0.4, 0.3], [0.2, 0.1, 0.7], [0.4, 0.0, 0.6]],
        [[0.1, 0.2, 0.7], [0.1, 0.2, 0.7], [0.0, 0.45, 0.55], [0.1, 0.8, 0.1]],
    ]
)


def test_argmax_takes_each_segment_by_itself() -> None:
    assert decode_argmax(P).tolist() == [[0, 1, 2, 2], [2, 2, 2, 1]]


def test_event_takes_one_class_a_video() -> None:
    """Clip 0: means 0.375 and 0.2, so class 0; its second segment ties with background and is no event."""
    assert decode_event(P).tolist() == [[0, 2, 2, 2], [2, 2, 2, 1]]
    nearer = P.copy()
    nearer[0, 1] = [0.31, 0.4, 0.29]
    assert decode_event(nearer)[0].tolist() == [0, 0, 2, 2]
