"""Converts results to text: to plain values for JSON and back, to aligned lines and tables for people."""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that control a terminal or the direction of text, and lone surrogates."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of CSV cells that a spreadsheet would compute."""
SHOWN = 60
"""Most characters of a wrong value in an error."""


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
        return float(plain)
    if kind in (int, str, bool) and type(plain) is kind:
        return plain
    shown = repr(plain) if len(repr(plain)) <= SHOWN else f"{repr(plain)[:SHOWN]}..."
    raise ValueError(f"{field or 'the value'} is {shown}, not {describe(kind)}")


@cache  # a file of metrics has as many dataclasses as lines
def _hints(kind: Any) -> dict[str, Any]:
    """Returns the types of a dataclass's fields by name."""
    return typing.get_type_hints(kind)


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
    r"""Returns text for a terminal: control characters, but for those in `keep`, become what Python writes.

    >>> printable("a\x1b[31m\nb")
    'a\\x1b[31m\\nb'
    """
    return CONTROL.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(), text
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


def lines(plain: Any, indent: str = "") -> list[str]:
    """Formats a plain value as aligned lines, with nested values indented."""
    if not isinstance(plain, dict):
        return [f"{indent}{plain}"]
    width = max((len(key) for key in plain), default=0)
    shown: list[str] = []
    for key, value in plain.items():
        if isinstance(value, dict) and value:
            shown += [f"{indent}{key}", *lines(value, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
            shown += [f"{indent}{key}", *(f"{indent}  {_inline(item)}" for item in value)]
        else:
            shown.append(f"{indent}{key:<{width}}  {_inline(value)}")
    return shown


def _inline(value: Any) -> str:
    """Formats a plain value within one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inline(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_inline(item) for item in value) or "none"
    return printable(str(value))


def table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    """Formats rows under a header in aligned columns, with numbers to the right."""
    cells = [tuple(_inline(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in [header, *cells]) for column in range(len(header))]
    numeric = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]

    def line(row: tuple[str, ...]) -> str:
        aligned = zip(row, widths, numeric, strict=True)
        return "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in aligned).rstrip()

    return [line(header), "  ".join("-" * width for width in widths), *map(line, cells)]
