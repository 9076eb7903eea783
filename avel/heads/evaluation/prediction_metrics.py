"""Computes the metrics of predictions for the same samples, of heads or of other programs."""

from collections.abc import Mapping, Sequence

import numpy as np

from avel.heads.evaluation.predictions import Predictions, labelled_part
from avel.heads.evaluation.wording import Judged
from avel.heads.tasks.decoders import Decoder
from avel.heads.tasks.results import LabelSets, PredictionMetrics
from avel.heads.tasks.task import Task


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
            have the usual one alone.
        tags: word -> numbers of the samples that are also evaluated by themselves.
    """
    first = items[0] if items else None
    apart = {}
    if tags and first:
        apart = {tag: np.isin(first.sample, numbers) for tag, numbers in tags.items()}
        apart["all"] = np.ones(len(first.sample), bool)
    sets = LabelSets(
        predicted=[task.decode(item.probabilities, decoder) for item in items],
        by_decoder={
            name: [task.decode(item.probabilities, name) for item in items]
            for name in decoders or task.decoders
        },
        label=first.label if first else np.empty((0, 0), np.int64),
        video_id=first.video_id if first else np.empty(0, object),
        leaked=first.leaked if first else np.empty(0, bool),
        tags=apart,
        onset_tolerance=tolerances[0],
        offset_tolerance=tolerances[1],
    )
    return task.results(sets)


def describe(whole: Sequence[Predictions], task: Task, decoder: Decoder, split: str) -> Judged:
    """Says what predictions of one split are judged on, a set for each seed; () where there are none."""
    first = labelled_part(whole[0]) if whole else None
    samples = 0 if first is None else len(first.sample)
    baselines = task.trivial_baselines(first.label) if first is not None and samples else {}
    return Judged(
        task=task.name,
        measure=task.measure,
        split=split,
        decoder=decoder,
        samples=samples,
        unknown_samples=len(whole[0].sample) - samples if whole else 0,
        leaked_samples=0 if first is None else int(first.leaked.sum()),
        trivial_baselines_percent={name: 100 * accuracy for name, accuracy in baselines.items()},
    )
