"""Reads predictions that avel did not make: arrays in annotation order, tables of segments or of events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from avel.errors import DatasetError, MissingPathError
from avel.heads.tasks.task import BACKGROUND
from avel.progress import note
from avel.stores.arrow import read_parquet
from avel.stores.datasets.dataset import Dataset, Sample
from avel.stores.datasets.event_table import read_events
from avel.stores.datasets.labels import EventTable, segment_labels

FORMS = "a table of segments (sample or video_id, segment, prediction) or of events, or an .npy array"


@dataclass(frozen=True)
class Submission:
    """One set of predictions for R samples of T segments, from a file or from one trial in it.

    Attributes:
        scores: (R, T, K) probabilities; of labels without scores, 1 for the label.
        has_scores: whether the file holds scores and not labels alone.
    """

    name: str
    scores: NDArray[np.float32]
    has_scores: bool


def read_submission(
    path: Path, dataset: Dataset, samples: Sequence[Sample], segments: int, segment_seconds: float
) -> list[Submission]:
    """Reads the predictions for some samples; a Parquet file of several trials gives a set for each.

    Raises:
        MissingPathError: no such file.
        DatasetError: it cannot be read, or lacks samples, with what was found and what is needed.
    """
    if not path.is_file():
        raise MissingPathError(f"{path}: no such file", hint=f"give {FORMS}")
    try:
        return _read(path, dataset, samples, segments, segment_seconds)
    except (ValueError, TypeError, KeyError, OverflowError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: {error}", hint=f"give {FORMS}") from None


def _read(
    path: Path, dataset: Dataset, samples: Sequence[Sample], segments: int, segment_seconds: float
) -> list[Submission]:
    """Reads the file by its ending; values of wrong types raise what numpy and Arrow make of them."""
    classes = (*dataset.categories, BACKGROUND)
    if path.suffix.lower() == ".npy":
        return [_array(path, dataset, samples, segments, len(classes))]
    table = _table(path)
    if "segment" not in table.column_names:
        return [_events(path, dataset, samples, segments, segment_seconds)]
    if "split" in table.column_names:
        table = table.filter(pc.equal(table["split"], samples[0].split))
    trials = pc.unique(table["trial"]).to_pylist() if "trial" in table.column_names else [""]
    return [
        _segments(
            f"{path}: {trial}" if trial else str(path),
            table.filter(pc.equal(table["trial"], trial)) if trial else table,
            samples,
            segments,
            classes,
        )
        for trial in trials
    ]


def _array(
    path: Path, dataset: Dataset, samples: Sequence[Sample], segments: int, classes: int
) -> Submission:
    """Reads (rows, T) labels or (rows, T, K) scores; rows are those of the split, or all of the dataset."""
    try:
        values = np.load(path, allow_pickle=False)
    except Exception as error:  # whatever numpy and Python make of the text of its header
        raise DatasetError(f"{path}: {error}", hint="save it with numpy.save, as numbers") from None
    counts = {len(samples): "the split", len(dataset.samples): "the dataset"}
    wanted = f"({' or '.join(map(str, counts))}, {segments}) labels or (..., {segments}, {classes}) scores"
    shapes = {(rows, segments) for rows in counts} | {(rows, segments, classes) for rows in counts}
    if values.shape not in shapes:
        raise DatasetError(f"{path}: {values.shape}, need {wanted}", hint="--segments sets their number")
    if len(values) != len(samples):
        place = {sample.number: row for row, sample in enumerate(dataset.samples)}
        values = values[[place[sample.number] for sample in samples]]
    if values.ndim == 3:
        return Submission(str(path), as_probabilities(str(path), values), has_scores=True)
    if values.dtype.kind not in "iu":
        raise DatasetError(f"{path}: labels of type {values.dtype}", hint="save class numbers as integers")
    return Submission(str(path), one_hot(str(path), values.astype(np.int64), classes), has_scores=False)


def _table(path: Path) -> pa.Table:
    as_text = pyarrow.csv.ConvertOptions(column_types={"video_id": pa.string()})  # 001 stays 001
    try:
        if path.suffix.lower() == ".parquet":
            table = read_parquet(path)
        else:
            table = pyarrow.csv.read_csv(path, convert_options=as_text)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path}: {error}", hint=f"give {FORMS}") from None
    return table


def _segments(
    name: str, table: pa.Table, samples: Sequence[Sample], segments: int, classes: tuple[str, ...]
) -> Submission:
    """Reads a row a sample and segment: a `prediction`, `probabilities`, or a column for each class."""
    columns = set(table.column_names)
    key = next((each for each in ("sample", "video_id") if each in columns), None)
    scored = "probabilities" in columns or columns >= set(classes)
    if key is None or not (scored or "prediction" in columns):
        raise DatasetError(
            f"{name}: columns {', '.join(table.column_names)}",
            hint="need sample or video_id, segment, and prediction, probabilities or a column a class",
        )
    if "probabilities" in columns:
        values = np.array(table["probabilities"].to_pylist(), np.float64)
    elif scored:
        values = np.stack([table[each].to_numpy().astype(np.float64) for each in classes], 1)
    else:
        numbers = _class_numbers(name, table["prediction"].to_pylist(), classes)
        values = one_hot(name, numbers, len(classes)).astype(np.float64)
    if values.ndim != 2 or values.shape[1] != len(classes):
        raise DatasetError(
            f"{name}: rows of {values.shape[1:]} scores, the dataset has {len(classes)} classes"
        )
    keys = table[key].to_pylist()
    at = np.asarray(table["segment"].to_pylist(), np.int64)
    filled: dict[Any, NDArray[np.float64]] = {}
    for place, (owner, segment) in enumerate(zip(keys, at.tolist(), strict=True)):
        if not 0 <= segment < segments:
            raise DatasetError(
                f"{name}: segment {segment} of {owner}", hint=f"they go from 0 to {segments - 1}"
            )
        rows = filled.setdefault(owner, np.full((segments, len(classes)), np.nan))
        if not np.isnan(rows[segment]).all():
            raise DatasetError(
                f"{name}: segment {segment} of {owner} is there twice", hint="leave one of them"
            )
        rows[segment] = values[place]
    found = [filled.get(sample.number if key == "sample" else sample.video_id) for sample in samples]
    complete = [rows for rows in found if rows is not None and not np.isnan(rows).any()]
    if len(complete) < len(samples):
        lacking = [
            each for each, rows in zip(samples, found, strict=True) if rows is None or np.isnan(rows).any()
        ]
        raise DatasetError(
            f"{name}: {len(lacking)} of {len(samples)} samples lack predictions, the first is sample "
            f"{lacking[0].number} ({lacking[0].video_id})",
            hint=f"predict all {segments} segments of each; {BACKGROUND} where nothing is found",
        )
    stacked = np.stack(complete)
    probabilities = as_probabilities(name, stacked) if scored else stacked.astype(np.float32)
    return Submission(name, probabilities, has_scores=scored)


def _class_numbers(name: str, values: Iterable[Any], classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Reads classes by name or number."""
    numbers = {each: number for number, each in enumerate(classes)}
    found = []
    for value in values:
        number = numbers.get(value, value)
        if not isinstance(number, int):
            raise DatasetError(f"{name}: no class named {value!r}", hint=f"they are {', '.join(classes)}")
        found.append(number)
    return np.array(found, np.int64)


