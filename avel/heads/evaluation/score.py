"""`score`: anybody's predictions, evaluated as those of heads are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from avel.errors import ConfigError, DatasetError
from avel.grid import Grid
from avel.heads.config import TaskChoice
from avel.heads.evaluation import wording
from avel.heads.evaluation.predictions import Predictions, compute_metrics, describe_split
from avel.heads.evaluation.submissions import read_submission
from avel.heads.tasks.choose import choose_task
from avel.heads.tasks.results import Decoder, PredictionMetrics
from avel.heads.tasks.task import Task
from avel.stores.datasets.formats import read_dataset
from avel.text import plural


@dataclass(frozen=True)
class Score(PredictionMetrics, wording.EvaluatedSplit):
    """Results of predictions without a run on one split; spreads are over the sets in `predictions`."""

    predictions: tuple[str, ...]
    dataset: str

    def headline(self) -> str:
        """Returns the score in one line, with a verdict."""
        return wording.headline(self, self, plural(len(self.predictions), "set"))

    def all_lines(self) -> list[str]:
        """Returns all figures for people."""
        return [*wording.metric_lines(self, self), ""]


def score(
    predictions: Path | str | Sequence[Path | str],
    dataset: Path | str,
    *,
    split: Literal["val", "test"] = "test",
    task: TaskChoice = "auto",
    decoder: Decoder | None = None,
    onset_tolerance: float = 1,
    offset_tolerance: float = 1,
    segments: int | None = None,
    segment_seconds: float = 1.0,
    annotations: Path | str | None = None,
    format: str = "auto",
    format_settings: Mapping[str, Any] | None = None,
) -> Score:
    """Evaluates predictions on the samples of one split; several files count as so many seeds.

    >>> score("labels.npy", "AVE_Dataset").accuracy_percent  # doctest: +SKIP
    Spread(mean=77.4, std=None)

    Args:
        predictions: .npy, CSV or Parquet files, as `avel score --help` lists them.
        dataset: folder of the annotations.
        task: one label a segment, or any number in each modality; "auto" takes the one that the events need.
        onset_tolerance: of events, in segments.
        offset_tolerance: likewise.
        segments: number of segments of the predictions' grid; by default 10, or that of the longest clip
            where the annotations give each clip a length.
        segment_seconds: length of such a segment.

    Raises:
        MissingPathError: no such file or folder.
        DatasetError: predictions that cannot be read or do not fit the dataset; a split without samples;
            events that do not fit the task.
        ConfigError: no such decoder for the task, or one that needs scores where there are labels alone.
    """
    data = read_dataset(dataset, annotations, format=format, **(format_settings or {}))
    chosen_task = choose_task(data, task)
    chosen = chosen_task.find_decoder(decoder)
    samples = [sample for sample in data.samples if sample.split == split]
    if not samples:
        raise DatasetError(f"{data.root}: no samples of split {split!r}", hint="--split val, for example")
    grid = Grid.without_frames(segments or data.segments(segment_seconds), segment_seconds)
    label = chosen_task.labels_of(data, grid, samples)
    paths = [predictions] if isinstance(predictions, str | Path) else list(predictions)
    sets = [each for path in paths for each in read_submission(Path(path), data, samples, chosen_task, grid)]
    scored = all(each.has_scores for each in sets)
    if chosen != chosen_task.usual_decoder and not scored:
        raise ConfigError(
            f"decoder {decoder!r} needs scores, and the files hold labels alone", hint="leave --decoder out"
        )
    leaked = data.leaked()
    about = (
        np.array([sample.number for sample in samples], np.int64),
        np.array([sample.video_id for sample in samples], object),
        np.array([sample.number in leaked for sample in samples], bool),
        label,
    )
    items = [Predictions(each.name, split, *about, each.scores) for each in sets]
    decoders = tuple(chosen_task.decoders) if scored else (chosen_task.usual_decoder,)
    tags = {
        tag: [sample.number for sample in samples if sample.tag == tag]
        for tag in sorted({sample.tag for sample in samples if sample.tag})
    }
    names = tuple(each.name for each in sets)
    tolerances = (onset_tolerance, offset_tolerance)
    return score_predictions(
        items, chosen_task, chosen, tolerances, decoders, tags, predictions=names, dataset=str(data.root)
    )


def score_predictions(
    items: Sequence[Predictions],
    task: Task,
    decoder: Decoder,
    tolerances: tuple[float, float],
    decoders: Sequence[Decoder] | None = None,
    tags: Mapping[str, Sequence[int]] | None = None,
    *,
    predictions: tuple[str, ...],
    dataset: str,
) -> Score:
    """Evaluates sets of predictions of one split, on the samples whose events are known.

    Arguments up to `tags` are those of `compute_metrics`, the others fields of the result.
    """
    about = describe_split(items, task, decoder, items[0].split)
    labelled = [item.labelled() for item in items] if about.samples else []
    metrics = compute_metrics(labelled, task, decoder, tolerances, decoders, tags)
    return Score(**vars(about), **vars(metrics), predictions=predictions, dataset=dataset)
