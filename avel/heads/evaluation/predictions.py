"""Predictions and their metrics; a run's predictions.parquet has a row for each trial, sample and segment."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from avel.errors import StoreError
from avel.heads.evaluation.wording import EvaluatedSplit
from avel.heads.tasks.metrics import Labels
from avel.heads.tasks.results import Decoder, LabelSets, PredictionMetrics
from avel.heads.tasks.task import Task
from avel.heads.training.records import TRAIN_AGAIN, HeadInputs, TrialRecord, read_trained, task_of
from avel.stores.arrow import read_own_parquet, to_parquet
from avel.stores.datasets.labels import PADDED, UNKNOWN, events_known, in_clip, take
from avel.stores.datasets.sample import SPLITS
from avel.stores.files import write_bytes
from avel.stores.runs import Run

PREDICTIONS = "predictions.parquet"


@dataclass(frozen=True)
class Predictions:
    """Predictions of one trial for R samples.

    Attributes:
        number: (R,) number of each sample in its dataset.
        leaked: (R,) whether the sample's video is also in train.
        label: (R, T) class of each segment, or (R, T, K), 1 or 0 for each; -1 where the events are not known,
            -2 after the end of a clip that is shorter than T segments.
        probabilities: (R, T, K); 0 after the end of a clip.
    """

    trial: str
    split: str
    number: NDArray[np.int64]
    video_id: NDArray[np.object_]
    leaked: NDArray[np.bool_]
    label: Labels
    probabilities: NDArray[np.float32]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Returns True for samples whose events are known: (R,)."""
        return events_known(self.label)

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Predictions:
        """Returns the predictions of some of the samples."""
        return take(self, chosen)

    def labelled(self) -> Predictions:
        """Returns the predictions of samples whose events are known."""
        return self.take(self.known)


def write_predictions(run: Run, predictions: Iterable[Predictions]) -> None:
    """Writes the predictions of all trials to one file, whole or not at all."""
    task = task_of(run)
    tables = [_table(item, task) for item in predictions]
    write_bytes(run.path / PREDICTIONS, to_parquet(pa.concat_tables(tables)))


def read_predictions(run: Run) -> dict[str, list[Predictions]]:
    """Reads the file: split -> predictions of each trial, in the order of writing.

    Raises:
        StoreError: no predictions file, or a damaged one.
        TrainingError: there is none because every trial failed.
    """
    path, inputs = run.path / PREDICTIONS, run.read_inputs(HeadInputs)
    if not path.is_file():
        read_trained(run)  # says why, if all trials failed
        raise StoreError(f"{path}: no predictions", hint="give the avel train-head command again to go on")
    task, segments = task_of(run), inputs.segments
    classes = task.outputs if task.one_label else 2
    table = read_own_parquet(path.read_bytes(), _schema(task), path, TRAIN_AGAIN, {"split": SPLITS})
    label = _labels(table["label"])
    if (wrong := label[(label < UNKNOWN) | (label >= classes)]).size:
        raise StoreError(
            f"{path}: column label holds {wrong[0]}, there are {classes} classes", hint=TRAIN_AGAIN
        )
    if strange := set(_values(table, "trial")) - set(inputs.trials):
        raise StoreError(
            f"{path}: column trial holds {min(strange)!r}, no trial of the run", hint=TRAIN_AGAIN
        )
    number = table["segment"].to_numpy()
    clip, begin = _clip_of_rows(number)
    if (
        (clip < 0).any()
        or (number != np.arange(len(number)) - begin[clip]).any()
        or (number >= segments).any()
    ):
        raise StoreError(
            f"{path}: column segment does not count from 0 to at most {segments - 1} in each clip",
            hint=TRAIN_AGAIN,
        )
    by_split = {split: _where(table, "split", split) for split in _values(table, "split")}
    return {
        split: [
            _predictions(_where(part, "trial", trial), trial, split, segments)
            for trial in _values(part, "trial")
        ]
        for split, part in by_split.items()
    }


def check_complete(run: Run, trials: Iterable[TrialRecord], predicted: Container[str], split: str) -> None:
    """Checks that there are predictions of every trial; raises StoreError."""
    for trial in trials:
        if trial.name not in predicted:
            raise StoreError(
                f"{run.path / PREDICTIONS}: no trial {trial.name!r} on split {split!r}", hint=TRAIN_AGAIN
            )


def no_predictions(run: Run, split: str, splits: Collection[str]) -> StoreError:
    """Returns the error for a split without predictions, beside those that have some."""
    hint = f"choose from {', '.join(splits)}" if splits else TRAIN_AGAIN
    return StoreError(f"{run.path}: no predictions of split {split!r}", hint=hint)


def _schema(task: Task) -> pa.Schema:
    label = pa.int64() if task.one_label else pa.list_(pa.int8(), task.outputs)
    kinds = {
        "trial": pa.string(),
        "split": pa.string(),
        "sample": pa.int64(),
        "video_id": pa.string(),
        "leaked": pa.bool_(),
        "segment": pa.int64(),
        "label": label,
        "prediction": label,
        "probabilities": pa.list_(pa.float32(), task.outputs),
    }
    return pa.schema([pa.field(name, kind, nullable=name == "label") for name, kind in kinds.items()])


def _values(table: pa.Table, column: str) -> list[str]:
    return [str(value) for value in pc.unique(table[column]).to_pylist()]


