"""Reads a table of events, CSV or Parquet; ids and classes are text exactly as written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from avel.errors import DatasetError, MissingPathError
from avel.stores.arrow import read_parquet
from avel.stores.datasets.annotation_text import parse_event, read_records
from avel.stores.datasets.dataset import MODALITIES, Dataset, Event, Sample, Video, make_dataset
from avel.stores.kinds import VIDEO_SUFFIXES
from avel.text import from_csv_cell

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = {
    "video_id": ("video_id", "videoid", "video", "file", "filename", "path", "id"),
    "category": ("category", "label", "class", "event"),
    "onset_seconds": ("onset_seconds", "onset", "start_seconds", "start", "starttime", "start_time"),
    "offset_seconds": ("offset_seconds", "offset", "end_seconds", "end", "endtime", "end_time"),
    "split": ("split", "set", "subset"),
    "quality": ("quality",),
    "modality": ("modality", "track"),
}
"""Field of a row -> accepted column names, in any case; the last three may be absent."""

OPTIONAL = ("split", "quality", "modality")
TIMES = ("onset_seconds", "offset_seconds")
UNKNOWN_EVENTS = "?"
"""Class of a row without times that marks the video's events as not known."""

Columns = tuple[list[str], dict[str, list[str]]]
"""Line or row number of each row, and the text of its fields, by field."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of the table.

    Attributes:
        name: name of the video, as written.
        event: None where the row says that the video has none, or that they are not known.
        known: False where the video's events are not known.
        where: file and line or row.
        tag: that of the sample.
    """

    name: str
    event: Event | None
    known: bool
    quality: str
    split: str
    where: str
    tag: str = ""


def read_events(path: Path) -> tuple[TableRow, ...]:
    """Returns the rows of a table.

    A row without class and times says that the video has no event, one of class "?" without times that its
    events are not known.

    Raises:
        MissingPathError: no such file.
        DatasetError: no such table, a column that is absent or there twice, a time that is no number, no such
            modality.
    """
    places, columns = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    return tuple(
        _row(f"{path}: {place}", dict(zip(columns, values, strict=True)))
        for place, *values in zip(places, *columns.values(), strict=True)
    )


def read_table_dataset(path: Path) -> Dataset:
    """Returns the dataset that a table of events describes by itself, without files of videos.

    A video's id is its name in the table, without the ending of a video.

    Raises:
        DatasetError, MissingPathError: as `read_events`.
    """
    rows = [replace(row, name=_without_video_ending(row.name)) for row in read_events(path)]
    names = dict.fromkeys(row.name for row in rows)
    videos = tuple(Video(name, "") for name in names)
    return make_dataset(path.stem, path.parent, samples_of_rows(rows), videos)


def _without_video_ending(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in VIDEO_SUFFIXES else name


def samples_of_rows(rows: Iterable[TableRow], id_of: Mapping[str, str] | None = None) -> tuple[Sample, ...]:
    """Returns a sample for each video and split, in order of their first rows; the rows are its events.

    Args:
        id_of: name of a video in a row -> its id; by default they are the same.

    Raises:
        DatasetError: rows of one sample that contradict each other.
    """
    rows_of: dict[tuple[str, str], list[TableRow]] = {}
    for row in rows:
        rows_of.setdefault((row.name if id_of is None else id_of[row.name], row.split), []).append(row)
    samples = []
    for number, ((video_id, split), own) in enumerate(rows_of.items()):
        first = own[0]
        for row in own[1:]:
            if (row.event is None, row.known) != (first.event is None, first.known):
                raise DatasetError(
                    f"{row.where} ({row.name}): {_says(row)}, and {first.where} says of the same video and "
                    f"split: {_says(first)}",
                    hint="take one of the rows out",
                )
        events = tuple(row.event for row in own if row.event is not None) if first.known else None
        samples.append(Sample(number, video_id, events, first.quality, split, first.where, tag=first.tag))
    return tuple(samples)


def _says(row: TableRow) -> str:
    return "an event" if row.event else "no event" if row.known else "its events are not known"


def _row(where: str, text: dict[str, str]) -> TableRow:
    name, category, onset, offset = (text[field] for field in ("video_id", "category", *TIMES))
    says_event = onset or offset or category not in ("", UNKNOWN_EVENTS)
    modality = next((each for each in MODALITIES if each == (text.get("modality") or "both")), None)
    if modality is None:
        raise DatasetError(
            f"{where} ({name}): modality {text['modality']!r} is none of {', '.join(MODALITIES)}",
            hint="leave it empty where an event is both seen and heard",
        )
    event = parse_event(category, onset, offset, where, name, modality) if says_event else None
    known = event is not None or category != UNKNOWN_EVENTS
    return TableRow(name, event, known, text.get("quality", ""), text.get("split", ""), where)


def _csv(path: Path) -> Columns:
    names, records = read_records(path)
    chosen = _choose(path, names)
    columns = {
        field: [from_csv_cell(values[column]) for _, values in records] for field, column in chosen.items()
    }
    return [f"line {line}" for line, _ in records], columns


def _parquet(path: Path) -> Columns:
    import pyarrow as pa

    if not path.is_file():
        raise MissingPathError(f"{path}: no such annotation file")
    try:
        table = read_parquet(path)
        chosen = _choose(path, table.column_names)
        columns = {field: _as_text(path, field, table.column(place)) for field, place in chosen.items()}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: {error}", hint="give a CSV with a header line, or a Parquet file"
        ) from None
    return [f"row {number}" for number in range(table.num_rows)], columns


def _as_text(path: Path, field: str, column: pa.ChunkedArray) -> list[str]:
    """Returns the values of a column as text, "" for null; refuses types without one obvious text."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    known = (
        pa.types.is_string(kind),
        pa.types.is_large_string(kind),
        pa.types.is_integer(kind),
        pa.types.is_null(kind),
        field in TIMES and (pa.types.is_floating(kind) or pa.types.is_decimal(kind)),
    )
    if not any(known):
        wanted = "seconds, as numbers" if field in TIMES else "text"
        raise DatasetError(f"{path}: the column of {field} is {kind}", hint=f"save it as {wanted}")
    return [value or "" for value in column.cast(pa.string()).to_pylist()]


def _choose(path: Path, names: list[str]) -> dict[str, int]:
    """Returns field -> number of its column."""
    tidy, chosen = [name.strip().lower() for name in names], {}
    for field, known in COLUMNS.items():
        column = next((name for name in known if name in tidy), None)
        if column is None and field not in OPTIONAL:
            raise DatasetError(
                f"{path}: no column for {field}; it has {', '.join(names)}",
                hint=f"name one of its columns {' or '.join(known)}",
            )
        if column is None:
            continue
        if tidy.count(column) > 1:
            raise DatasetError(
                f"{path}: {tidy.count(column)} columns are named {column}",
                hint=f"leave one, which gives {field}",
            )
        chosen[field] = tidy.index(column)
    return chosen
