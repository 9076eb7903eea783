"""Judges sets of predictions for the same samples, of heads or of other programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from avel.heads.evaluation.predictions import Predictions
from avel.heads.evaluation.results import EventEvaluation, Judged, Spread, TagEvaluation
from avel.heads.tasks.decoders import DECODERS, Decoder
from avel.heads.tasks.metrics import (
    bootstrap_interval,
    confusion,
    event_scores,
    recall_by_class,
    segment_accuracy,
    segment_f1_tally,
)
from avel.heads.tasks.single_label import SingleLabel


def judge_predictions(
    items: Sequence[Predictions],
    task: SingleLabel,
    decoder: Decoder,
    tolerances: tuple[float, float],
    decoders: Sequence[Decoder] = tuple(DECODERS),
    tags: Mapping[str, Sequence[int]] | None = None,
) -> Judged:
    """Judges predictions whose labels are all known, a set for each seed; without any, all is None.

    Args:
        tolerances: of onset and offset, in segments.
        decoders: those whose accuracies are in the result; labels without scores have "argmax" alone.
        tags: word -> numbers of the samples that are also judged by themselves.
    """
    decoded = [task.decode(item.probabilities, decoder) for item in items]
    classes, background = task.background + 1, task.background
    label = items[0].label if items else np.empty((0, 0), np.int64)
    clean = ~items[0].leaked if items else np.empty(0, bool)
    holding = (label == background).any(1)
    counts = sum(
        (confusion(each, label, classes) for each in decoded), np.zeros((classes, classes), np.int64)
    )
    recalls = [None if math.isnan(value) else 100 * value for value in recall_by_class(counts).tolist()]
    return Judged(
        accuracy_percent=_accuracy(decoded, label),
        interval_percent=_interval_percent(decoded, label, items[0].video_id) if items else None,
        accuracy_without_leaked_percent=_accuracy([each[clean] for each in decoded], label[clean]),
        accuracy_holding_background_percent=_accuracy([each[holding] for each in decoded], label[holding]),
        segment_f1_percent=_segment_f1(decoded, label, background),
        accuracy_by_decoder_percent={
            name: _accuracy([task.decode(item.probabilities, name) for item in items], label)
            for name in decoders
        },
        recall_percent=dict(zip(task.categories, recalls, strict=False)),
        background_recall_percent=recalls[-1],
        events=_judge_events(decoded, label, background, *tolerances),
        by_tag={
            tag: _judge_tag(np.isin(items[0].sample, numbers), decoded, label, background, tolerances)
            for tag, numbers in ((tags or {}) if items else {}).items()
        },
    )


def _judge_tag(
    chosen: NDArray[np.bool_],
    decoded: Sequence[NDArray[np.int64]],
    label: NDArray[np.int64],
    background: int,
    tolerances: tuple[float, float],
) -> TagEvaluation:
    """Judges the chosen ones of the samples: (R,)."""
    decoded, label = [predicted[chosen] for predicted in decoded], label[chosen]
    return TagEvaluation(
        samples=int(chosen.sum()),
        accuracy_percent=_accuracy(decoded, label),
        segment_f1_percent=_segment_f1(decoded, label, background),
        event_f1_percent=_judge_events(decoded, label, background, *tolerances).f1_percent,
    )


def _interval_percent(
    decoded: Sequence[NDArray[np.int64]], label: NDArray[np.int64], video_id: NDArray[np.object_]
) -> tuple[float, float]:
    right = np.mean([predicted == label for predicted in decoded], 0).mean(1)
    low, high = bootstrap_interval(right, video_id)
    return 100 * low, 100 * high


def _accuracy(decoded: Sequence[NDArray[np.int64]], label: NDArray[np.int64]) -> Spread:
    return Spread.of([100 * segment_accuracy(predicted, label) for predicted in decoded])


def _segment_f1(decoded: Sequence[NDArray[np.int64]], label: NDArray[np.int64], background: int) -> Spread:
    return Spread.of([100 * float(segment_f1_tally(each, label, background).value) for each in decoded])


def _judge_events(
    decoded: Sequence[NDArray[np.int64]],
    label: NDArray[np.int64],
    background: int,
    onset: float,
    offset: float,
) -> EventEvaluation:
    scores = [
        event_scores(predicted, label, background, onset_tolerance=onset, offset_tolerance=offset)
        for predicted in decoded
    ]
    return EventEvaluation(
        onset_tolerance_segments=onset,
        offset_tolerance_segments=offset,
        f1_percent=Spread.of([100 * score.f1 for score in scores]),
        precision_percent=Spread.of([100 * score.precision for score in scores]),
        recall_percent=Spread.of([100 * score.recall for score in scores]),
    )
