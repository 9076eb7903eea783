"""`compare`: two runs on the same clips, their paired differences, and who is right where."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from avel.errors import ConfigError, UnknownNameError
from avel.heads.evaluation.paired import Difference, aligned, difference, tally
from avel.heads.evaluation.predictions import Predictions, check_complete, no_predictions, read_predictions
from avel.heads.tasks.metrics import Tally
from avel.heads.tasks.results import Decoder, Spread
from avel.heads.tasks.task import Task
from avel.heads.training.records import TrialRecord, mean_val_score, read_trained, task_of, trained_groups
from avel.stores.datasets.labels import in_clip
from avel.stores.runs import Run
from avel.text import plural, table

SHOWN_CLIPS = 5
"""Number of clips from each end of the list that a terminal shows; JSON holds all."""


@dataclass(frozen=True)
class GroupPredictions:
    """Trials of a run that differ in the seed alone, and their predictions on one split."""

    run: Run
    name: str
    trials: tuple[TrialRecord, ...]
    items: tuple[Predictions, ...]

    @property
    def task(self) -> Task:
        """Returns the task that the run was trained for."""
        return task_of(self.run)

    def same_as(self, other: "GroupPredictions") -> bool:
        """Returns True if the other ones are the same trials of the same run."""
        return (self.run.path.resolve(), self.name) == (other.run.path.resolve(), other.name)


@dataclass(frozen=True)
class ComparedRun:
    """One of two runs, on the clips that both have labels for; spreads are over its seeds.

    Attributes:
        settings: the head's name, or the settings of a sweep that were compared.
        accuracy_percent: None where a segment may have several labels.
    """

    run: str
    settings: str
    seeds: tuple[int, ...]
    accuracy_percent: Spread
    segment_f1_percent: Spread
    event_f1_percent: Spread


@dataclass(frozen=True)
class Agreement:
    """Percent of segments by who is right, averaged over all pairs of a seed of A and a seed of B."""

    both_percent: float
    only_a_percent: float
    only_b_percent: float
    neither_percent: float


@dataclass(frozen=True)
class ComparedClip:
    """One sample: percent of its segments that A and B have right, or their F1, averaged over their seeds.

    `events` names its classes in order of time.
    """

    sample: int
    video_id: str
    events: str
    a_percent: float
    b_percent: float


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same samples of one split.

    Attributes:
        metrics: metric -> what tables call it; the first is the task's main metric.
        left_out: number of samples that only one of them has.
        differences: metric -> A's minus B's, in points.
        clips: all, those where A is furthest ahead of B first.
    """

    split: str
    decoder: Decoder
    metrics: dict[str, str]
    samples: int
    left_out: int
    a: ComparedRun
    b: ComparedRun
    differences: dict[str, Difference]
    agreement: Agreement
    clips: tuple[ComparedClip, ...]

    def headline(self) -> str:
        """Returns the result in one line: the difference in the task's main metric, and what it is worth."""
        metric, title = next(iter(self.metrics.items()))
        main = self.differences[metric]
        return f"{title}, A - B: {main}; {main.explained()}"

    def lines(self) -> list[str]:
        """Returns the comparison for people."""
        sides = [
            (f"{name}: {side.run} ({side.settings})", side)
            for name, side in zip("AB", (self.a, self.b), strict=True)
        ]
        rows: list[tuple[Any, ...]] = [
            (title, *(getattr(side, f"{metric}_percent") for _, side in sides), self.differences[metric])
            for metric, title in self.metrics.items()
        ]
        agreement, left_out = self.agreement, plural(self.left_out, "clip")
        right = ("A right, %", "B right, %") if "accuracy" in self.metrics else ("F1 of A, %", "F1 of B, %")
        who = [
            f"of the segments both have {agreement.both_percent:.1f} % right",
            f"only A {agreement.only_a_percent:.1f} %",
            f"only B {agreement.only_b_percent:.1f} %",
            f"neither {agreement.neither_percent:.1f} %",
        ]
        return [
            *(about for about, _ in sides),
            "",
            *table((f"{self.split}, {plural(self.samples, 'clip')}", "A", "B", "A - B, 95 % interval"), rows),
            "",
            ", ".join(who),
            *([f"left out: {left_out} that only one of them has"] if self.left_out else []),
            "",
            *table(("clip", "events", *right), self._ends()),
            "",
        ]

    def _ends(self) -> list[tuple[Any, ...]]:
        """Returns rows of the clips on which A is furthest ahead of B, then of B ahead of A."""
        ahead = [clip for clip in self.clips if clip.a_percent > clip.b_percent][:SHOWN_CLIPS]
        behind = [clip for clip in self.clips if clip.a_percent < clip.b_percent][-SHOWN_CLIPS:]
        return [
            (clip.video_id, clip.events, round(clip.a_percent, 1), round(clip.b_percent, 1))
            for clip in ahead + behind
        ]


