"""Figures of predictions with one label a segment: accuracies, recall by class, F1 of segments, events."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from avel.heads.tasks.metrics import (
    Labels,
    confusion,
    event_counts,
    ratio,
    recall_by_class,
    segment_accuracy,
    segment_f1_tally,
)
from avel.heads.tasks.parsing_metrics import f1, overlap_counts, segment_counts
from avel.heads.tasks.results import EventEvaluation, LabelSets, PredictionMetrics, Spread, TagEvaluation
from avel.stores.datasets.labels import in_clip

FIGURE_COLUMNS = (
    ("accuracy, %", ("accuracy_percent",)),
    ("95 % interval over videos", ("interval_percent",)),
    ("without leaked videos", ("accuracy_without_leaked_percent",)),
    ("event decoder", ("accuracy_by_decoder_percent", "event")),
    ("event F1, ±1 segment", ("events", "f1_percent")),
    ("background recall", ("background_recall_percent",)),
    ("at the best test epoch *", ("score_at_best_test_epoch_percent",)),
)
"""Title of a figure in the report -> its place in the results."""


def single_label_results(
    sets: LabelSets, categories: Sequence[str], interval_percent: tuple[float, float] | None
) -> PredictionMetrics:
    """Returns the figures of labels (R, T), where background is the class after the last category."""
    decoded, label, background = sets.predicted, sets.label, len(categories)
    holding, clean = (label == background).any(1), ~sets.leaked
    counts = sum(
        (confusion(each, label, background + 1) for each in decoded),
        np.zeros((background + 1, background + 1), np.int64),
    )
    recalls = [None if math.isnan(value) else 100 * value for value in recall_by_class(counts).tolist()]
    tolerances = sets.onset_tolerance, sets.offset_tolerance
    return PredictionMetrics(
        accuracy_percent=_accuracy(decoded, label),
        interval_percent=interval_percent,
        accuracy_without_leaked_percent=_accuracy([each[clean] for each in decoded], label[clean]),
        accuracy_holding_background_percent=_accuracy([each[holding] for each in decoded], label[holding]),
        segment_f1_percent=_segment_f1(decoded, label, background),
        accuracy_by_decoder_percent={
            name: _accuracy(labels, label) for name, labels in sets.by_decoder.items()
        },
        recall_percent=dict(zip(categories, recalls, strict=False)),
        background_recall_percent=recalls[-1],
        events=_event_evaluation(decoded, label, background, tolerances),
        parsing=None,
        by_tag={
            tag: _tag_evaluation(chosen, decoded, label, background, tolerances)
            for tag, chosen in sets.tags.items()
        },
    )


def _tag_evaluation(
    chosen: NDArray[np.bool_],
    decoded: Sequence[Labels],
    label: Labels,
    background: int,
    tolerances: tuple[float, float],
) -> TagEvaluation:
    """Returns the figures of the chosen samples alone: (R,)."""
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
        event_f1_percent=_event_evaluation(decoded, label, background, tolerances).f1_percent,
        segment_f1_over_clips_percent=Spread.of_means([f1(*segment_counts(*pair)) for pair in pairs]),
        event_f1_over_clips_percent=Spread.of_means([f1(*overlap_counts(*pair)) for pair in pairs]),
    )


def _accuracy(decoded: Sequence[Labels], label: Labels) -> Spread:
    return Spread.of_fractions(segment_accuracy(predicted, label) for predicted in decoded)


def _segment_f1(decoded: Sequence[Labels], label: Labels, background: int) -> Spread:
    return Spread.of_fractions(float(segment_f1_tally(each, label, background).value) for each in decoded)


def _event_evaluation(
    decoded: Sequence[Labels], label: Labels, background: int, tolerances: tuple[float, float]
) -> EventEvaluation:
    counts = [event_counts(each, label, background, *tolerances).sum(0) for each in decoded]
    matched, predicted, true = np.array(counts, np.float64).reshape(-1, 3).T
    return EventEvaluation(
        *tolerances,
        f1_percent=Spread.of_fractions(ratio(2 * matched, predicted + true)),
        precision_percent=Spread.of_fractions(ratio(matched, predicted)),
        recall_percent=Spread.of_fractions(ratio(matched, true)),
    )
