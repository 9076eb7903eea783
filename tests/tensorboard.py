"""Stands for TensorBoard, which need not be installed."""

import sys
from types import ModuleType

import pytest


class Events:
    """What a writer of events was given, and whether it was closed."""

    def __init__(self) -> None:
        self.scalars: dict[tuple[str, int], float] = {}
        self.closed = False

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name, step] = value

    def close(self) -> None:
        self.closed = True


def install(monkeypatch: pytest.MonkeyPatch) -> dict[str, Events]:
    """Makes TensorBoard's writer give `Events`; returns folder -> events, filled as writers are made."""
    made: dict[str, Events] = {}
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = lambda folder: made.setdefault(folder, Events())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return made
