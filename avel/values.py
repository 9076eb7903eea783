"""Converts the values of settings from text and back: one value, a range of a search, "key=value"."""

import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from avel.errors import ConfigError
from avel.text import is_union

YES, NO = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def coerce(kind: Any, value: Any) -> Any:
    """Returns a value as type `kind`: a number, text, bool, Path, Literal or tuple, or one of them or None.

    >>> coerce(int | None, "none"), coerce(tuple[float, ...], "1,2.5"), coerce(bool, "yes")
    (None, (1.0, 2.5), True)

    Raises:
        TypeError, ValueError, OverflowError: it is not of that type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if is_union(kind):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "")):
            if type(None) in arguments:
                return None
            raise ValueError(value)
        return coerce(next(part for part in arguments if part is not type(None)), value)
    if origin is typing.Literal:
        by_name = {str(choice): choice for choice in arguments}
        if str(value) not in by_name:
            raise ValueError(value)
        return by_name[str(value)]
    if origin is tuple:
        items = [item for item in (value.split(",") if isinstance(value, str) else value) if item != ""]
        if len(arguments) == 2 and arguments[1] is not Ellipsis and len(items) != 2:
            raise ValueError(value)
        return tuple(coerce(arguments[0], item) for item in items)
    if kind is bool:
        word = str(value).lower()
        if word not in YES + NO:
            raise ValueError(value)
        return word in YES
    if kind is int:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError(value)
        return int(value)
    if value is None or (kind is float and isinstance(value, bool)):
        raise ValueError(value)
    read: Callable[[Any], Any] = kind
    return read(value)


def default_text(default: Any) -> str:
    """Returns a default as one would type it."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return ",".join(map(str, default)) or "none"
    return "none" if default in (None, "") else str(default)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; with `log` drawn evenly on a logarithmic scale.

    >>> str(Range(1e-4, 1e-2, log=True)), str(Range(1, 8))
    ('log:0.0001..0.01', '1..8')
    """

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{'log:' * self.log}{self.low}..{self.high}"


def parse_range(text: str) -> Range | None:
    """Reads "LOW..HIGH" or "log:LOW..HIGH"; None for other text.

    >>> parse_range("log:1e-4..1e-2"), parse_range("1..8"), parse_range("both")
    (Range(low=0.0001, high=0.01, log=True), Range(low=1, high=8, log=False), None)

    Raises:
        ConfigError: the ends are the wrong way round or not finite, or a logarithm needs them above 0.
    """
    log = text.startswith("log:")
    low, _, high = text.removeprefix("log:").partition("..")
    try:
        ends = [float(end) if not end.strip().lstrip("+-").isdigit() else int(end) for end in (low, high)]
    except ValueError:  # without "..", too: `high` is then empty
        return None
    if not -math.inf < ends[0] < ends[1] < math.inf or (log and ends[0] <= 0):
        raise ConfigError(f"{text!r} is no range", hint="two numbers, the lower first, and above 0 for log:")
    return Range(ends[0], ends[1], log)


def split_set(item: str, flag: str = "--set", example: str = "theta=0.03") -> tuple[str, str]:
    """Splits "key=value", the value of the option `flag`.

    Raises:
        ConfigError: no key, or no equals sign.
    """
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"{flag} {item!r} is not key=value", hint=f"for example {flag} {example}")
    return key.strip(), value.strip()
