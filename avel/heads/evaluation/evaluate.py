"""`evaluate`: figures of a run's predictions over its seeds, beside trivial baselines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from avel.device import explain_full_memory, tf32
from avel.heads.evaluation.evaluation import Evaluation, FailedTrial, GroupEvaluation
from avel.heads.evaluation.predictions import (
    Predictions,
    check_complete,
    compute_metrics,
    describe_split,
    no_predictions,
    read_predictions,
)
from avel.heads.models.head import Model, weak_labels_of
from avel.heads.tasks.results import Decoder, Spread
from avel.heads.tasks.task import Task
from avel.heads.training.data import Data
from avel.heads.training.fit import CLIPS_AT_ONCE, arithmetic
from avel.heads.training.records import HeadInputs, TrialRecord, read_trials, task_of, trained_groups
from avel.heads.training.trials import Trial
from avel.nn import zero_padding
from avel.progress import note
from avel.stores.runs import Run
from avel.text import plural


def evaluate(
    run: Path | str,
    split: Literal["val", "test"] = "test",
    *,
    decoder: Decoder | None = None,
    onset_tolerance: float = 1,
    offset_tolerance: float = 1,
) -> Evaluation:
    """Evaluates a run's trials at their best validation epoch: scores in %, tolerances in segments.

    By default a label is the most probable class, and where a segment may have several, every class with a
    probability of at least one half.

    >>> evaluate("runs/tacma").groups["tacma"].accuracy_percent  # doctest: +SKIP
    Spread(mean=80.6, std=1.1)

    Raises:
        MissingPathError: no such run.
        StoreError: the run has no predictions of this split.
        TrainingError: every trial of the run failed.
        ConfigError: no such decoder for the run's task.
    """
    opened = Run.open(run, "heads")
    by_split = read_predictions(opened)
    if split not in (*by_split, "test"):  # a cache may have no test samples
        raise no_predictions(opened, split, by_split)
    return evaluate_split(opened, by_split.get(split, []), split, decoder, onset_tolerance, offset_tolerance)


def evaluate_split(
    run: Run,
    predictions: Sequence[Predictions],
    split: str,
    decoder: Decoder | None = None,
    onset_tolerance: float = 1,
    offset_tolerance: float = 1,
) -> Evaluation:
    """Evaluates predictions of a run's trials on one split; `predictions` is empty where there are none.

    Figures are None where no sample of the split has known events; a note says so.

    Raises:
        ConfigError: no such decoder.
    """
    task = task_of(run)
    chosen = task.find_decoder(decoder)
    trials = {trial.name: trial for trial in read_trials(run)}
    of_trial = {item.trial: item.labelled() for item in predictions}
    groups = trained_groups(trials.values())
    if predictions:
        check_complete(run, [trial for group in groups.values() for trial in group], of_trial, split)
    about = describe_split(predictions, task, chosen, split)
    if about.unknown_samples or not about.samples:
        counted = f"evaluates {plural(about.samples, f'{split} sample')}"
        left = f", without {about.unknown_samples} more whose events are not known"
        note(f"{run.path}: {counted}{left if about.unknown_samples else ''}")
    tolerances, tags = (onset_tolerance, offset_tolerance), run.read_inputs(HeadInputs).tags
    return Evaluation(
        **vars(about),
        run=str(run.path),
        groups={
            name: _evaluate_group(
                [of_trial[trial.name] for trial in group] if about.samples else [],
                group,
                task,
                chosen,
                tolerances,
                tags,
            )
            for name, group in groups.items()
        },
        failed_trials=tuple(
            FailedTrial(trial.name, trial.group, trial.failure) for trial in trials.values() if trial.failure
        ),
    )


def predict_split(model: Model, trial: Trial | TrialRecord, data: Data, name: str) -> Predictions:
    """Computes one trial's class probabilities on one split.

    Raises:
        DeviceMemoryError: the GPU's memory is full.
    """
    split, device = data.splits[name], data.features.device
    parts = []
    chunks = [split.videos[chunk] for chunk in torch.split(torch.arange(len(split)), CLIPS_AT_ONCE)]
    with torch.no_grad(), tf32(device), explain_full_memory("go on with --device cpu"):
        for chunk, (audio, visual) in zip(chunks, data.features.batches(chunks), strict=True):
            with arithmetic(trial.config, device):
                output = model(audio, visual, data.features.lengths_of(chunk))
                parts.append(zero_padding(data.task.probabilities(output.logits), output.mask).cpu())
    return Predictions(
        trial.name,
        name,
        split.number,
        split.video_id,
        split.leaked,
        split.labels.cpu().numpy(),
        torch.cat(parts).numpy(),
    )


def _evaluate_group(
    items: Sequence[Predictions],
    trials: Sequence[TrialRecord],
    task: Task,
    decoder: Decoder,
    tolerances: tuple[float, float],
    tags: Mapping[str, Sequence[int]],
) -> GroupEvaluation:
    """Evaluates trials that differ in the seed alone; without items all figures on the split are None."""
    # Training found the best test epoch, and its score, by the usual decoder alone
    has_best = bool(items) and items[0].split == "test" and decoder == task.usual_decoder
    best = [trial.best_test_score for trial in trials if trial.best_test_score is not None]
    return GroupEvaluation(
        **vars(compute_metrics(items, task, decoder, tolerances, tags=tags)),
        head=trials[0].config.head.name,
        inputs=trials[0].inputs,
        weak_labels=weak_labels_of(trials[0].config, task.name),
        selected_by="videos" if trials[0].config.selects_by_videos(task.name) else "segments",
        seeds=tuple(trial.seed for trial in trials),
        best_epochs=tuple(trial.best_epoch for trial in trials),
        validation_score_percent=Spread.of_fractions(trial.val_score for trial in trials),
        score_at_best_test_epoch_percent=Spread.of_fractions(best if has_best else []),
    )
