"""A table of events, CSV or Parquet, as annotation rows; ids and classes are text as it was written."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from avel.errors import DatasetError, MissingPathError
from avel.stores.arrow import read_parquet
from avel.stores.datasets.annotation_text import read_text, seconds
from avel.stores.datasets.dataset import Row

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = {
    "video_id": ("video_id", "videoid", "video", "file", "filename", "path", "id"),
    "category": ("category", "label", "class", "event"),
    "start_seconds": ("start_seconds", "start", "starttime", "start_time", "onset"),
    "end_seconds": ("end_seconds", "end", "endtime", "end_time", "offset"),
    "split": ("split", "set", "subset"),
    "quality": ("quality",),
}
"""Field of a row -> column names that are understood, in any case; split and quality may be absent."""

OPTIONAL = ("split", "quality")
TIMES = ("start_seconds", "end_seconds")

Columns = tuple[list[str], dict[str, list[str]]]
"""Where each row stands in its file, and the text of its fields, by field."""


def read_events(path: Path) -> tuple[Row, ...]:
    """Returns the rows of a table, numbered from 0; `video_id` is the video's name as the table has it.

    Raises:
        MissingPathError: no such file.
        DatasetError: no such table, a column that is absent or there twice, a time that is no number.
    """
    places, columns = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    return tuple(
        _row(number, f"{path}: {place}", dict(zip(columns, values, strict=True)))
        for number, (place, *values) in enumerate(zip(places, *columns.values(), strict=True))
    )


def _row(number: int, where: str, text: dict[str, str]) -> Row:
    try:
        start, end = (seconds(text[field]) for field in TIMES)
    except ValueError as error:
        raise DatasetError(f"{where} ({text['video_id']}): {error}") from None
    return Row(
        number,
        text["category"],
        text["video_id"],
        start,
        end,
        quality=text.get("quality", ""),
        split=text.get("split", ""),
        where=where,
    )


def _csv(path: Path) -> Columns:
    """Reads no type into a column: `001` stays `001`."""
    records: list[tuple[int, list[str]]] = []
    reader, line = csv.reader(io.StringIO(read_text(path), newline=""), strict=True), 1
    try:
        for values in reader:
            if values:
                records.append((line, values))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DatasetError(f"{path}: line {line}: {error}", hint="give a CSV with a header line") from None
    if not records:
        raise DatasetError(f"{path}: is empty", hint="give a CSV with a header line, or a Parquet file")
    (_, names), *records = records
    for line, values in records:
        if len(values) != len(names):
            raise DatasetError(f"{path}: line {line}: {len(values)} fields, the header has {len(names)}")
    chosen = _choose(path, names)
    columns = {field: [values[column] for _, values in records] for field, column in chosen.items()}
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
    """The values of a column, "" for null; refuses types whose text would be a guess."""
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
    """Field -> number of its column."""
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