def compare(
    a: Path | str,
    b: Path | str,
    *,
    split: Literal["val", "test"] = "test",
    decoder: Decoder | None = None,
    settings_a: str | None = None,
    settings_b: str | None = None,
) -> Comparison:
    """Compares two runs clip by clip; of a sweep the settings that are best on validation.

    >>> compare("runs/tacma", "runs/mlp").differences["accuracy"].level  # doctest: +SKIP
    True

    Args:
        settings_a: the settings of a sweep `a` to take instead, as its results name them.
        settings_b: the same of `b`.

    Raises:
        MissingPathError: no such run.
        StoreError: a run without predictions of the split; no sample in common, or their labels differ.
        TrainingError: every trial of a run failed.
        UnknownNameError: no such settings.
        ConfigError: A and B are the same trials, or no such decoder for the task.
    """
    one, other = read_group(a, split, settings_a), read_group(b, split, settings_b)
    if one.same_as(other):
        raise ConfigError(
            f"cannot compare {one.run.path} ({one.name}) with itself",
            hint="name another run; of a sweep --settings-a and --settings-b name what to compare",
        )
    task = one.task
    decoder = task.find_decoder(decoder)
    left, right = aligned(one.items, other.items)
    of_a, of_b = tally(left, task, decoder), tally(right, task, decoder)
    decoded = [[task.decode(item.probabilities, decoder) for item in items] for items in (left, right)]
    label = left[0].label
    correct = [np.stack([task.right(each, label) for each in side]) for side in decoded]
    scores = [100 * np.mean([task.sample_scores(each, label) for each in side], 0) for side in decoded]
    samples = len(left[0].number)
    return Comparison(
        split=split,
        decoder=decoder,
        metrics=dict(task.metrics),
        samples=samples,
        left_out=sum(int(items[0].known.sum()) - samples for items in (one.items, other.items)),
        a=_side(one, of_a),
        b=_side(other, of_b),
        differences={name: difference(of_a[name], of_b[name], left[0].video_id) for name in of_a},
        agreement=_agreement(correct[0], correct[1], in_clip(label)),
        clips=_clips(left[0], task, *scores),
    )


def read_group(path: Path | str, split: str, name: str | None = None) -> GroupPredictions:
    """Reads the predictions of one group of a run's trials, by default of the best one on validation.

    Raises:
        MissingPathError: no such run.
        StoreError: no trained trials yet, or no predictions of the split.
        TrainingError: every trial of the run failed.
        UnknownNameError: the run has no group of that name.
    """
    run = Run.open(path, "heads")
    groups = trained_groups(read_trained(run))
    if name and name not in groups:
        raise UnknownNameError("settings", name, groups, where=str(run.path))
    by_split = read_predictions(run)
    if split not in by_split:
        raise no_predictions(run, split, by_split)
    chosen = name or max(groups, key=lambda each: mean_val_score(groups[each]))
    of_trial = {item.trial: item for item in by_split[split]}
    check_complete(run, groups[chosen], of_trial, split)
    items = tuple(of_trial[trial.name] for trial in groups[chosen])
    return GroupPredictions(run, chosen, tuple(groups[chosen]), items)


def _side(group: GroupPredictions, tallies: dict[str, Tally]) -> ComparedRun:
    spreads = {name: Spread.of_fractions(each.value) for name, each in tallies.items()}
    return ComparedRun(
        str(group.run.path),
        group.name,
        tuple(trial.seed for trial in group.trials),
        spreads.get("accuracy", Spread()),
        spreads["segment_f1"],
        spreads["event_f1"],
    )


def _agreement(a: NDArray[np.bool_], b: NDArray[np.bool_], inside: NDArray[np.bool_]) -> Agreement:
    """Returns who is right, in percent of segments, averaged over all pairs of a trial of A and one of B.

    Args:
        a, b: where the trials are right, (M_a, R, T) and (M_b, R, T).
        inside: segments before the end of their clips, (R, T).
    """
    # The mean over all pairs is the product of the means
    right_a, right_b = a.mean(0)[inside], b.mean(0)[inside]
    parts = (
        right_a * right_b,
        right_a * (1 - right_b),
        (1 - right_a) * right_b,
        (1 - right_a) * (1 - right_b),
    )
    return Agreement(*(100 * float(part.mean()) for part in parts))


def _clips(
    about: Predictions, task: Task, a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[ComparedClip, ...]:
    """Returns the clips, those where A is furthest ahead of B first; `a` and `b` are percents (R,)."""
    order = np.argsort(b - a, kind="stable").tolist()
    return tuple(
        ComparedClip(
            int(about.number[place]),
            str(about.video_id[place]),
            task.title(about.label[place]),
            float(a[place]),
            float(b[place]),
        )
        for place in order
    )
