"""Results as text: plain values for JSON, aligned lines and tables for people."""

import dataclasses
from collections.abc import Mapping
from typing import Any

Spread = Mapping[str, float | None]
"""Mean and deviation over seeds: `mean` and `std`, in percent; None where there is none."""


def plus_minus(spread: Spread | None) -> str:
    """A spread in a table.

    >>> plus_minus({"mean": 82.44, "std": 3.6}), plus_minus({"mean": 82.44, "std": None}), plus_minus(None)
    ('82.4 +- 3.6', '82.4', '')
    """
    if spread is None or spread["mean"] is None:
        return ""
    return f"{spread['mean']:.1f}" + (f" +- {spread['std']:.1f}" if spread["std"] is not None else "")


def as_plain(result: Any) -> Any:
    """A result (frozen dataclass, mapping or sequence) as what JSON can hold."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        names = [field.name for field in dataclasses.fields(result)]
        return {name: as_plain(getattr(result, name)) for name in names}
    if isinstance(result, Mapping):
        return {str(key): as_plain(value) for key, value in result.items()}
    if isinstance(result, (list, tuple, set, frozenset)):
        return [as_plain(item) for item in result]
    return result if isinstance(result, (str, int, float, bool, type(None))) else str(result)


def lines(plain: Any, indent: str = "") -> list[str]:
    """A JSON-able value as aligned lines, nested values indented."""
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
    return str(value)


def table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    """Rows under a header in aligned columns; numbers to the right."""
    cells = [tuple(_inline(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in [header, *cells]) for column in range(len(header))]
    numeric = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]

    def line(row: tuple[str, ...]) -> str:
        aligned = zip(row, widths, numeric, strict=True)
        return "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in aligned).rstrip()

    return [line(header), "  ".join("-" * width for width in widths), *map(line, cells)]
