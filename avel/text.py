"""Converts results to text: to plain values for JSON and back, to aligned lines and tables for people."""

import copy
import dataclasses
import os
import re
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that control a terminal or the direction of text, and lone surrogates."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of CSV cells that a spreadsheet would compute."""
SHOWN_CHARACTERS = 60
"""Most characters of a wrong value in an error."""


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, since some libraries add pages to it."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def as_plain(result: Any) -> Any:
    """Converts a result (a dataclass, mapping or sequence) to values that JSON can hold."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        names = [field.name for field in dataclasses.fields(result)]
        return {name: as_plain(getattr(result, name)) for name in names}
    if isinstance(result, Mapping):
        return {str(key): as_plain(value) for key, value in result.items()}
    if isinstance(result, (list, tuple, set, frozenset)):
        return [as_plain(item) for item in result]
    return result if isinstance(result, (str, int, float, bool, type(None))) else str(result)


def from_plain(kind: Any, plain: Any, field: str = "") -> Any:
    """Makes a value of type `kind` of the plain values that `as_plain` returned for it.

    >>> from_plain(tuple[float, ...], [1, 2.5])
    (1.0, 2.5)

    Args:
        kind: a dataclass, dict[str, ...], tuple, Literal, float, int, str, bool, one of them or None, or Any.
        field: where the value stands, for the error.

    Raises:
        ValueError: a value is missing or of another type; the message begins with its field.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    begin = f"{field}." if field else ""
    if kind is Any:
        return plain
    if dataclasses.is_dataclass(kind) and isinstance(plain, dict):
        hints = _hints(kind)  # type: ignore[arg-type]
        for name in hints:
            if name not in plain:
                raise ValueError(f"{begin}{name} is missing")
        return kind(**{name: from_plain(hint, plain[name], begin + name) for name, hint in hints.items()})  # type: ignore[operator]
    if origin is dict and isinstance(plain, dict):
        if inner == (str, str) and all(type(value) is str for value in plain.values()):
            return plain
        return {name: from_plain(inner[1], value, begin + name) for name, value in plain.items()}
    if origin is tuple and isinstance(plain, list):
        if inner == (str, ...) and all(type(item) is str for item in plain):  # ids: there may be a million
            return tuple(plain)
        kinds = inner[:1] * len(plain) if inner[-1] is Ellipsis else inner
        if len(kinds) == len(plain):
            pairs = enumerate(zip(kinds, plain, strict=True))
            return tuple(from_plain(item, value, f"{begin}{place}") for place, (item, value) in pairs)
    if type(None) in inner:
        return None if plain is None else from_plain(inner[0], plain, field)
    if origin is typing.Literal and plain in inner:
        return plain
    if kind is float and type(plain) in (int, float):
        with suppress(OverflowError):  # JSON has whole numbers that no float holds
            return float(plain)
    if kind in (int, str, bool) and type(plain) is kind:
        return plain
    shown = repr(plain) if len(repr(plain)) <= SHOWN_CHARACTERS else f"{repr(plain)[:SHOWN_CHARACTERS]}..."
    raise ValueError(f"{field or 'the value'} is {shown}, not {describe(kind)}")


_hints = cache(typing.get_type_hints)
"""Returns the types of a dataclass's fields by name; cached, as a metrics file has a dataclass per line."""


def describe(kind: Any) -> str:
    """Returns a type in words, for error messages and help."""
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, inner))
    if is_union(kind):
        return " or ".join(describe(part) for part in inner if part is not type(None))
    if typing.get_origin(kind) is tuple:
        count = "" if inner[-1] is Ellipsis else f" of {len(inner)}"
        return f"a list{count}, separated by commas, each {describe(inner[0])}"
    words = {float: "a number", int: "a whole number", str: "text", bool: "true or false", Path: "a path"}
    return words.get(kind, "an object")


def is_union(kind: Any) -> bool:
    """Returns True for a union: `int | None` is a types.UnionType, `Literal[...] | None` a typing.Union."""
    return isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union


def printable(text: str, keep: str = "") -> str:
    r"""Returns text for a terminal: control characters, but for those in `keep`, become escapes such as \x1b.

    >>> printable("a\x1b[31m\nb")
    'a\\x1b[31m\\nb'
    """
    return CONTROL.sub(
        lambda match: match[0] if match[0] in keep else match[0].encode("unicode_escape").decode(), text
    )


def csv_cell(value: Any) -> Any:
    """Returns a cell of a CSV; a text that a spreadsheet would compute gets an apostrophe in front.

    >>> csv_cell("=1+1"), csv_cell("-0DuwSO3J74"), csv_cell("dog"), csv_cell(-1.5)
    ("'=1+1", "'-0DuwSO3J74", 'dog', -1.5)
    """
    return f"'{value}" if isinstance(value, str) and value.lstrip("'").startswith(FORMULA) else value


