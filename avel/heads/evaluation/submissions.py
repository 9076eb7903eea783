"""Reads predictions that avel did not make: arrays in annotation order, tables of segments or of events."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from avel.errors import DatasetError, MissingPathError
from avel.grid import Grid
from avel.heads.tasks.task import BACKGROUND, Task
from avel.progress import note
from avel.stores.arrow import read_parquet
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.event_table import read_events
from avel.stores.datasets.sample import Event, Sample
from avel.text import plural

ACCEPTED = "a table of segments (sample or video_id, segment, prediction) or of events, or an .npy array"
LISTS = ("probabilities", "prediction")
"""Columns that may hold a list of K scores, or of K labels, in each row; the first is taken."""


@dataclass(frozen=True)
class Submission:
    """One set of predictions for R samples of T segments, from a file or from one trial in it.

    Attributes:
        scores: (R, T, K) probabilities; of labels without scores, 1 for each label.
        has_scores: whether the file holds scores and not labels alone.
    """

    name: str
    scores: NDArray[np.float32]
    has_scores: bool


def read_submission(
    path: Path, dataset: Dataset, samples: Sequence[Sample], task: Task, grid: Grid
) -> list[Submission]:
    """Reads the predictions for some samples; a Parquet file of several trials gives a set for each.

    Raises:
        MissingPathError: no such file.
        DatasetError: it cannot be read, or lacks samples; says what was found and what is needed.
    """
    if not path.is_file():
        raise MissingPathError(f"{path}: no such file", hint=f"give {ACCEPTED}")
    try:
        return _read(path, dataset, samples, task, grid)
    except (ValueError, TypeError, KeyError, OverflowError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: {error}", hint=f"give {ACCEPTED}") from None


def _read(
    path: Path, dataset: Dataset, samples: Sequence[Sample], task: Task, grid: Grid
) -> list[Submission]:
    """Reads the file by its ending. May also raise errors of numpy and Arrow, on values of wrong types."""
    if path.suffix.lower() == ".npy":
        return [_array(path, dataset, samples, task, grid.segments)]
    table = _table(path)
    if "segment" not in table.column_names:
        return [_events(path, dataset, samples, task, grid)]
    if "split" in table.column_names:
        table = table.filter(pc.equal(table["split"], samples[0].split))
    if not table.num_rows:
        raise DatasetError(f"{path}: no rows of split {samples[0].split!r}", hint=f"give {ACCEPTED}")
    trials = pc.unique(table["trial"]).to_pylist() if "trial" in table.column_names else [None]
    if None in trials and len(trials) > 1:
        raise DatasetError(f"{path}: some rows name no trial", hint="give every row its trial, or none")
    return [
        _segments(
            str(path) if trial is None else f"{path}: {trial}",
            table if trial is None else table.filter(pc.equal(table["trial"], trial)),
            samples,
            task,
            grid.segments,
            dataset.stated_lengths(grid, samples),
        )
        for trial in trials
    ]


def _array(path: Path, dataset: Dataset, samples: Sequence[Sample], task: Task, segments: int) -> Submission:
    """Reads labels (rows, T), or scores (rows, T, K) or (rows, T, tracks, classes).

    Rows are those of the split, or all of the dataset.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except Exception as error:  # whatever numpy and Python make of the text of its header
        raise DatasetError(f"{path}: {error}", hint="save it with numpy.save, as numbers") from None
    counts, scores = (len(samples), len(dataset.samples)), (segments, task.outputs)
    by_track = (segments, len(task.tracks), len(dataset.categories))
    forms: dict[str, tuple[int, ...]]
    forms = {"labels": (segments,)} if task.one_label else {"scores of each track": by_track}
    forms["scores"] = scores
    if values.shape not in {(rows, *form) for rows in counts for form in forms.values()}:
        rows = " or ".join(map(str, dict.fromkeys(counts)))
        wanted = " or ".join(f"({rows}, {', '.join(map(str, form))}) {what}" for what, form in forms.items())
        raise DatasetError(
            f"{path}: has shape {values.shape}, needs {wanted}", hint="--segments sets the number of segments"
        )
    if len(values) != len(samples):
        place = {sample.number: row for row, sample in enumerate(dataset.samples)}
        values = values[[place[sample.number] for sample in samples]]
    if values.ndim > 2:
        values = values.reshape(len(values), *scores)
        return Submission(str(path), _as_probabilities(str(path), values, task), has_scores=True)
    if values.dtype.kind not in "iu":
        raise DatasetError(f"{path}: labels have type {values.dtype}", hint="save class numbers as integers")
    _check_classes(str(path), values.astype(np.int64), task.outputs)
    return Submission(str(path), task.as_scores(values.astype(np.int64)), has_scores=False)


