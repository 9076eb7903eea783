"""Reads a table of events, CSV or Parquet; ids and classes are text exactly as written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avel.errors import DatasetError, MissingPathError
from avel.stores.arrow import read_parquet
from avel.stores.columns import Columns, as_bools, is_one_of
from avel.stores.datasets.annotation_text import parse_event, parse_seconds, read_records
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.sample import MODALITIES, Event, Samples, Video
from avel.stores.files import path_text
from avel.stores.kinds import VIDEO_SUFFIXES
from avel.text import from_csv_cell

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

ACCEPTED_COLUMNS = {
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
OF_ROW = ("name", "known", "quality", "split", "where", "tag")
OF_EVENT = ("category", *TIMES, "modality")
"""Fields of a row, and of its event, that are columns of `TableRows`."""
TABLE_ENDINGS = (".csv", ".parquet")
UNKNOWN_EVENTS = "?"
"""Class in a row without times: the video's events are not known."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of the table.

    Attributes:
        name: name of the video, as written.
        event: None where the row says that the video has none, or that they are not known.
        where: file and line or row.
        known: False where the video's events are not known.
        tag: tag of the sample.
    """

    name: str
    event: Event | None
    split: str
    where: str
    known: bool = True
    quality: str = ""
    tag: str = ""


class TableRows(Columns[TableRow]):
    """Rows of a table of events as columns: those of `TableRow`, and of its event if `has_event`."""

    @classmethod
    def of(cls, rows: Iterable[TableRow]) -> TableRows:
        """Returns rows as columns."""
        if isinstance(rows, TableRows):
            return rows
        import pyarrow as pa

        nothing = Event("", 0, 0)
        found = [
            {
                **{name: getattr(row, name) for name in OF_ROW},
                "has_event": row.event is not None,
                **{name: getattr(row.event or nothing, name) for name in OF_EVENT},
            }
            for row in rows
        ]
        return cls(pa.Table.from_pylist(found, _schema()))

    def records(self, begin: int, end: int) -> list[TableRow]:
        found = []
        for row in self.table.slice(begin, end - begin).to_pylist():
            own = {name: row.pop(name) for name in OF_EVENT}
            event = Event(**own, where=row["where"]) if row.pop("has_event") else None
            found.append(TableRow(event=event, **row))
        return found


def _schema() -> pa.Schema:
    """Returns the columns of `TableRows`."""
    import pyarrow as pa

    kinds = {"has_event": pa.bool_(), "known": pa.bool_()} | dict.fromkeys(TIMES, pa.float64())
    names = (*OF_ROW, "has_event", *OF_EVENT)
    return pa.schema([(name, kinds.get(name, pa.string())) for name in names])


def read_events(path: Path) -> TableRows:
    """Returns the rows of a table.

    A row without class and times says that the video has no event, one of class "?" without times that its
    events are not known.

    Raises:
        MissingPathError: no such file.
        DatasetError: neither CSV nor Parquet, a column that is absent or there twice, a time that is no
            number, an unknown modality.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    where, text = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    nothing = pa.repeat(pa.scalar("", pa.string()), len(where))
    names, category, modality = text["video_id"], text["category"], text.get("modality", nothing)
    modality = pc.if_else(pc.equal(modality, ""), "both", modality)
    has_event = ~is_one_of(category, ("", UNKNOWN_EVENTS))
    for name in TIMES:
        has_event |= as_bools(pc.not_equal(text[name], ""))
    right, times = is_one_of(modality, MODALITIES), []
    for name in TIMES:
        numbers, is_number = _seconds(text[name])
        times.append(pa.array(numbers))
        right &= is_number | ~has_event
    if not right.all():
        row = int(right.argmin())
        columns = where, names, category, *(text[name] for name in TIMES), modality
        _refuse(*(column[row].as_py() for column in columns))
    known = pa.array(has_event | as_bools(pc.not_equal(category, UNKNOWN_EVENTS)))
    quality, split = text.get("quality", nothing), text.get("split", nothing)
    of_row = names, known, quality, split, where, nothing, pa.array(has_event)
    return TableRows(pa.table([*of_row, category, *times, modality], _schema()))


def _refuse(where: str, name: str, category: str, onset: str, offset: str, modality: str) -> None:
    """Raises DatasetError that says what is wrong with a row."""
    if modality not in MODALITIES:
        raise DatasetError(
            f"{where} ({name}): modality {modality!r} is none of {', '.join(MODALITIES)}",
            hint="leave it empty where an event is both visible and audible",
        )
    parse_event(category, onset, offset, where, name)


