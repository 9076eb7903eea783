"""Results of `evaluate`, which a run keeps in results.json."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from avel.heads.config import WeakLabels
from avel.heads.evaluation import wording
from avel.heads.tasks.results import PredictionMetrics, Spread
from avel.text import plural, table


@dataclass(frozen=True)
class GroupEvaluation(PredictionMetrics):
    """Results on one split of trials that differ in the seed alone.

    Figures are those at each trial's best validation epoch. Scores are accuracy or, where a segment may have
    several labels, Type@AV.

    Attributes:
        inputs: which features the head read.
        weak_labels: what it learned from under weak supervision; None under full.
        selected_by: the labels that chose the epoch on validation, of segments or of whole videos.
        validation_score_percent: the validation score that chose the epoch: of segments, by the usual
            decoder, or of the classes of whole videos if `selected_by` is "videos".
        score_at_best_test_epoch_percent: test score where the epoch is chosen by test, too high a figure;
            (None, None) on another split, and with another decoder than the usual one.
    """

    head: str
    inputs: str
    weak_labels: WeakLabels | None
    selected_by: Literal["segments", "videos"]
    seeds: tuple[int, ...]
    best_epochs: tuple[int, ...]
    validation_score_percent: Spread
    score_at_best_test_epoch_percent: Spread


@dataclass(frozen=True)
class FailedTrial:
    """A trial whose loss or scores did not stay finite, its group, and what happened."""

    name: str
    group: str
    failure: str


@dataclass(frozen=True, repr=False)
class Evaluation(wording.EvaluatedSplit):
    """Results of a run on one split.

    Attributes:
        groups: the head's name, or the settings that a sweep varied -> results of the trials with them.
    """

    run: str
    groups: dict[str, GroupEvaluation]
    failed_trials: tuple[FailedTrial, ...]

    def __repr__(self) -> str:
        return f"<Evaluation {self.run}, {self.split}: {self.headline()}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(chr(10).join([self.headline(), '', *self.all_lines()]))}</pre>"

    def __len__(self) -> int:
        """Returns the number of groups."""
        return len(self.groups)

    def __iter__(self) -> Iterator[str]:
        """Yields the names of the groups."""
        return iter(self.groups)

    def __getitem__(self, name: str) -> GroupEvaluation:
        """Returns a group by its name."""
        return self.groups[name]

    @property
    def best(self) -> str:
        """Returns the name of the group that is best on validation."""
        return max(self.groups, key=lambda name: self.groups[name].validation_score_percent.mean or 0.0)

    def headline(self) -> str:
        """Returns the score of the group that is best on validation in one line, with a verdict."""
        group = self.groups[self.best]
        name = f"best on validation: {self.best}: " if len(self.groups) > 1 else ""
        seeds = plural(len(group.seeds), "seed")
        chosen_by = group.validation_score_percent
        of = " by videos" if group.selected_by == "videos" else ""
        validation = "" if chosen_by.mean is None else f"validation{of} {chosen_by}"
        return name + wording.headline(self, group, seeds, validation)

    def lines(self) -> list[str]:
        """Returns the groups of a sweep as a table, in the order of training, and the trials that failed."""
        header = ("settings", f"{self.split} {self.measure}", "event F1", "validation")
        rows = [
            (name, each.score_percent, each.events.f1_percent, each.validation_score_percent)
            for name, each in self.groups.items()
        ]
        groups = [*table(header, rows), ""] if len(rows) > 1 else []
        return [*groups, *(f"failed: {trial.name}: {trial.failure}" for trial in self.failed_trials)]

    def all_lines(self) -> list[str]:
        """Returns all figures for people: those on the split first, then what chose the epochs."""
        shown = self.lines()
        for name, group in self.groups.items():
            shown += [f"{self.run}: {name}, {plural(len(group.seeds), 'seed')}, reads {group.inputs}", ""]
            shown += [*wording.metric_lines(self, group), *_choice_lines(self.measure, group), ""]
        return shown


def _choice_lines(measure: str, group: GroupEvaluation) -> list[str]:
    """Returns what chose the epochs of a group, and what it learned from under weak supervision."""
    chosen_by = f"validation by labels of {group.selected_by}, which chose the epoch"
    rows: list[tuple[str, Any]] = [
        (chosen_by, group.validation_score_percent),
        ("best epoch of each seed", " ".join(map(str, group.best_epochs))),
    ]
    if group.weak_labels is not None:
        rows.append(("weak labels", group.weak_labels))
    if group.score_at_best_test_epoch_percent.mean is not None:
        too_high = "at the best test epoch, which is too high a figure"
        rows.append((too_high, group.score_at_best_test_epoch_percent))
    return ["", *table(("how the epoch was chosen", measure + ", %"), rows)]