def _table(path: Path) -> pa.Table:
    as_text = pyarrow.csv.ConvertOptions(column_types={"video_id": pa.string()})  # 001 stays 001
    try:
        if path.suffix.lower() == ".parquet":
            return read_parquet(path)
        return pyarrow.csv.read_csv(path, convert_options=as_text)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path}: {error}", hint=f"give {ACCEPTED}") from None


def _scores_of_rows(name: str, table: pa.Table, task: Task) -> tuple[NDArray[np.float64], bool]:
    """Reads the scores of each row, (n, K), and whether the table has scores and not labels alone.

    They are read from a column of `LISTS` or a column for each output; else the class of a row gets 1.
    """
    columns, outputs = set(table.column_names), task.output_names
    lists = next((each for each in LISTS if each in columns and pa.types.is_nested(table[each].type)), None)
    scored = lists is not None or columns >= set(outputs)
    has_classes = task.one_label and "prediction" in columns
    if not columns & {"sample", "video_id"} or not (scored or has_classes):
        prediction = "prediction" if task.one_label else "lists as prediction"
        raise DatasetError(
            f"{name}: lacks a column; it has {', '.join(table.column_names)}",
            hint="give sample or video_id, segment, and one of these: "
            f"{prediction}, lists as probabilities, or a column for each of {', '.join(outputs[:3])} ...",
        )
    if lists is not None:
        values = np.array(table[lists].to_pylist(), np.float64)
    elif scored:
        values = np.stack([table[each].to_numpy().astype(np.float64) for each in outputs], 1)
    else:
        numbers = _class_numbers(name, table["prediction"].to_pylist(), outputs)
        _check_classes(name, numbers, len(outputs))
        values = task.as_scores(numbers).astype(np.float64)
    if values.ndim != 2 or values.shape[1] != len(outputs):
        raise DatasetError(
            f"{name}: rows of {'x'.join(map(str, values.shape[1:]))} scores, not {len(outputs)}",
            hint=f"give each segment a score for each of {', '.join(outputs)}",
        )
    return values, scored


def _segments(
    name: str,
    table: pa.Table,
    samples: Sequence[Sample],
    task: Task,
    segments: int,
    lengths: NDArray[np.int64] | None,
) -> Submission:
    """Reads a row for each sample and segment.

    `lengths` (R,) are the numbers of segments that samples need, None where all need T.
    """
    values, scored = _scores_of_rows(name, table, task)
    key = "sample" if "sample" in table.column_names else "video_id"
    keys = table[key].to_pylist()
    at = np.asarray(table["segment"].to_pylist(), np.int64)
    filled: dict[Any, NDArray[np.float64]] = {}
    for place, (owner, segment) in enumerate(zip(keys, at.tolist(), strict=True)):
        if not 0 <= segment < segments:
            raise DatasetError(
                f"{name}: names segment {segment} of {owner}", hint=f"segments go from 0 to {segments - 1}"
            )
        rows = filled.setdefault(owner, np.full((segments, task.outputs), np.nan))
        if not np.isnan(rows[segment]).all():
            raise DatasetError(
                f"{name}: segment {segment} of {owner} is there twice", hint="leave one of them"
            )
        rows[segment] = values[place]
    clips = [filled.get(sample.number if key == "sample" else sample.video_id) for sample in samples]
    if lengths is not None:
        for filled_rows, length in zip(clips, lengths, strict=True):
            if filled_rows is not None:
                filled_rows[length:] = filled_rows[0]  # never read, but must look like scores
    lacking = [
        each for each, rows in zip(samples, clips, strict=True) if rows is None or np.isnan(rows).any()
    ]
    if lacking:
        wanted = f"all {segments} segments" if lengths is None else "every segment"
        raise DatasetError(
            f"{name}: {len(lacking)} of {len(samples)} samples lack predictions, the first is sample "
            f"{lacking[0].number} ({lacking[0].video_id})",
            hint=f"predict {wanted} of each, also where nothing is found",
        )
    stacked = np.stack([rows for rows in clips if rows is not None])
    probabilities = _as_probabilities(name, stacked, task) if scored else stacked.astype(np.float32)
    return Submission(name, probabilities, has_scores=scored)


