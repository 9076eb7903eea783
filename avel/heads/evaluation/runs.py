"""`list_runs`: all runs below a folder in one table."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avel.config import settings_of
from avel.errors import AvelError, MissingPathError, StoreError
from avel.heads.evaluation.compare import GroupPredictions, read_group
from avel.heads.evaluation.evaluation import Evaluation, FailedTrial, GroupEvaluation
from avel.heads.evaluation.paired import WOULD_SHOW, WOULD_SHOW_NOTE, Difference, differences, resolved_points
from avel.heads.tasks.results import Spread
from avel.heads.training.code import read_train_config
from avel.heads.training.records import HeadInputs, TrialRecord, open_runs, read_trials
from avel.stores.runs import RECORD, Run
from avel.text import plural, table


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """One line of the table: trials that differ in the seed alone, or a run of an encoder or without results.

    Attributes:
        run: the run's folder below the one that was listed.
        state: "finished", "failed" if all its trials did, or "not finished".
        head: its name; "" for an encoder, and for a sweep over heads without results.
        group: the head, or the settings that a sweep varied; "" where there are no results.
        seeds: number of trials with results.
        failed: number of trials that did not stay finite; a line of only such trials has no figures.
        failure: what happened to the first of these.
        selected_by: the labels that chose the epochs, of segments or of whole videos; "" without results.
        accuracy_percent: None where segments may have several labels. There each F1 is Type@AV, and all other
            figures are Type@AV of segments.
        against: the run that this line is compared with, and its settings, if any.
        differences: metric -> this line's minus that run's.
        differs: settings that differ among the listed head runs or that another of them sweeps; not those
            that this run sweeps.
        inputs: digest of the feature cache; compare runs of the same one.
    """

    run: str
    kind: str
    state: str
    head: str
    group: str = ""
    seeds: int = 0
    failed: int = 0
    failure: str = ""
    selected_by: str = ""
    accuracy_percent: float | None = None
    std_percent: float | None = None
    low_percent: float | None = None
    high_percent: float | None = None
    without_leaked_percent: float | None = None
    holding_background_percent: float | None = None
    segment_f1_percent: float | None = None
    event_f1_percent: float | None = None
    validation_percent: float | None = None
    best_test_epoch_percent: float | None = None
    against: str = ""
    differences: dict[str, Difference] = field(default_factory=dict)
    differs: dict[str, Any]
    inputs: str
    started: str

    @property
    def score_percent(self) -> float | None:
        """Returns the main metric of the task: accuracy, or Type@AV."""
        return self.segment_f1_percent if self.accuracy_percent is None else self.accuracy_percent


def list_runs(folder: Path | str, *, against: Path | str | None = None) -> list[RunLine]:
    """Lists all runs below `folder`, by path; trials that differ in the seed alone are one line.

    Lines of one run are in the order of their validation figures, the best first.

    >>> [(line.run, line.group, line.accuracy_percent) for line in list_runs("runs")]  # doctest: +SKIP
    [('theta', 'theta=0.0', 79.5), ('theta', 'theta=0.03', 80.6)]

    Args:
        against: a run. All runs of its task that have results on test are compared with it; of a sweep the
            settings that are best on validation count. By default it is the run that is best on validation,
            if the epochs of all were chosen by one kind of labels, and only runs on the same samples are
            compared.

    Raises:
        MissingPathError: no such folder or run, or no run below it.
        StoreError: a run of another format, or whose results are damaged; one that shares no test samples
            with `against`.
    """
    folder = Path(folder)
    runs = open_runs(folder)
    if not runs:
        raise MissingPathError(f"{folder}: no avel run here", hint="avel train-head makes one")
    differing = _differing([run for run in runs if run.kind == "heads"])
    lines = [line for run in runs for line in _lines(run, folder, differing)]
    if against is not None:
        other = read_group(against, "test")
        return [_compared(line, folder, other) for line in lines]
    best = best_line(lines)
    if best is None:
        return lines
    # Nobody asked for the comparison, so where files for it are missing the list is shown without
    with suppress(AvelError):
        other = read_group(folder / best.run, "test", best.group)
        for place, line in enumerate(lines):
            with suppress(AvelError):  # no test samples in common
                lines[place] = _compared(line, folder, other)
    return lines


def _compared(line: RunLine, folder: Path, other: GroupPredictions) -> RunLine:
    """Returns the line with its differences to another run, if it has results on test for the same task."""
    if line.score_percent is None:
        return line
    group = read_group(folder / line.run, "test", line.group)
    if group.task.name != other.task.name or group.same_as(other):
        return line
    settings = f" ({other.name})" if other.name != other.trials[0].config.head.name else ""
    against = other.run.path.resolve().name + settings
    try:
        found = differences(group.items, other.items, group.task)
    except StoreError as error:
        raise StoreError(f"{group.run.path} and {other.run.path}: {error.message}", hint=error.hint) from None
    return replace(line, differences=found, against=against)


def _lines(run: Run, folder: Path, differing: Sequence[str]) -> list[RunLine]:
    line = RunLine(
        run=str(run.path.relative_to(folder)),
        kind=run.kind,
        state="finished" if run.finished else "not finished",
        head="",
        differs={},
        inputs="",
        started=run.record.started,
    )
    if run.kind != "heads":
        return [line]
    inputs, config = run.read_inputs(HeadInputs), _settings_of(run)
    own = [key for key in differing if key not in inputs.swept and config.get(key) is not None]
    line = replace(
        line,
        head="" if "head" in inputs.swept else config["head"],
        differs={key: config[key] for key in own},
        inputs=inputs.cache_digest,
    )
    groups: dict[str, GroupEvaluation] = {}
    failed_trials: Sequence[TrialRecord | FailedTrial]
    if run.finished:
        results = run.read_results(Evaluation)
        groups, failed_trials = results.groups, results.failed_trials
    else:
        failed_trials = read_trials(run)
        if len(failed_trials) < len(inputs.trials) or not all(trial.failure for trial in failed_trials):
            return [line]
        line = replace(line, state="failed")
    failures: dict[str, list[str]] = {name: [] for name in groups}
    for trial in failed_trials:
        failures.setdefault(trial.group, []).append(f"{trial.name}: {trial.failure}")
    of_group = {
        name: replace(line, group=name, failed=len(texts), failure=next(iter(texts), ""))
        for name, texts in failures.items()
    }
    evaluated = [_evaluated(of_group.pop(name), group) for name, group in groups.items()]
    evaluated.sort(key=lambda each: -(each.validation_percent or 0.0))
    return [*evaluated, *of_group.values()]


def _evaluated(line: RunLine, group: GroupEvaluation) -> RunLine:
    """Returns the line of a group with its figures."""
    low, high = group.interval_percent or (None, None)
    return replace(
        line,
        head=group.head,
        seeds=len(group.seeds),
        selected_by=group.selected_by,
        accuracy_percent=group.accuracy_percent.mean,
        std_percent=group.score_percent.std,
        low_percent=low,
        high_percent=high,
        without_leaked_percent=group.score_without_leaked_percent.mean,
        holding_background_percent=group.accuracy_holding_background_percent.mean,
        segment_f1_percent=group.segment_f1_percent.mean,
        event_f1_percent=group.events.f1_percent.mean,
        validation_percent=group.validation_score_percent.mean,
        best_test_epoch_percent=group.score_at_best_test_epoch_percent.mean,
    )


def run_table(lines: Sequence[RunLine]) -> list[str]:
    """Formats lines as a table, and their differences as another; `--json` and `--csv` hold every field."""
    several = len({line.inputs for line in lines if line.inputs}) > 1
    failures = any(line.failed for line in lines)
    header = (
        *("run", "settings", "seeds"),
        *(("failed",) if failures else ()),
        *("test", "event F1", "val", "best test epoch", "holding background"),
        *(("cache",) if several else ()),
    )
    rows = [
        (
            line.run,
            _settings_text(line),
            line.seeds or "",
            *((line.failed or "",) if failures else ()),
            str(Spread(line.score_percent, line.std_percent)) or _why_not(line),
            Spread(line.event_f1_percent),
            Spread(line.validation_percent),
            Spread(line.best_test_epoch_percent),
            Spread(line.holding_background_percent),
            *((line.inputs,) if several else ()),
        )
        for line in lines
    ]
    failed = [f"failed: {line.run}: {line.failure}" for line in lines if line.failure]
    return [*table(header, rows), *([""] if failed else []), *failed, *_difference_lines(lines)]


def _difference_lines(lines: Sequence[RunLine]) -> list[str]:
    """Formats the paired differences of lines, a table for each run and measure that they are compared in."""
    groups: dict[tuple[str, str], list[RunLine]] = {}
    for line in lines:
        if line.differences:
            groups.setdefault((line.against, next(iter(line.differences))), []).append(line)
    shown: list[str] = []
    for (against, measure), compared in groups.items():
        metrics = dict.fromkeys((measure, "event_f1"))
        rows = [
            (
                line.run,
                _settings_text(line),
                *(line.differences[name] for name in metrics),
                line.differences[measure].needed,
            )
            for line in compared
        ]
        resolved = resolved_points(line.differences for line in compared)
        told = f"these clips and seeds resolve about {resolved:.1f} points of {_title(measure)}"
        header = ("run", "settings", *(f"{_title(name)}, 95 %" for name in metrics), WOULD_SHOW)
        shown += ["", f"minus {against}: {told}", *table(header, rows)]
    return [*shown, WOULD_SHOW_NOTE, ""] if shown else []


def _title(metric: str) -> str:
    return metric.replace("_f1", " F1")


def best_line(lines: Sequence[RunLine]) -> RunLine | None:
    """Returns the line that is best on validation; None without results, or if scores are not comparable."""
    evaluated = [line for line in lines if line.score_percent is not None]
    if len({(line.selected_by, line.accuracy_percent is None) for line in evaluated}) > 1:
        return None
    return max(evaluated, key=lambda line: line.validation_percent or 0.0, default=None)


def run_headline(lines: Sequence[RunLine]) -> str:
    """Returns the list in one line: how many runs, and which is best on validation."""
    counted = plural(len({line.run for line in lines}), "run")
    best = best_line(lines)
    if best is None and any(line.score_percent is not None for line in lines):
        return f"{counted}; their validation scores are of several kinds, so none is the best"
    if best is None:
        return f"{counted}, none with figures on test"
    test = Spread(best.score_percent, best.std_percent)
    settings = f" ({best.group})" if best.group != best.head else ""
    name = best.head if best.run == "." else best.run  # the folder is the run itself
    return f"{counted}; best on validation: {name}{settings}, test {test} %"


def _why_not(line: RunLine) -> str:
    """Says why a line has no score on test."""
    head_run = line.state == "finished" and line.kind == "heads"
    return "failed" if line.failed else "not evaluated" if head_run else line.state


def _settings_text(line: RunLine) -> str:
    """Returns a run's kind or head, the swept settings, and those that differ from the other runs."""
    name = "" if "head=" in line.group else line.head or line.kind
    swept = line.group if line.group != line.head else ""
    return " ".join(
        [*filter(None, (name, swept)), *(f"{key}={value}" for key, value in line.differs.items())]
    )


def _settings_of(run: Run) -> dict[str, Any]:
    """Returns the settings of a head run that change numbers, by name."""
    config = read_train_config(run.record.config, run.path / RECORD)
    return {setting.name: setting.of(config) for setting in settings_of(config) if setting.in_key}


def _differing(runs: Sequence[Run]) -> list[str]:
    """Lists settings that change numbers and are not the same in all runs whose head knows them.

    A setting that one of the runs sweeps is not the same in all.
    """
    values: dict[str, set[str]] = {}
    swept = {key for run in runs for key in run.read_inputs(HeadInputs).swept}
    for run in runs:
        for key, value in _settings_of(run).items():
            values.setdefault(key, set()).add(json.dumps(value))
    differing = swept | {key for key, texts in values.items() if len(texts) > 1}
    return sorted(differing - {"head", "seeds"})
