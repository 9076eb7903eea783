"""Passes every line of a run's metrics on: to TensorBoard, and to a function that the user names."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from avel.errors import ConfigError

Hook = Callable[[str, dict[str, Any]], None]
"""Takes the run's folder and one line of its metrics."""


class Watchers:
    """Receivers of a run's metrics while it trains: TensorBoard, a function of the user, both or none.

    Args:
        hook: "module:function", or "" for none.
        tensorboard: write TensorBoard events, into the folder `tensorboard` of the run.

    Raises:
        ConfigError: tensorboard is not installed, or the function cannot be found.
    """

    def __init__(self, run: Path, hook: str, tensorboard: bool) -> None:
        self.run = run
        self.hook = find_hook(hook) if hook else None
        self.writer_class = event_writer_class() if tensorboard else None
        self._writers: dict[str, Any] = {}

    def log(self, line: dict[str, Any]) -> None:
        """Passes one line of metrics on; in TensorBoard each trial of a head has its own curves."""
        if self.hook is not None:
            self.hook(str(self.run), dict(line))
        if self.writer_class is not None:
            trial = str(line.get("trial", ""))
            if trial not in self._writers:
                self._writers[trial] = self.writer_class(str(self.run / "tensorboard" / trial))
            for name, value in numbers_of(line).items():
                self._writers[trial].add_scalar(name, value, line["epoch"])

    def close(self) -> None:
        """Writes the TensorBoard events that are still in memory."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def check_watchers(hook: str, tensorboard: bool) -> None:
    """Checks that the function and TensorBoard can be imported, before a run writes anything.

    Raises:
        ConfigError: tensorboard is not installed, or the function cannot be found.
    """
    Watchers(Path(), hook, tensorboard)


def find_hook(name: str) -> Hook:
    """Imports the function named "module:function"; the module may be in the working folder.

    Raises:
        ConfigError: no such module or function.
    """
    module, _, function = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        if not all(map(str.isidentifier, module.split("."))):
            raise ValueError(f"{module!r} is no name of a module")
        hook: Hook = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"metrics_hook={name!r} cannot be found: {error}",
            hint="--metrics-hook MODULE:FUNCTION, the module in the working folder or installed",
        ) from None
    if not callable(hook):
        raise ConfigError(f"metrics_hook={name!r} is not a function", hint="def log(run, line): ...")
    return hook


def numbers_of(values: dict[str, Any]) -> dict[str, float]:
    """Returns the numbers by name, nested ones as `outer/inner`.

    >>> numbers_of({"loss": 0.5, "trial": "seed=0", "moved": {"audio": 1}})
    {'loss': 0.5, 'moved/audio': 1.0}
    """
    numbers: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            numbers |= {f"{name}/{inner}": number for inner, number in numbers_of(value).items()}
        elif isinstance(value, int | float):
            numbers[name] = float(value)
    return numbers


def event_writer_class() -> Any:
    """Returns the class that writes TensorBoard events.

    Raises:
        ConfigError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("tensorboard is not installed", hint="pip install tensorboard") from None
    return SummaryWriter
