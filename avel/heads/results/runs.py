"""`runs`: every run below a folder as one table, so that they can be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avel.errors import MissingPathError
from avel.stores.runs import Run


@dataclass(frozen=True)
class RunLine:
    """One group of members of a head run, alike but for the seed; or one run that holds no results of heads.

    Attributes:
        run: the run's folder below the one that was listed.
        state: "finished" or "not finished".
        group: the head, or the settings that a sweep varied; "" where there are no results.
        differs: settings by which the listed head runs differ.
        inputs: digest of the feature cache; results of different caches are not about the same features.
    """

    run: str
    kind: str
    state: str
    head: str
    group: str
    seeds: int
    accuracy_percent: float | None
    std_percent: float | None
    low_percent: float | None
    high_percent: float | None
    accuracy_without_leaked_percent: float | None
    best_test_epoch_percent: float | None
    differs: dict[str, Any]
    inputs: str
    started: str


def list_runs(folder: Path | str) -> list[RunLine]:
    """All runs below `folder`, by path; members that differ in the seed alone share a line.

    >>> [(line.run, line.group, line.accuracy_percent) for line in list_runs("runs")]  # doctest: +SKIP
    [('theta', 'theta=0', 79.5), ('theta', 'theta=0.03', 80.6)]

    Raises:
        MissingPathError: no such folder, or no run below it.
        StoreError: a run of another format.
    """
    folder = Path(folder)
    paths = sorted(path.parent for path in folder.rglob("run.json"))
    if not paths:
        raise MissingPathError(f"{folder}: no avel run here", hint="avel train-head makes one")
    runs = [Run.open(path) for path in paths]
    differing = _differing([run for run in runs if run.kind == "heads"])
    return [line for run in runs for line in _lines(run, folder, differing)]


def _lines(run: Run, folder: Path, differing: Sequence[str]) -> list[RunLine]:
    config = run.record["config"]
    common: dict[str, Any] = {
        "run": str(run.path.relative_to(folder)),
        "kind": run.kind,
        "state": "finished" if run.finished else "not finished",
        "head": config["head"] if run.kind == "heads" else "",
        "differs": {key: config.get(key) for key in differing} if run.kind == "heads" else {},
        "inputs": str(run.inputs.get("cache_digest", "")),
        "started": str(run.record.get("started", "")),
    }
    groups = run.results.get("groups", {}) if run.finished and run.kind == "heads" else {}
    return [RunLine(**common, **_figures(name, group)) for name, group in (groups or {"": {}}).items()]


def _figures(name: str, group: dict[str, Any]) -> dict[str, Any]:
    accuracy = group.get("accuracy_percent", {})
    low, high = group.get("interval_percent", (None, None))
    return {
        "group": name,
        "seeds": len(group.get("seeds", ())),
        "accuracy_percent": accuracy.get("mean"),
        "std_percent": accuracy.get("std"),
        "low_percent": low,
        "high_percent": high,
        "accuracy_without_leaked_percent": group.get("accuracy_without_leaked_percent", {}).get("mean"),
        "best_test_epoch_percent": group.get("accuracy_at_best_test_epoch_percent", {}).get("mean"),
    }


def _differing(runs: Sequence[Run]) -> list[str]:
    """Settings that are not the same in all runs, the head aside."""
    configs = [run.record["config"] for run in runs]
    keys = {key for config in configs for key in config} - {"head"}
    return sorted(key for key in keys if len({json.dumps(config.get(key)) for config in configs}) > 1)
