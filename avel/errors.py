"""Defines the errors that avel raises: what is wrong, where, the value, and what to do next."""

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any


class AvelError(Exception):
    """Base of avel's errors. `hint` is the next step, printed on a line of its own.

    `exit_code` is the exit code of the command line: 1 for an error, 2 for wrong usage. No subclass is also a
    built-in error, since code that catches OSError from a file or a socket must not catch ours too.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(kind: type[AvelError], args: tuple[Any, ...]) -> AvelError:
    """Unpickles an error without its constructor, which may take other arguments than a message."""
    error = kind.__new__(kind)
    error.args = args
    return error


class ConfigError(AvelError):
    """An option or config value that cannot be used."""

    exit_code = 2


MOST_CHOICES, FEW = 50, 5
"""An error lists up to MOST_CHOICES choices, enough for a stage's settings; of more only the first FEW."""


class UnknownNameError(ConfigError):
    """A name that is not among the choices. The hint suggests the nearest ones."""

    def __init__(self, kind: str, name: str, choices: Iterable[str], *, where: str = "") -> None:
        known = sorted(choices)
        near = difflib.get_close_matches(name, known, n=3)
        place = f"{where}: " if where else ""
        shown = known if len(known) <= MOST_CHOICES else known[:FEW]
        listed = f"choose from {', '.join(shown)}" if shown else "there is none"
        others = f" and {len(known) - len(shown):,} others" if len(known) > len(shown) else ""
        super().__init__(
            f"{place}no {kind} named {name!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else f"{listed}{others}",
        )


class MissingPathError(AvelError):
    """A file or folder that should be there."""


class DatasetError(AvelError):
    """Annotations, splits or videos of a dataset that break the rules of datasets."""


class StoreError(AvelError):
    """A store, cache or run that is damaged, incomplete or of another format."""


class WriteError(AvelError):
    """A place that cannot be written: a full disk, a lost connection. This ends the run, not just a clip."""


class BusyError(AvelError):
    """Another run is working on the same output."""


class StaleError(AvelError):
    """Inputs that do not belong together: they were made with other weights, settings or clips."""


class WeightsError(AvelError):
    """Network weights that are missing or do not fit the architecture."""


class DeviceMemoryError(AvelError):
    """A GPU that has less memory than the work takes."""


class TrainingError(AvelError):
    """Training that cannot start or had to stop."""


def import_extra(module: str, extra: str) -> Any:
    """Imports a module that one of avel's extras installs, such as "timm".

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"cannot import {module}: {error}", hint=f"pip install 'avel[{extra}]'") from None