def _seconds(text: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Parses a column of times; returns them, and for each whether it is a number: twice (n,)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    # Arrow casts plain numbers fast; parse_seconds decides about the rest, such as "1e3" and "nan"
    plain = pc.match_substring_regex(text, r"^[0-9]{1,15}(\.[0-9]{1,15})?$")
    found = np.array(pc.if_else(plain, text, "nan").cast(pa.float64()))
    is_number = np.array(plain, bool)
    for row in np.flatnonzero(~is_number & as_bools(pc.not_equal(text, ""))).tolist():
        with suppress(ValueError):
            found[row] = parse_seconds(text[row].as_py())
            is_number[row] = True
    return found, is_number


def read_table_dataset(path: Path) -> Dataset:
    """Returns the dataset that a table of events describes by itself, without files of videos.

    A video's id is its name in the table, without the ending of a video.

    Raises:
        DatasetError, MissingPathError: as `read_events`.
    """
    import pyarrow as pa

    rows = read_events(path)
    ids = pa.array(map(_without_video_ending, rows.texts("name")), pa.string())
    videos = tuple(Video(name, "") for name in ids.unique().to_pylist())
    return make_dataset(path.stem, path.parent, samples_of_rows(rows, ids), videos)


def _without_video_ending(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in VIDEO_SUFFIXES else name


def samples_of_rows(rows: Iterable[TableRow], video_ids: pa.Array | None = None) -> Samples:
    """Returns a sample for each video and split, in order of their first rows; the rows are its events.

    Args:
        video_ids: id of each row's video, an array of texts or a dictionary array; by default the row's name.

    Raises:
        DatasetError: rows of one sample that contradict each other.
    """
    import numpy as np
    import pyarrow as pa

    rows = TableRows.of(rows)
    ids = (rows.table["name"].combine_chunks() if video_ids is None else video_ids).dictionary_encode()
    splits = rows.table["split"].combine_chunks().dictionary_encode()
    keys = np.asarray(ids.indices, np.int64) * len(splits.dictionary)
    _, first, sample = np.unique(keys + np.asarray(splits.indices), return_index=True, return_inverse=True)
    order = np.argsort(first)  # np.unique sorts by key; sort by first row instead
    first, sample = first[order], np.argsort(order)[sample]
    has_event, known = rows.column("has_event"), rows.column("known")
    clashes = np.flatnonzero((has_event != has_event[first][sample]) | (known != known[first][sample]))
    if len(clashes):
        row = int(clashes[np.argmin(sample[clashes])])  # the first row that clashes, of the first such sample
        one, other = rows[row], rows[int(first[sample[row]])]
        raise DatasetError(
            f"{one.where} ({one.name}): {_says(one)}, and {other.where} says of the same video and "
            f"split: {_says(other)}",
            hint="take one of the rows out",
        )
    samples = rows.table.take(pa.array(first)) if len(first) < len(rows) else rows.table
    columns = {
        "sample": pa.array(np.arange(len(first)), pa.int32()),
        "video_id": ids.dictionary.take(ids.indices.take(pa.array(first))),
        "events_known": samples["known"],
        "categories": pa.nulls(len(first), pa.list_(pa.string())),
    }
    events = rows.table if has_event.all() else rows.table.filter(pa.array(has_event))
    return Samples(
        pa.table(columns | {name: samples[name] for name in ("quality", "split", "tag", "where")}),
        pa.table(
            {"sample": pa.array(sample[has_event], pa.int32())}
            | {name: events[name] for name in (*OF_EVENT, "where")}
        ),
    )


def _says(row: TableRow) -> str:
    return "an event" if row.event else "no event" if row.known else "its events are not known"


def _csv(path: Path) -> tuple[pa.Array, dict[str, pa.Array]]:
    """Returns where each row stands, and field -> the texts of its column, if it has one."""
    import pyarrow as pa

    names, records = read_records(path)
    columns = {
        field: pa.array([from_csv_cell(values[column]) for _, values in records], pa.string())
        for field, column in _choose(path, names).items()
    }
    return _where(f"{path}: line", pa.array([line for line, _ in records], pa.int64())), columns


def _parquet(path: Path) -> tuple[pa.Array, dict[str, pa.Array]]:
    """Returns what `_csv` does, of a Parquet file; null becomes ""."""
    import numpy as np
    import pyarrow as pa

    if not path.is_file():
        raise MissingPathError(f"{path}: no such annotation file", hint="check the path")
    try:
        table = read_parquet(path)
        chosen = _choose(path, table.column_names)
        columns = {field: _as_text(path, field, table.column(place)) for field, place in chosen.items()}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: {error}", hint="give a CSV with a header line, or a Parquet file"
        ) from None
    return _where(f"{path}: row", pa.array(np.arange(table.num_rows))), columns


def _where(before: str, numbers: pa.Array) -> pa.Array:
    """Returns "events.csv: line 2" and so on."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(path_text(before), numbers.cast(pa.string()), " ")


def _as_text(path: Path, field: str, column: pa.ChunkedArray) -> pa.Array:
    """Returns the values of a column as text, "" for null; refuses types without one obvious text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    has_text = (
        pa.types.is_string(kind),
        pa.types.is_large_string(kind),
        pa.types.is_integer(kind),
        pa.types.is_null(kind),
        field in TIMES and (pa.types.is_floating(kind) or pa.types.is_decimal(kind)),
    )
    if not any(has_text):
        wanted = "seconds, as numbers" if field in TIMES else "text"
        raise DatasetError(f"{path}: the column of {field} is {kind}", hint=f"save it as {wanted}")
    return pc.fill_null(column.cast(pa.string()), "").combine_chunks()


def _choose(path: Path, names: list[str]) -> dict[str, int]:
    """Returns field -> number of its column."""
    tidy, chosen = [name.strip().lower() for name in names], {}
    for field, accepted in ACCEPTED_COLUMNS.items():
        column = next((name for name in accepted if name in tidy), None)
        if column is None and field not in OPTIONAL:
            raise DatasetError(
                f"{path}: no column for {field}; it has {', '.join(names)}",
                hint=f"name one of its columns {' or '.join(accepted)}",
            )
        if column is None:
            continue
        if tidy.count(column) > 1:
            raise DatasetError(
                f"{path}: {tidy.count(column)} columns are named {column}",
                hint=f"keep the one that holds {field}",
            )
        chosen[field] = tidy.index(column)
    return chosen
