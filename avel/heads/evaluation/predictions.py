"""predictions.parquet of a run: one row for each trial, sample and segment."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from avel.errors import StoreError
from avel.heads.tasks.single_label import SingleLabel
from avel.heads.training.records import AGAIN, HeadInputs, TrialRecord
from avel.stores.arrow import read_own_parquet, to_parquet
from avel.stores.datasets.dataset import SPLITS
from avel.stores.datasets.labels import UNKNOWN, take
from avel.stores.files import write_bytes
from avel.stores.runs import Run

NAME = "predictions.parquet"


@dataclass(frozen=True)
class Predictions:
    """Predictions of one trial for R samples.

    Attributes:
        sample: (R,) number of each sample in its dataset.
        leaked: (R,) whether the sample's video is also in train.
        label: (R, T) class of each segment, -1 where the events are not known.
        probabilities: (R, T, K).
    """

    trial: str
    split: str
    sample: NDArray[np.int64]
    video_id: NDArray[np.object_]
    leaked: NDArray[np.bool_]
    label: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def known(self) -> NDArray[np.bool_]:
        """True for samples whose events are known: (R,)."""
        return np.asarray((self.label != UNKNOWN).all(1))

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Predictions:
        """Returns the predictions of some of the samples."""
        return take(self, chosen)


def judged_part(item: Predictions) -> Predictions:
    """Returns the predictions of samples whose events are known."""
    return item.take(item.known)


def write_predictions(run: Run, predictions: Iterable[Predictions]) -> None:
    """Writes the predictions of all trials to one file, whole or not at all."""
    classes = len(run.read_inputs(HeadInputs).categories) + 1
    tables = [_table(item, classes) for item in predictions]
    write_bytes(run.path / NAME, to_parquet(pa.concat_tables(tables)))


def read_predictions(run: Run) -> dict[str, list[Predictions]]:
    """Reads the file: split -> predictions of each trial, in the order of writing.

    Raises:
        StoreError: no predictions file, or a damaged one.
    """
    path, inputs = run.path / NAME, run.read_inputs(HeadInputs)
    if not path.is_file():
        raise StoreError(f"{path}: no predictions", hint="give the avel train-head command again to go on")
    classes, segments = len(inputs.categories) + 1, inputs.segments
    table = read_own_parquet(path.read_bytes(), _schema(classes), path, AGAIN, {"split": SPLITS})
    label = pc.fill_null(table["label"], UNKNOWN).to_numpy()
    if len(label) and not UNKNOWN <= label.min() <= label.max() < classes:
        raise StoreError(f"{path}: column label holds {label.max()}, there are {classes} classes", hint=AGAIN)
    if strange := set(_values(table, "trial")) - set(inputs.trials):
        raise StoreError(f"{path}: column trial holds {min(strange)!r}, no trial of the run", hint=AGAIN)
    number = table["segment"].to_numpy()
    if len(number) % segments or (number.reshape(-1, segments) != np.arange(segments)).any():
        raise StoreError(f"{path}: column segment does not count to {segments} again and again", hint=AGAIN)
    return {
        split: _trials(_where(table, "split", split), split, segments) for split in _values(table, "split")
    }


def check_complete(run: Run, trials: Iterable[TrialRecord], found: Container[str], split: str) -> None:
    """Checks that there are predictions of every trial; raises StoreError."""
    for trial in trials:
        if trial.name not in found:
            raise StoreError(f"{run.path / NAME}: no trial {trial.name!r} on split {split!r}", hint=AGAIN)


def _schema(classes: int) -> pa.Schema:
    kinds = {
        "trial": pa.string(),
        "split": pa.string(),
        "sample": pa.int64(),
        "video_id": pa.string(),
        "leaked": pa.bool_(),
        "segment": pa.int64(),
        "label": pa.int64(),
        "prediction": pa.int64(),
        "probabilities": pa.list_(pa.float32(), classes),
    }
    return pa.schema([pa.field(name, kind, nullable=name == "label") for name, kind in kinds.items()])


def _trials(table: pa.Table, split: str, segments: int) -> list[Predictions]:
    return [
        _predictions(_where(table, "trial", trial), trial, split, segments)
        for trial in _values(table, "trial")
    ]


def _values(table: pa.Table, column: str) -> list[str]:
    return [str(value) for value in pc.unique(table[column]).to_pylist()]


def _where(table: pa.Table, column: str, value: str) -> pa.Table:
    return table.filter(pc.equal(table[column], value))


def _table(item: Predictions, classes: int) -> pa.Table:
    samples, segments, _ = item.probabilities.shape
    label = item.label.reshape(-1)
    flat = pa.array(item.probabilities.reshape(-1))
    columns = {
        "trial": pa.array([item.trial] * len(label), pa.string()),
        "split": pa.array([item.split] * len(label), pa.string()),
        "sample": np.repeat(item.sample, segments),
        "video_id": pa.array(np.repeat(item.video_id, segments), pa.string()),
        "leaked": np.repeat(item.leaked, segments),
        "segment": np.tile(np.arange(segments), samples),
        "label": pa.array(label, mask=label == UNKNOWN),
        "prediction": SingleLabel.decode(item.probabilities).reshape(-1),
        "probabilities": pa.FixedSizeListArray.from_arrays(flat, classes),
    }
    return pa.table(columns, _schema(classes))


def _predictions(table: pa.Table, trial: str, split: str, segments: int) -> Predictions:
    def first(name: str) -> NDArray[np.generic]:
        return np.asarray(table[name].to_numpy()[::segments])

    probabilities = pc.list_flatten(table["probabilities"]).to_numpy().reshape(table.num_rows, -1)
    return Predictions(
        trial,
        split,
        first("sample").astype(np.int64),
        first("video_id").astype(object),
        first("leaked").astype(np.bool_),
        pc.fill_null(table["label"], UNKNOWN).to_numpy().reshape(-1, segments),
        probabilities.reshape(-1, segments, probabilities.shape[-1]),
    )
