"""One config system: frozen dataclasses, `[stage]` tables of a TOML file, `--set key=value`, options.

A field is declared once, with its help; the command line, the TOML file and the Python function share it.
Later sources win: defaults, preset, file, `--set`, options.
"""

import dataclasses
import hashlib
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from avel.errors import ConfigError, MissingPathError, UnknownNameError

C = TypeVar("C")


def option(
    default: Any, help: str, *, numeric: bool = True, low: float | None = None, high: float | None = None
) -> Any:
    """A config field: its default, its help line, bounds, and whether it changes the numbers (cache keys)."""
    return dataclasses.field(
        default=default, metadata={"help": help, "numeric": numeric, "low": low, "high": high}
    )


def resolve(
    kind: type[C],
    stage: str,
    *,
    preset: Mapping[str, Any] | None = None,
    file: Path | str | None = None,
    sets: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> C:
    """The config of one stage from all its sources.

    Raises:
        ConfigError: an unknown key or a value of the wrong type or out of bounds, with its source.
    """
    values: dict[str, Any] = {}
    sources: list[tuple[str, Mapping[str, Any]]] = [("preset", preset or {})]
    if file is not None:
        sources.append((str(file), read_table(Path(file), stage)))
    sources.append(("--set", dict(_split(item) for item in sets)))
    sources.append(("option", options or {}))
    for source, given in sources:
        for key, value in given.items():
            name = key.replace("-", "_")
            values[name] = convert(kind, name, value, source)
    return kind(**values)


def read_table(path: Path, stage: str) -> dict[str, Any]:
    """The `[stage]` table of a TOML file, or its top level where the file has no tables."""
    if not path.is_file():
        raise MissingPathError(f"{path}: no such config file")
    try:
        document = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    if any(isinstance(value, dict) for value in document.values()):
        return dict(document.get(stage, {}))
    return document


def to_toml(config: Any, stage: str) -> str:
    """The config as a TOML document that `--config` reads back; fields that are None are left out."""
    table = {key: _plain(value) for key, value in as_dict(config).items() if value is not None}
    return tomli_w.dumps({stage: table})


def as_dict(config: Any) -> dict[str, Any]:
    """The fields of a config dataclass by name, without recursion."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def digest(config: Any, **more: Any) -> str:
    """16 hex digits over every field that changes the numbers, and over what else is named."""
    values = {
        field.name: _plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.metadata.get("numeric", True)
    }
    return hashlib.sha256(json.dumps(values | more, sort_keys=True).encode()).hexdigest()[:16]


def convert(kind: type, key: str, value: Any, source: str) -> Any:
    """`value` as the type of field `key` of dataclass `kind`; text is parsed, so "3" becomes 3 for an int."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if key not in fields:
        raise UnknownNameError("setting", key, fields, where=source)
    hinted = typing.get_type_hints(kind)[key]
    try:
        result = _coerce(hinted, value)
    except (TypeError, ValueError):
        raise ConfigError(f"{source}: {key}={value!r} is not {describe(hinted)}") from None
    low, high = fields[key].metadata.get("low"), fields[key].metadata.get("high")
    endless = not fields[key].metadata.get("numeric", True)  # limits of memory and time may be infinite
    for item in result if isinstance(result, tuple) else (result,):
        if low is not None and item is not None and not item >= low:
            raise ConfigError(f"{source}: {key}={value!r} must be at least {low:g}")
        if high is not None and item is not None and not item <= high:
            raise ConfigError(f"{source}: {key}={value!r} must be at most {high:g}")
        if isinstance(item, float) and not math.isfinite(item) and not endless:
            raise ConfigError(f"{source}: {key}={value!r} must be finite")
    return result


def describe(hinted: Any) -> str:
    """A type in words, for error messages and help."""
    if typing.get_origin(hinted) is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(hinted))
    if _is_union(hinted):
        return " or ".join(describe(part) for part in typing.get_args(hinted) if part is not type(None))
    if typing.get_origin(hinted) is tuple:
        return f"a comma-separated list of {describe(typing.get_args(hinted)[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(
        hinted, "a path"
    )


def _is_union(hinted: Any) -> bool:
    """`int | None` is a types.UnionType, `Literal[...] | None` a typing.Union."""
    return isinstance(hinted, types.UnionType) or typing.get_origin(hinted) is typing.Union


def _coerce(hinted: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hinted), typing.get_args(hinted)
    if _is_union(hinted):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "")):
            if type(None) in arguments:
                return None
            raise ValueError(value)
        return _coerce(next(part for part in arguments if part is not type(None)), value)
    if origin is typing.Literal:
        by_name = {str(choice): choice for choice in arguments}
        return by_name[str(value)] if str(value) in by_name else _refuse(value)
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else list(value)
        if len(arguments) == 2 and arguments[1] is not Ellipsis and len(items) != 2:
            raise ValueError(value)
        return tuple(_coerce(arguments[0], item) for item in items if item != "")
    if hinted is bool:
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        return known[str(value).lower()] if str(value).lower() in known else _refuse(value)
    if hinted is int:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError(value)
        return int(value)
    if hinted is float and isinstance(value, bool):
        raise ValueError(value)
    return hinted(value)


def _refuse(value: Any) -> typing.NoReturn:
    raise ValueError(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _split(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {item!r} is not key=value", hint="for example --set theta=0.03")
    return key.strip(), value.strip()