def from_csv_cell(text: str) -> str:
    """Returns the text that `csv_cell` made a cell of."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA) else text


def plural(number: int, noun: str) -> str:
    """Returns a number with its noun.

    >>> plural(1, "clip"), plural(24, "class"), plural(1200, "clip")
    ('1 clip', '24 classes', '1,200 clips')
    """
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def listed(names: Iterable[object]) -> str:
    """Returns names as a sentence lists them.

    >>> listed(["f_a"]), listed(["f_a", "f_v"]), listed(["f_a", "f_v", "maps"])
    ('f_a', 'f_a and f_v', 'f_a, f_v and maps')
    """
    *others, last = map(str, names)
    return f"{', '.join(others)} and {last}" if others else last


def html_table(title: str, rows: Mapping[str, object]) -> str:
    """Returns a small table for notebooks, one row per fact.

    >>> html_table("ave.h5", {"clips": 24})
    '<table><caption>ave.h5</caption><tr><th>clips</th><td>24</td></tr></table>'
    """
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(rows[name]))}</td></tr>" for name in rows)
    return f"<table><caption>{escape(title)}</caption>{cells}</table>"


def first_of(values: Collection[object]) -> str:
    """Returns the first five of many values, and how many more there are.

    >>> first_of(["a", "b", "c"]), first_of(range(100))
    ('a, b, c', '0, 1, 2, 3, 4 and 95 more')
    """
    shown = ", ".join(map(str, islice(values, 5)))
    return shown if len(values) <= 5 else f"{shown} and {len(values) - 5} more"


def classes_and_background(events: int) -> str:
    """Returns the number of event classes as avel counts them everywhere.

    >>> classes_and_background(28)
    '28 classes and background'
    """
    return f"{plural(events, 'class')} and background"


def duration(seconds: float) -> str:
    """Returns a time in the unit that suits it.

    >>> duration(0.25), duration(12), duration(200), duration(9000)
    ('0.2 s', '12 s', '3.3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Returns a number of bytes in the unit that suits it; a GB has 10**9 of them.

    >>> size(900), size(13_409_138), size(2_500_000_000)
    ('900 bytes', '13.4 MB', '2.5 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return plural(round(count), "byte")


def terminal_columns() -> int | None:
    """Returns the columns of the terminal that stdout is, or as COLUMNS says; None where there is neither."""
    if os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return None


def wrapped(text: str, indent: str = "") -> list[str]:
    """Breaks a line between words where it is wider than the terminal; lines after the first are indented."""
    columns = terminal_columns()
    if columns is None or len(text) <= columns:
        return [text]
    return textwrap.wrap(
        text, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _inline(value: Any) -> str:
    """Formats a plain value within one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(str(value))


def table(header: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """Formats rows under a header in aligned columns, with numbers to the right.

    If the table is wider than the terminal, cells are wrapped between words. Columns that do not fit even so
    follow below in a table of their own, which repeats the first column.
    """
    cells = [tuple(_inline(cell) for cell in row) for row in rows]
    columns = [_Column(*each) for each in zip(header, *cells, strict=True)]
    for column, values in zip(columns, zip(*rows, strict=True), strict=False):
        column.numeric = all(isinstance(value, int | float) for value in values)
    shown: list[str] = []
    for block in _blocks(columns, terminal_columns()):
        shown += ([""] if shown else []) + _aligned(block)
    return shown


class _Column:
    """One column of a table: its header and cells as text, and the width that it is given."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.numeric = texts, False
        self.width = max(map(len, texts))
        # Words stay whole, and so does a figure with its spread
        parts = [text.split() if re.search("[a-z]{3}", text) else [text] for text in texts]
        self.least = max((len(part) for each in parts for part in each), default=0)

    def wrapped(self, row: int) -> list[str]:
        """Returns the lines of a cell, one at least."""
        text = self.texts[row]
        return [text] if len(text) <= self.width else textwrap.wrap(text, self.width) or [""]


def _blocks(columns: list[_Column], room: int | None) -> list[list[_Column]]:
    """Divides columns into blocks of at most `room` characters' width, each with the first column."""
    if room is None:
        return [columns]
    blocks = [columns[:1]]
    for column in columns[1:]:
        least = sum(each.least + 2 for each in blocks[-1]) + column.least
        if len(blocks[-1]) > 1 and least > room:
            blocks.append(columns[:1])
        blocks[-1] = [*blocks[-1], copy.copy(column)]
    return [_narrowed([copy.copy(block[0]), *block[1:]], room) for block in blocks]


def _narrowed(block: list[_Column], room: int) -> list[_Column]:
    """Narrows the widest columns, down to their longest words, until the block fits."""
    while sum(each.width + 2 for each in block) - 2 > room:
        wide = [each for each in block if each.width > each.least]
        if not wide:
            break
        max(wide, key=lambda each: each.width).width -= 1
    return block


def _aligned(columns: list[_Column]) -> list[str]:
    """Returns the lines of columns side by side."""
    shown: list[str] = []
    for row in range(len(columns[0].texts)):
        parts = [column.wrapped(row) for column in columns]
        for line in range(max(map(len, parts))):
            texts = [part[line] if line < len(part) else "" for part in parts]
            pairs = zip(columns, texts, strict=True)
            aligned = [text.rjust(c.width) if c.numeric else text.ljust(c.width) for c, text in pairs]
            shown.append("  ".join(aligned).rstrip())
        if row == 0:
            shown.append("  ".join("-" * column.width for column in columns))
    return shown
