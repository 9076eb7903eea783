"""predictions.parquet of a run: one row for each trial, sample and segment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from avel.errors import StoreError
from avel.heads.tasks.single_label import SingleLabel
from avel.stores.arrow import read_parquet
from avel.stores.datasets.labels import UNKNOWN
from avel.stores.files import atomic_path


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
        """Which samples' events are known: (R,)."""
        return np.asarray((self.label != UNKNOWN).all(1))

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Predictions:
        """Returns the predictions of some of the samples."""
        names = ("sample", "video_id", "leaked", "label", "probabilities")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})


def judged_part(item: Predictions) -> Predictions:
    """Returns the predictions of samples whose events are known."""
    return item.take(item.known)


def write_predictions(path: Path, predictions: Iterable[Predictions]) -> None:
    """Writes the predictions of all trials to one file, whole or not at all."""
    tables = [_table(item) for item in predictions]
    with atomic_path(path) as partial:
        pq.write_table(pa.concat_tables(tables), partial, compression="zstd")


def read_predictions(path: Path) -> dict[str, list[Predictions]]:
    """Reads the file: split -> predictions of each trial, in the order of writing.

    Raises:
        StoreError: no predictions file.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no predictions", hint="give the avel train-head command again to go on")
    table = read_parquet(path)
    return {split: _trials(_where(table, "split", split), split) for split in _values(table, "split")}


def _trials(table: pa.Table, split: str) -> list[Predictions]:
    return [_predictions(_where(table, "trial", trial), trial, split) for trial in _values(table, "trial")]


def _values(table: pa.Table, column: str) -> list[str]:
    return [str(value) for value in pc.unique(table[column]).to_pylist()]


def _where(table: pa.Table, column: str, value: str) -> pa.Table:
    return table.filter(pc.equal(table[column], value))


def _table(item: Predictions) -> pa.Table:
    samples, segments, classes = item.probabilities.shape
    label = item.label.reshape(-1)
    flat = pa.array(item.probabilities.reshape(-1))
    return pa.table(
        {
            "trial": pa.array([item.trial] * len(label)),
            "split": pa.array([item.split] * len(label)),
            "sample": np.repeat(item.sample, segments),
            "video_id": pa.array(np.repeat(item.video_id, segments)),
            "leaked": np.repeat(item.leaked, segments),
            "segment": np.tile(np.arange(segments), samples),
            "label": pa.array(label, mask=label == UNKNOWN),
            "prediction": SingleLabel.decode(item.probabilities).reshape(-1),
            "probabilities": pa.FixedSizeListArray.from_arrays(flat, classes),
        }
    )


def _predictions(table: pa.Table, trial: str, split: str) -> Predictions:
    segments = int(pc.max(table["segment"]).as_py()) + 1

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