def _where(table: pa.Table, column: str, value: str) -> pa.Table:
    return table.filter(pc.equal(table[column], value))


def _table(item: Predictions, task: Task) -> pa.Table:
    samples, segments, _ = item.probabilities.shape
    inside = in_clip(item.label)
    rows, lengths = int(inside.sum()), inside.sum(1)
    flat = pa.array(item.probabilities[inside].reshape(-1))
    columns = {
        "trial": pa.array([item.trial] * rows, pa.string()),
        "split": pa.array([item.split] * rows, pa.string()),
        "sample": np.repeat(item.number, lengths),
        "video_id": pa.array(np.repeat(item.video_id, lengths), pa.string()),
        "leaked": np.repeat(item.leaked, lengths),
        "segment": np.tile(np.arange(segments), samples)[inside.reshape(-1)],
        "label": _column(item.label[inside]),
        "prediction": _column(task.decode(item.probabilities)[inside]),
        "probabilities": pa.FixedSizeListArray.from_arrays(flat, task.outputs),
    }
    return pa.table(columns, _schema(task))


def _column(labels: Labels) -> pa.Array:
    """Returns a number for each of n segments, or a list of K; null where unknown: (n,) or (n, K)."""
    if labels.ndim == 1:
        return pa.array(labels, mask=labels == UNKNOWN)
    flat = labels.astype(np.int8)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
    return pc.if_else(pa.array((flat != UNKNOWN).all(1)), lists, pa.scalar(None, lists.type))


def _labels(column: pa.ChunkedArray) -> Labels:
    """Returns the labels that `_column` was made of."""
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(pc.fill_null(column, UNKNOWN).to_numpy())
    unknown = pa.scalar([UNKNOWN] * column.type.list_size, column.type)
    flat = pc.list_flatten(pc.if_else(column.is_valid(), column, unknown))
    return np.asarray(flat.to_numpy().reshape(-1, column.type.list_size))


def _clip_of_rows(number: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the clip of each row, and the first row of each clip, from numbers of segments.

    (n,) -> (n,), (clips,). Rows before the first segment 0 get clip -1.
    """
    return np.cumsum(number == 0) - 1, np.flatnonzero(number == 0)


def _predictions(table: pa.Table, trial: str, split: str, segments: int) -> Predictions:
    number = table["segment"].to_numpy()
    clip, begin = _clip_of_rows(number)

    def first(name: str) -> NDArray[np.generic]:
        return np.asarray(table[name].to_numpy()[begin])

    def padded(rows: NDArray[Any], fill: int) -> NDArray[Any]:
        whole = np.full((len(begin), segments, *rows.shape[1:]), fill, rows.dtype)
        whole[clip, number] = rows
        return whole

    probabilities = pc.list_flatten(table["probabilities"]).to_numpy().reshape(table.num_rows, -1)
    return Predictions(
        trial,
        split,
        first("sample").astype(np.int64),
        first("video_id").astype(object),
        first("leaked").astype(np.bool_),
        padded(_labels(table["label"]), PADDED),
        padded(probabilities, 0),
    )


def compute_metrics(
    items: Sequence[Predictions],
    task: Task,
    decoder: Decoder,
    tolerances: tuple[float, float],
    decoders: Sequence[Decoder] | None = None,
    tags: Mapping[str, Sequence[int]] | None = None,
) -> PredictionMetrics:
    """Computes the metrics of labelled predictions, an item for each seed; without items all are None.

    Args:
        tolerances: of onset and offset, in segments.
        decoders: decoders whose accuracy is computed, by default all of the task; name the usual one alone if
            the predictions are labels without scores.
        tags: tag -> numbers of the samples that are also evaluated by themselves; empty ones are left out.
    """
    first = items[0] if items else None
    samples_of_tag = {}
    if tags and first:
        tagged = {tag: np.isin(first.number, numbers) for tag, numbers in tags.items()}
        samples_of_tag = {tag: chosen for tag, chosen in tagged.items() if chosen.any()}
        samples_of_tag |= {"all": np.ones(len(first.number), bool)} if samples_of_tag else {}
    sets = LabelSets(
        predicted=[task.decode(item.probabilities, decoder) for item in items],
        by_decoder={
            name: [task.decode(item.probabilities, name) for item in items]
            for name in decoders or task.decoders
        },
        label=first.label if first else np.empty((0, 0), np.int64),
        video_id=first.video_id if first else np.empty(0, object),
        leaked=first.leaked if first else np.empty(0, bool),
        tags=samples_of_tag,
        onset_tolerance=tolerances[0],
        offset_tolerance=tolerances[1],
    )
    return task.results(sets)


def describe_split(items: Sequence[Predictions], task: Task, decoder: Decoder, split: str) -> EvaluatedSplit:
    """Describes the samples that predictions of one split are evaluated on; an item for each seed."""
    first = items[0].labelled() if items else None
    samples = len(first.number) if first else 0
    baselines = task.trivial_baselines(first.label) if first and samples else {}
    return EvaluatedSplit(
        task=task.name,
        measure=task.measure,
        split=split,
        decoder=decoder,
        samples=samples,
        unknown_samples=len(items[0].number) - samples if items else 0,
        leaked_samples=int(first.leaked.sum()) if first else 0,
        trivial_baselines_percent={name: 100 * accuracy for name, accuracy in baselines.items()},
    )
