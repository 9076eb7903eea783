"""Reads annotation files as UTF-8 text, CSV rows or JSON; errors name the byte or the line."""

import csv
import io
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avel.errors import DatasetError, MissingPathError
from avel.stores.datasets.sample import Event, Modality


def read_text(path: Path) -> str:
    """Returns the text of a UTF-8 file, line ends as they are, without its byte order mark.

    Raises:
        MissingPathError: no such file.
        DatasetError: the file cannot be read, is not UTF-8, or holds a NUL; with byte and line.
    """
    if not path.is_file():
        raise MissingPathError(f"{path}: no such annotation file", hint="check the path")
    try:
        data = path.read_bytes()
        text = data.decode()
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read: {error.strerror}", hint="check its access rights"
        ) from None
    except UnicodeDecodeError as error:
        is_utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        raise DatasetError(
            f"{_place(path, data, error.start)}: not UTF-8: 0x{data[error.start]:02x}",
            hint=_utf8_hint(path, "UTF-16" if is_utf16 else "LATIN1"),
        ) from None
    if "\0" in text:
        is_utf16 = data.count(0) > len(data) // 4  # ASCII text in UTF-16: every second byte is 0
        raise DatasetError(
            f"{_place(path, data, data.index(0))}: a NUL, which is not text",
            hint=_utf8_hint(path, "UTF-16BE" if data[0] == 0 else "UTF-16LE") if is_utf16 else "take it out",
        )
    return text.removeprefix("\ufeff")


@dataclass(frozen=True)
class TextRow:
    """One row of a table: the text of its fields by column, and where it stands, for messages."""

    fields: dict[str, str]
    where: str


def read_records(path: Path, separator: str = ",") -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Returns the names in the header of a CSV, and of each row its line and its fields as they are written.

    Every field stays text: `001` is not read as a number.

    Raises:
        MissingPathError: no such file.
        DatasetError: it is empty or no CSV, or a row has more or fewer fields than the header; with the line.
    """
    records: list[tuple[int, list[str]]] = []
    reader, line = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=separator, strict=True), 1
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
            raise DatasetError(
                f"{path}: line {line}: {len(values)} fields, the header has {len(names)}",
                hint=f"keep the {separator!r} of empty fields; put texts with {separator!r} in double quotes",
            )
    return names, records


def read_rows(path: Path, columns: Sequence[str], separator: str = ",") -> list[TextRow]:
    """Returns the rows of a CSV that has these columns, and maybe others, without blanks around fields.

    Raises:
        MissingPathError, DatasetError: as `read_records`; a column that is absent or there twice.
    """
    names, records = read_records(path, separator)
    names = [name.strip() for name in names]
    for column in columns:
        if names.count(column) != 1:
            what = "no column" if column not in names else f"{names.count(column)} columns"
            raise DatasetError(
                f"{path}: {what} {column}; it has {', '.join(names)}",
                hint=f"it needs one column each of {', '.join(columns)}",
            )
    return [
        TextRow(dict(zip(names, (value.strip() for value in values), strict=True)), f"{path}: line {line}")
        for line, values in records
    ]


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
        MissingPathError: no such file.
        DatasetError: it is not JSON, or an object names a key twice.
    """
    try:
        return json.loads(read_text(path), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: no JSON: {error}", hint="fetch it again") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; refuses a key that is there twice, of which Python would keep the last value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if sum(other == key for other, _ in pairs) > 1)
        raise ValueError(f"key {twice!r} is there twice")
    return found


def parse_seconds(text: str) -> float:
    """Parses a time; unlike `float` it refuses `1_000` and non-ASCII digits.

    Raises:
        ValueError: no number.
    """
    try:
        if "_" in text or not text.isascii():
            raise ValueError
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number of seconds") from None


def parse_event(
    category: str, onset: str, offset: str, where: str, video: str, modality: Modality = "both"
) -> Event:
    """Returns the event whose times are given as text, in seconds.

    Args:
        where: file and line.
        video: name of the video, for the error.

    Raises:
        DatasetError: a time is no number.
    """
    try:
        return Event(category, parse_seconds(onset), parse_seconds(offset), where, modality)
    except ValueError as error:
        raise DatasetError(f"{where} ({video}): {error}", hint="give seconds from the clip's start") from None


def _place(path: Path, data: bytes, offset: int) -> str:
    line = len(re.findall(rb"\r\n?|\n", data[:offset])) + 1
    return f"{path}: line {line}, byte {offset + 1} of the file"


def _utf8_hint(path: Path, encoding: str) -> str:
    wanted = path.with_name(f"{path.stem}-utf8{path.suffix}")
    command = f"iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > {shlex.quote(str(wanted))}"
    return f"save it as UTF-8; if it is {encoding}: {command}"
