"""`evaluate`: what a run's predictions are worth, over its seeds, beside trivial baselines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from avel.errors import ConfigError, StoreError
from avel.heads.evaluation.decoders import DECODERS, Decoder
from avel.heads.evaluation.metrics import (
    bootstrap_interval,
    confusion,
    event_scores,
    recall_by_class,
    segment_accuracy,
    trivial_baselines,
)
from avel.heads.evaluation.predictions import Predictions, read_predictions
from avel.heads.evaluation.results import Evaluation, EventEvaluation, FailedTrial, GroupEvaluation, Spread
from avel.heads.models.head import Model
from avel.heads.training.data import Data, chunks_of
from avel.heads.training.fit import CLIPS_AT_ONCE, arithmetic
from avel.heads.training.records import TrialRecord, read_trials
from avel.stores.runs import Run


def evaluate(
    run: Path | str,
    split: Literal["val", "test"] = "test",
    *,
    decoder: Decoder = "argmax",
    onset_tolerance: float = 1,
    offset_tolerance: float = 1,
) -> Evaluation:
    """Judges a run's trials at their best validation epoch; accuracies in percent, tolerances in segments.

    >>> evaluate("runs/tacma").groups["tacma"].accuracy_percent  # doctest: +SKIP
    Spread(mean=80.6, std=1.1)

    Raises:
        MissingPathError: no such run.
        StoreError: the run has no predictions of this split.
        ConfigError: no such decoder.
    """
    opened = Run.open(run, "heads")
    file = opened.path / "predictions.parquet"
    held = read_predictions(file)
    if split not in held:
        raise StoreError(f"{file}: no predictions of split {split!r}", hint=f"choose from {', '.join(held)}")
    return judge(opened, held[split], decoder, onset_tolerance, offset_tolerance)


def judge(
    run: Run,
    predictions: Sequence[Predictions],
    decoder: Decoder = "argmax",
    onset_tolerance: float = 1,
    offset_tolerance: float = 1,
) -> Evaluation:
    """Judges what `evaluate` reads: the predictions of a run's trials on one split.

    Raises:
        ConfigError: no such decoder.
    """
    if decoder not in DECODERS:
        raise ConfigError(f"no decoder named {decoder!r}", hint=f"choose from {', '.join(DECODERS)}")
    trials = {trial.name: trial for trial in read_trials(run)}
    categories: list[str] = run.inputs["categories"]
    groups: dict[str, list[Predictions]] = {}
    for item in predictions:
        groups.setdefault(group_name(trials[item.trial]), []).append(item)
    first = predictions[0]
    baselines = trivial_baselines(first.label, first.category, len(categories))
    return Evaluation(
        run=str(run.path),
        split=first.split,
        decoder=decoder,
        samples=len(first.row),
        leaked_samples=int(first.leaked.sum()),
        trivial_baselines_percent={name: 100 * accuracy for name, accuracy in baselines.items()},
        groups={
            name: _judge_group(
                items,
                [trials[item.trial] for item in items],
                categories,
                decoder,
                (onset_tolerance, offset_tolerance),
            )
            for name, items in groups.items()
        },
        failed_trials=tuple(
            FailedTrial(trial.name, group_name(trial), trial.failure)
            for trial in trials.values()
            if trial.failure
        ),
    )


def group_name(trial: TrialRecord) -> str:
    """TrialGroup that differ in the seed alone share a name: the head, or the settings of a sweep."""
    settings = ",".join(f"{key}={value}" for key, value in trial.settings.items())
    return settings or trial.config.head.name


def predict_split(model: Model, trial: TrialRecord, data: Data, name: str) -> Predictions:
    """One trial's class probabilities on one split."""
    split = data.splits[name]
    parts = []
    chunks = [split.videos[chunk] for chunk in chunks_of(torch.arange(len(split)), CLIPS_AT_ONCE)]
    for audio, visual in data.features.batches(chunks):
        with torch.no_grad(), arithmetic(trial.config, data.features.device):
            parts.append(torch.softmax(model(audio, visual).logits.float(), -1).cpu())
    return Predictions(
        trial.name,
        name,
        split.row,
        split.video_id,
        split.leaked,
        split.categories.cpu().numpy(),
        split.labels.cpu().numpy(),
        torch.cat(parts).numpy(),
    )


def _judge_group(
    items: Sequence[Predictions],
    trials: Sequence[TrialRecord],
    categories: Sequence[str],
    decoder: Decoder,
    tolerances: tuple[float, float],
) -> GroupEvaluation:
    """Judges trials that differ in the seed alone."""
    decoded = [DECODERS[decoder](item.probabilities) for item in items]
    label, clean, background = items[0].label, ~items[0].leaked, len(categories)
    holding = (label == background).any(1)
    right = np.mean([predicted == label for predicted in decoded], 0).mean(1)
    low, high = bootstrap_interval(right, items[0].video_id)
    counts = np.sum([confusion(predicted, label, background + 1) for predicted in decoded], 0)
    recalls = [None if math.isnan(value) else 100 * value for value in recall_by_class(counts).tolist()]
    claimed = items[0].split == "test" and decoder == "argmax"  # the best test epoch was found by arg-max
    return GroupEvaluation(
        head=trials[0].config.head.name,
        inputs=trials[0].source,
        seeds=tuple(trial.seed for trial in trials),
        best_epochs=tuple(trial.best_epoch for trial in trials),
        accuracy_percent=_accuracy(decoded, label),
        interval_percent=(100 * low, 100 * high),
        accuracy_without_leaked_percent=_accuracy([each[clean] for each in decoded], label[clean]),
        accuracy_holding_background_percent=_accuracy([each[holding] for each in decoded], label[holding]),
        validation_accuracy_percent=Spread.of([100 * trial.val_accuracy for trial in trials]),
        accuracy_at_best_test_epoch_percent=Spread.of(
            [100 * trial.best_test_accuracy for trial in trials] if claimed else []
        ),
        accuracy_by_decoder_percent={
            name: _accuracy([decode(item.probabilities) for item in items], label)
            for name, decode in DECODERS.items()
        },
        recall_percent=dict(zip(categories, recalls, strict=False)),
        background_recall_percent=recalls[-1],
        events=_judge_events(decoded, label, background, *tolerances),
    )


def _accuracy(decoded: Sequence[NDArray[np.int64]], label: NDArray[np.int64]) -> Spread:
    return Spread.of([100 * segment_accuracy(predicted, label) for predicted in decoded])


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