def _events(
    path: Path, dataset: Dataset, samples: Sequence[Sample], segments: int, segment_seconds: float
) -> Submission:
    """Reads a row an event: its video, class, onset and offset in seconds; what has no row is background."""
    events = []
    rows_of: dict[str, list[int]] = {}
    for row, sample in enumerate(samples):
        rows_of.setdefault(sample.video_id, []).append(row)
    for line in read_events(path):
        video_id = line.name if line.name in rows_of else Path(line.name).stem
        if line.event is None or video_id not in rows_of:
            continue
        if line.event.category not in dataset.class_ids:
            raise DatasetError(
                f"{line.where}: no class named {line.event.category!r}",
                hint=f"they are {', '.join(dataset.categories)}",
            )
        events += [(row, line.event) for row in rows_of[video_id]]
    table = EventTable(
        np.array([row for row, _ in events], np.int64),
        np.array([dataset.class_ids[event.category] for _, event in events], np.int64),
        np.array([event.onset_seconds for _, event in events], np.float64),
        np.array([event.offset_seconds for _, event in events], np.float64),
        np.zeros(len(events), np.int64),
    )
    labels = segment_labels(
        np.ones(len(samples), bool),
        table,
        dataset.background,
        segments,
        segment_seconds,
        lambda row: f"{path}: {samples[row].video_id}",
        dataset.categories,
    )
    return Submission(str(path), one_hot(str(path), labels, dataset.background + 1), has_scores=False)


def one_hot(name: str, labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Returns 1 for each label, else 0: (...) -> (..., K).

    Raises:
        DatasetError: a label that is not a class.
    """
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise DatasetError(
            f"{name}: class {wrong.ravel()[0]}",
            hint=f"classes go from 0 to {classes - 1}, which is {BACKGROUND}",
        )
    return np.eye(classes, dtype=np.float32)[labels]


def as_probabilities(name: str, scores: NDArray[Any]) -> NDArray[np.float32]:
    """Returns scores that sum to 1: as they are if they do, else their softmax, of which a note tells.

    Raises:
        DatasetError: a score that is not finite.
    """
    values = np.asarray(scores, np.float64)
    if not np.isfinite(values).all():
        raise DatasetError(f"{name}: scores that are not finite", hint="save probabilities or logits")
    if values.min() >= 0 and np.allclose(values.sum(-1), 1, atol=1e-3):
        return values.astype(np.float32)
    note(f"{name}: the scores are not probabilities and are taken for logits (softmax)")
    powers = np.exp(values - values.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)
