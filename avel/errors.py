"""Every error avel raises on purpose: what, where, the value, and what to do next."""

import difflib
from collections.abc import Iterable
from typing import Any


class AvelError(Exception):
    """Base of avel's errors. `hint` is the next step, printed on a line of its own.

    `exit_code` is what the command line leaves with: 1 for an error, 2 for wrong usage. No kind of it is a
    built-in error as well: code that catches OSError from a file or a socket must not catch ours with it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _as_it_was, (type(self), self.args), self.__dict__


def _as_it_was(kind: type[AvelError], args: tuple[Any, ...]) -> AvelError:
    """An error as it is unpickled: without its constructor, which may take other arguments than a message."""
    error = kind.__new__(kind)
    error.args = args
    return error


class ConfigError(AvelError):
    """An option or config value that cannot be used."""

    exit_code = 2


LISTED = 50
"""Choices that an error lists, settings of a stage being the most there are; a store's videos are more."""


class UnknownNameError(ConfigError):
    """A name that is not among the choices; the nearest ones are suggested."""

    def __init__(self, kind: str, name: str, choices: Iterable[str], *, where: str = "") -> None:
        known = sorted(choices)
        near = difflib.get_close_matches(name, known, n=3)
        place = f"{where}: " if where else ""
        others = f" and {len(known) - LISTED} others" if len(known) > LISTED else ""
        super().__init__(
            f"{place}no {kind} named {name!r}",
            hint=f"did you mean {' or '.join(near)}?"
            if near
            else f"choose from {', '.join(known[:LISTED])}{others}",
        )


class MissingPathError(AvelError):
    """A file or folder that should be there."""


class DatasetError(AvelError):
    """Annotations, splits or videos of a dataset that contradict the contract."""


class StoreError(AvelError):
    """A store, cache or run that is damaged, incomplete or of another format."""


class WriteError(AvelError):
    """A place that cannot be written: a full disk, a lost connection. No clip's fault, so it ends the run."""


class BusyError(AvelError):
    """Another run is working on the same output."""


class StaleError(AvelError):
    """Inputs that do not belong together: made by other weights, settings or clips."""


class WeightsError(AvelError):
    """Network weights that are missing or do not fit the architecture."""


class TrainingError(AvelError):
    """Training that cannot start or had to stop."""
