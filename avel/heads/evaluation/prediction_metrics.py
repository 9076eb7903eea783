"""Computes the metrics of predictions for the same samples, of heads or of other programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from avel.heads.evaluation.predictions import Predictions
from avel.heads.evaluation.results import (
    EventEvaluation,
    ParsingEvaluation,
    PredictionMetrics,
    Spread,
    TagEvaluation,
)
from avel.heads.tasks.metrics import (
    Labels,
    bootstrap_interval,
    confusion,
    event_scores,
    recall_by_class,
    segment_accuracy,
    segment_f1_tally,
)
from avel.heads.tasks.multi_label import EVENT, TYPE, MultiLabel
from avel.heads.tasks.parsing_metrics import event_counts, f1, segment_counts
from avel.heads.tasks.single_label import SingleLabel
from avel.heads.tasks.task import Decoder, Task
from avel.stores.datasets.labels import in_clip


def compute_metrics(
    items: Sequence[Predictions],
    task: Task,
    decoder: Decoder,
    tolerances: tuple[float, float],
    decoders: Sequence[Decoder] | None = None,
    tags: Mapping[str, Sequence[int]] | None = None,
) -> PredictionMetrics:
    """Computes the metrics of predictions with known labels, a set for each seed; without any, all is None.

    Args:
        tolerances: of onset and offset, in segments.
        decoders: those whose accuracies are in the result, by default all of the task; labels without scores
            have "argmax" alone.
        tags: word -> numbers of the samples that are also evaluated by themselves.
    """
    decoded = [task.decode(item.probabilities, decoder) for item in items]
    apart: dict[str, NDArray[np.bool_]] = {}
    if tags and items:
        apart = {tag: np.isin(items[0].sample, numbers) for tag, numbers in tags.items()}
        apart["all"] = np.ones(len(items[0].sample), bool)
    if isinstance(task, MultiLabel):
        return _parsing_metrics(items, decoded, task, apart)
    assert isinstance(task, SingleLabel)
    classes, background = task.background + 1, task.background
    label = items[0].label if items else np.empty((0, 0), np.int64)
    clean = ~items[0].leaked if items else np.empty(0, bool)
    holding = (label == background).any(1)
    counts = sum(
        (confusion(each, label, classes) for each in decoded), np.zeros((classes, classes), np.int64)
    )
    recalls = [None if math.isnan(value) else 100 * value for value in recall_by_class(counts).tolist()]
    return PredictionMetrics(
        accuracy_percent=_accuracy(decoded, label),
        interval_percent=_interval_percent(task, decoded, items[0]) if items else None,
        accuracy_without_leaked_percent=_accuracy([each[clean] for each in decoded], label[clean]),
        accuracy_holding_background_percent=_accuracy([each[holding] for each in decoded], label[holding]),
        segment_f1_percent=_segment_f1(decoded, label, background),
        accuracy_by_decoder_percent={
            name: _accuracy([task.decode(item.probabilities, name) for item in items], label)
            for name in decoders or task.decoders
        },
        recall_percent=dict(zip(task.categories, recalls, strict=False)),
        background_recall_percent=recalls[-1],
        events=_judge_events(decoded, label, background, *tolerances),
        parsing=None,
        by_tag={
            tag: _judge_tag(chosen, decoded, label, background, tolerances) for tag, chosen in apart.items()
        },
    )


def _judge_tag(
    chosen: NDArray[np.bool_],
    decoded: Sequence[Labels],
    label: Labels,
    background: int,
    tolerances: tuple[float, float],
) -> TagEvaluation:
    """Judges the chosen ones of the samples: (R,)."""
    decoded, label = [predicted[chosen] for predicted in decoded], label[chosen]
    # After the end of a clip neither side has any class
    one_hot = np.eye(background + 1)
    inside = in_clip(label)[..., None]
    pairs = [
        tuple((one_hot[side] * inside)[:, :, None] for side in (predicted, label)) for predicted in decoded
    ]
    return TagEvaluation(
        samples=int(chosen.sum()),
        accuracy_percent=_accuracy(decoded, label),
        segment_f1_percent=_segment_f1(decoded, label, background),
        event_f1_percent=_judge_events(decoded, label, background, *tolerances).f1_percent,
        segment_f1_over_clips_percent=_mean_percent([f1(*segment_counts(*pair)) for pair in pairs]),
        event_f1_over_clips_percent=_mean_percent([f1(*event_counts(*pair)) for pair in pairs]),
    )


def _mean_percent(values: Sequence[NDArray[np.float64]]) -> Spread:
    return Spread.of([100 * float(value.mean()) for value in values if len(value)])


def _parsing_metrics(
    items: Sequence[Predictions],
    decoded: Sequence[Labels],
    task: MultiLabel,
    apart: Mapping[str, NDArray[np.bool_]],
) -> PredictionMetrics:
    """Judges several labels a segment; what is of one label a segment alone is None."""
    found = [task.f1_by_type(predicted, items[0].label) for predicted in decoded]
    clean = ~items[0].leaked if items else np.empty(0, bool)
    names = (*task.types, TYPE, EVENT)

    def spread(level: int, name: str, chosen: NDArray[np.bool_] | slice = slice(None)) -> Spread:
        return _mean_percent([each[level][name][chosen] for each in found])

    return PredictionMetrics(
        accuracy_percent=Spread(),
        interval_percent=_interval_percent(task, decoded, items[0]) if items else None,
        accuracy_without_leaked_percent=Spread(),
        accuracy_holding_background_percent=Spread(),
        segment_f1_percent=spread(0, TYPE),
        accuracy_by_decoder_percent={},
        recall_percent={},
        background_recall_percent=None,
        events=EventEvaluation(0, 0, spread(1, TYPE), Spread(), Spread()),
        parsing=ParsingEvaluation(
            segment_f1_percent={name: spread(0, name) for name in names},
            event_f1_percent={name: spread(1, name) for name in names},
            type_without_leaked_percent=spread(0, TYPE, clean),
        ),
        by_tag={
            tag: TagEvaluation(
                samples=int(chosen.sum()),
                accuracy_percent=Spread(),
                segment_f1_percent=spread(0, TYPE, chosen),
                event_f1_percent=spread(1, TYPE, chosen),
                segment_f1_over_clips_percent=Spread(),
                event_f1_over_clips_percent=Spread(),
            )
            for tag, chosen in apart.items()
        },
    )


def _interval_percent(task: Task, decoded: Sequence[Labels], item: Predictions) -> tuple[float, float]:
    scores = np.mean([task.scores(predicted, item.label) for predicted in decoded], 0)
    low, high = bootstrap_interval(scores, item.video_id, weights=task.weights(item.label))
    return 100 * low, 100 * high


def _accuracy(decoded: Sequence[Labels], label: Labels) -> Spread:
    return Spread.of([100 * segment_accuracy(predicted, label) for predicted in decoded])


def _segment_f1(decoded: Sequence[Labels], label: Labels, background: int) -> Spread:
    return Spread.of([100 * float(segment_f1_tally(each, label, background).value) for each in decoded])


def _judge_events(
    decoded: Sequence[Labels],
    label: Labels,
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
