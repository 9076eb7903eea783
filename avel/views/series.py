"""Collects learning curves over epochs, and scores over the values of a swept setting."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.config import Setting, settings_of
from avel.errors import ConfigError, StoreError, UnknownNameError
from avel.heads.config import TrainConfig
from avel.heads.evaluation.predictions import PREDICTIONS
from avel.heads.tasks.results import Spread
from avel.heads.training.records import HeadInputs, open_runs, task_of
from avel.stores.runs import RECORD, Run
from avel.values import default_text
from avel.views.reading import HeadRun, read_run

SEEDS = ("seed", "seeds")


@dataclass(frozen=True)
class Curve:
    """One line of a chart: a value by epoch."""

    name: str
    epoch: NDArray[np.float64]
    value: NDArray[np.float64]


def curves_of(run: Run) -> dict[str, list[Curve]]:
    """Reads metrics.jsonl: title of a quantity -> a curve of each trial over epochs; scores in %."""
    measure = task_of(run).measure if run.kind == "heads" else ""
    titles = {"loss": "loss", "val_score": f"validation {measure}, %", "test_score": f"test {measure}, %"}
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


@dataclass(frozen=True)
class SweepLine:
    """One line of a sweep: trials that differ in the swept setting and the seed alone.

    Attributes:
        name: the other settings and the digest of the cache, where these differ between lines; else "".
        place: (n,) indices in `Sweep.values` of the values that this line has.
        score_percent: (n,) for each of these values, the scores of its trials.
        spreads: (n,) mean and standard deviation of these scores.
    """

    name: str
    place: tuple[int, ...]
    score_percent: tuple[tuple[float, ...], ...]
    spreads: tuple[Spread, ...]


@dataclass(frozen=True)
class Sweep:
    """Scores of heads on a split over the values of one setting.

    Attributes:
        setting: name of the setting.
        label: the same for pictures: a Greek letter where the setting is named like one.
        help: what the setting means, in a line.
        measure: name of the metric, for people.
        values: of the setting, as text; numbers rise, others are in the order in which they were given.
        ordered: whether the values are numbers, which a line may join.
    """

    setting: str
    label: str
    help: str
    split: str
    measure: str
    values: tuple[str, ...]
    ordered: bool
    lines: tuple[SweepLine, ...]


def runs_below(path: Path) -> list[HeadRun]:
    """Reads the run at `path`, or the finished head runs in the folders below it.

    Raises:
        StoreError: there are none.
    """
    if (path / RECORD).is_file():
        return [read_run(path)]
    finished = [read_run(run.path) for run in open_runs(path) if (run.path / PREDICTIONS).is_file()]
    if not finished:
        raise StoreError(f"{path}: no finished run of a head", hint="name the run of avel sweep")
    return finished


def swept_settings(runs: Sequence[HeadRun]) -> list[str]:
    """Lists the settings in which trials of one head differ, and "head" if there are several heads.

    Seeds, and settings that change no numbers, do not count.
    """
    values: dict[tuple[str, str], set[Any]] = {}
    for run in runs:
        for config in (record.config for record in run.records):
            for name, setting in _settings(config).items():
                head = "" if name == "head" else config.head.name
                values.setdefault((name, head), set()).add(setting.of(config))
    return list(dict.fromkeys(name for (name, _), distinct in values.items() if len(distinct) > 1))


def sweep_of(runs: Sequence[HeadRun], split: str, setting: str | None = None) -> Sweep:
    """Collects scores over a setting in which trials differ, by default the only one.

    Raises:
        StoreError: the trials do not differ in any setting, the runs have no predictions of the split, or
            they are measured in different metrics.
        ConfigError: they differ in several settings and `setting` is None, or not in `setting`.
    """
    swept = swept_settings(runs)
    where = str(runs[0].run.path) if len(runs) == 1 else f"{len(runs)} runs"
    run_of = {run.task.measure: run.run.path for run in runs}
    if len(run_of) > 1:
        named = " and ".join(f"{measure} ({path})" for measure, path in run_of.items())
        raise StoreError(
            f"{where} are measured by {named}, which one chart cannot compare",
            hint="put the runs of each task into a folder of their own",
        )
    if not swept:
        raise StoreError(
            f"{where}: no setting has two values among the trials that were trained to their end",
            hint="avel sweep CACHE RUN --set NAME=VALUE,VALUE",
        )
    if setting is None and len(swept) > 1:
        raise ConfigError(
            f"{where}: several settings were swept: {', '.join(swept)}",
            hint=f"choose one: --setting {swept[0]}",
        )
    chosen = setting or swept[0]
    if chosen not in swept:
        raise UnknownNameError("swept setting", chosen, swept, where=where)
    others = [name for name in swept if name != chosen]
    caches = [run.run.read_inputs(HeadInputs).cache_digest for run in runs]
    lines: dict[str, dict[Any, list[float]]] = {}
    for run, cache in zip(runs, caches, strict=True):
        for record, score in zip(run.records, run.score(split), strict=True):
            config, known = record.config, _settings(record.config)
            if chosen in known:
                own = {name: _text(known[name].of(config)) for name in others if name in known}
                own |= {"cache": cache} if len(set(caches)) > 1 else {}
                line = lines.setdefault(" ".join(f"{name}={value}" for name, value in own.items()), {})
                definition = known[chosen]
                line.setdefault(definition.of(config), []).append(100 * float(score))
    values = list(dict.fromkeys(value for line in lines.values() for value in line))
    ordered = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    values = sorted(values) if ordered else values

    def line_of(name: str, scores_of: dict[Any, list[float]]) -> SweepLine:
        places = tuple(place for place, value in enumerate(values) if value in scores_of)
        scores = tuple(tuple(scores_of[values[place]]) for place in places)
        return SweepLine(name, places, scores, tuple(Spread.of(each) for each in scores))

    return Sweep(
        setting=chosen,
        label=_label(chosen),
        help=definition.help.split(";")[0].rstrip("."),
        split=split,
        measure=runs[0].task.measure,
        values=tuple(map(_text, values)),
        ordered=ordered,
        lines=tuple(line_of(name, scores_of) for name, scores_of in lines.items()),
    )


def _settings(config: TrainConfig) -> dict[str, Setting]:
    """Returns the settings that change the numbers, by name, but for the seeds."""
    return {each.name: each for each in settings_of(config) if each.in_key and each.name not in SEEDS}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else default_text(value)


def _label(name: str) -> str:
    try:
        return unicodedata.lookup(f"GREEK SMALL LETTER {name}")
    except KeyError:
        return name
