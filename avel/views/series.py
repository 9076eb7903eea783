"""Series of numbers over runs: learning curves by epoch, accuracy by theta."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avel.stores.runs import Run
from avel.views.reading import HeadRun, read_run


@dataclass(frozen=True)
class Curve:
    """One line of a chart: a value by epoch."""

    name: str
    epoch: NDArray[np.float64]
    value: NDArray[np.float64]


def curves_of(run: Run) -> dict[str, list[Curve]]:
    """Quantity -> one curve a trial, from the lines of metrics.jsonl that have an epoch; shares become %."""
    titles = {"loss": "loss", "val_accuracy": "validation accuracy, %", "test_accuracy": "test accuracy, %"}
    lines = [line for line in run.metrics() if line.get("epoch") is not None]
    panels: dict[str, list[Curve]] = {}
    for key, title in titles.items():
        scale = 100 if title.endswith("%") else 1
        for trial in dict.fromkeys(str(line.get("trial", "")) for line in lines):
            own = [
                line for line in lines if str(line.get("trial", "")) == trial and line.get(key) is not None
            ]
            points = np.array([(line["epoch"], scale * line[key]) for line in own], float).reshape(-1, 2)
            if len(points):
                panels.setdefault(title, []).append(Curve(trial or "run", points[:, 0], points[:, 1]))
    return panels


def runs_below(path: Path) -> list[HeadRun]:
    """The run at `path`, or the finished head runs in the folders below it."""
    if (path / "run.json").is_file():
        return [read_run(path)]
    found = sorted(path.rglob("run.json"))
    return [read_run(each.parent) for each in found if (each.parent / "predictions.parquet").is_file()]


def theta_sweep(runs: Sequence[HeadRun], split: str) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Values of theta in rising order, and the accuracy of every trial trained with each: (n,), n arrays."""
    found: dict[float, list[float]] = {}
    for run in runs:
        for theta, accuracy in zip(run.values_of("theta"), run.accuracy(split), strict=True):
            if theta is not None:
                found.setdefault(theta, []).append(float(accuracy))
    order = sorted(found)
    return np.array(order), [np.array(found[theta]) for theta in order]