def _class_numbers(name: str, values: Iterable[Any], classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Reads classes by name or number."""
    numbers = {each: number for number, each in enumerate(classes)}
    classes_found = []
    for value in values:
        number = numbers.get(value, value)
        if not isinstance(number, int):
            raise DatasetError(f"{name}: no class named {value!r}", hint=f"they are {', '.join(classes)}")
        classes_found.append(number)
    return np.array(classes_found, np.int64)


def _events(path: Path, dataset: Dataset, samples: Sequence[Sample], task: Task, grid: Grid) -> Submission:
    """Reads a row for each event: its video, class, onset and offset in seconds; all else is background."""
    events_of: dict[str, list[Event]] = {sample.video_id: [] for sample in samples}
    id_of = {Path(video.path).stem: video.video_id for video in dataset.videos if video.path}
    elsewhere = []
    for line in read_events(path):
        names = (line.name, Path(line.name).stem, id_of.get(Path(line.name).stem, ""))
        video_id = next((name for name in names if name in events_of), None)
        if video_id is None:
            elsewhere.append(line)
        if line.event is None or video_id is None:
            continue
        if line.event.category not in dataset.class_ids:
            raise DatasetError(
                f"{line.where}: no class named {line.event.category!r}",
                hint=f"they are {', '.join(dataset.categories)}",
            )
        events_of[video_id].append(line.event)
    if elsewhere:
        note(
            f"{path}: left out: {plural(len(elsewhere), 'row')} of videos without a sample in the split; "
            f"the first is {elsewhere[0].where} ({elsewhere[0].name})"
        )
    predicted = [
        replace(sample, events=tuple(events_of[sample.video_id]), where=str(path)) for sample in samples
    ]
    return Submission(str(path), task.as_scores(task.labels_of(dataset, grid, predicted)), has_scores=False)


def _check_classes(name: str, labels: NDArray[np.int64], classes: int) -> None:
    """Checks that labels (...) are class numbers; the last class is background.

    Raises:
        DatasetError: a label that is not.
    """
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise DatasetError(
            f"{name}: names class {wrong.ravel()[0]}",
            hint=f"classes go from 0 to {classes - 1}, which is {BACKGROUND}",
        )


def _as_probabilities(name: str, scores: NDArray[Any], task: Task) -> NDArray[np.float32]:
    """Returns probabilities as they are, and makes them of logits, with a note: (..., K) -> (..., K).

    Raises:
        DatasetError: a score that is not finite.
    """
    values = np.asarray(scores, np.float64)
    if not np.isfinite(values).all():
        raise DatasetError(f"{name}: some scores are not finite", hint="save probabilities or logits")
    if task.are_probabilities(values):
        return values.astype(np.float32)
    note(f"{name}: the scores are not probabilities and are taken for logits")
    import torch

    return np.asarray(task.probabilities(torch.from_numpy(values)).numpy())
