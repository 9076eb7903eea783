"""A leaderboard as typed values: one line a head, and its table for a terminal."""

from dataclasses import dataclass
from typing import Any, Literal

from avel.heads.config import WeakLabels
from avel.heads.evaluation.paired import Difference, resolved_points
from avel.heads.models.head import Published
from avel.heads.tasks.results import Spread, interval_text
from avel.text import listed, plural, table


@dataclass(frozen=True)
class HeadLine:
    """One head: percent on the test split, at each seed's best validation epoch; spreads are over seeds.

    Attributes:
        source: the publication that the head comes from.
        inputs: features that it read.
        weak_labels: what it learned from under weak supervision; None under full.
        selected_by: the labels that chose its epochs on validation, of segments or of whole videos.
        accuracy_percent: without a mean where a segment may have several labels; both F1 are then Type@AV.
        interval_percent: 95 % bootstrap interval of the score over videos.
        holding_background_percent: accuracy on the clips that hold background.
        best_test_epoch_percent: test accuracy where the epoch is chosen by test, too high a figure.
        published: accuracy reported for it on AVE under this supervision; None where none is known.
        parameters: number of weights of the head on the features of this cache.
        epoch_seconds: training time of one epoch of a trial; None in runs that did not record it.
        differences: metric -> this head's minus the chosen head's; empty for that head itself.
    """

    head: str
    source: str
    inputs: str
    weak_labels: WeakLabels | None
    selected_by: Literal["segments", "videos"]
    run: str
    seeds: tuple[int, ...]
    accuracy_percent: Spread
    interval_percent: tuple[float, float] | None
    holding_background_percent: Spread
    segment_f1_percent: Spread
    event_f1_percent: Spread
    validation_percent: Spread
    best_test_epoch_percent: Spread
    published: Published | None
    parameters: int
    epoch_seconds: float | None
    differences: dict[str, Difference]

    @property
    def score_percent(self) -> Spread:
        """Returns the main metric of the task: accuracy, or the F1 of segments."""
        return self.segment_f1_percent if self.accuracy_percent.mean is None else self.accuracy_percent

    @property
    def difference(self) -> Difference | None:
        """Returns the difference in the task's main metric; None for the head that all are compared with."""
        return next(iter(self.differences.values()), None)


@dataclass(frozen=True)
class SkippedHead:
    """A head that is not on the board, and why."""

    head: str
    reason: str


@dataclass(frozen=True)
class Leaderboard:
    """Heads on one cache, the best first.

    Attributes:
        measure: main metric of the task, in words.
        against: the head that all are compared with.
        samples: number of test samples with known events.
        level: heads whose difference to `against` may be chance: 0 is within its interval.
        waiting: heads that are not trained yet, on a board that is written while others train.
        seconds: wall time of this call, which trains only what was missing.
        page: path of the HTML page; JSON and CSV of the same name lie beside it.
    """

    cache: str
    cache_digest: str
    supervision: str
    measure: str
    against: str
    samples: int
    trivial_baselines_percent: dict[str, float]
    heads: tuple[HeadLine, ...]
    level: tuple[str, ...]
    skipped: tuple[SkippedHead, ...]
    waiting: tuple[str, ...]
    seconds: float
    page: str

    def headline(self) -> str:
        """Returns the result in one line: the head that all are compared with, and those level with it."""
        line = next(each for each in self.heads if each.head == self.against)
        level = f"level with it: {listed(self.level)}" if self.level else "none is level with it"
        return (
            f"{plural(len(self.heads), 'head')}; {self.against}: test {self.measure} {line.score_percent} %; "
            f"{level}; page: {self.page}"
        )

    def lines(self) -> list[str]:
        """Returns the board for people."""
        header = (
            *("head", "seeds", "test", "95 % interval", "with background", "event F1", "best test epoch"),
            *("reported", "parameters", "s/epoch", f"- {self.against}"),
        )
        rows: list[tuple[Any, ...]] = [_row(line) for line in self.heads]
        rows += [
            (f"({name})", "", f"{value:.1f}", *[""] * (len(header) - 3))
            for name, value in self.trivial_baselines_percent.items()
        ]
        return [*table(header, rows), "", *self.notes(), ""]

    def notes(self) -> list[str]:
        """Returns notes: the heads that are level, those left out, and what the figures can tell."""
        notes = [
            f"epochs of {names} were chosen by labels of validation {kind}"
            for kind, names in self._by("selected_by")
        ]
        notes += [
            f"{names} learned from the videos' {kind}" for kind, names in self._by("weak_labels") if kind
        ]
        notes += [f"level with {self.against}: {', '.join(self.level) or 'none'}"]
        found = resolved_points(line.differences for line in self.heads)
        if found is not None:
            clips = f"{plural(self.samples, 'clip')} and these seeds"
            notes.append(f"{clips} resolve about {found:.1f} points of {self.measure}")
        needed = [
            f"{line.head} {line.difference.needed}"
            for line in self.heads
            if line.head in self.level and line.difference
        ]
        if needed:
            notes.append(f"to show the measured differences it takes: {'; '.join(needed)}")
        notes += [f"left out: {each.head}: {each.reason}" for each in self.skipped]
        if self.waiting:
            notes.append(f"not trained yet: {', '.join(self.waiting)}; the same command trains them")
        if any(line.published for line in self.heads):
            reported = (
                "reported: on AVE, mostly from other features and one seed, often at the best test epoch"
            )
            notes.append(f"{reported}; a figure with ? was not checked against the paper")
        return notes

    def _by(self, field: str) -> list[tuple[Any, str]]:
        """Returns each value of a field, and the heads that have it, or "all heads"."""
        values = dict.fromkeys(getattr(line, field) for line in self.heads)
        named = {
            value: ", ".join(line.head for line in self.heads if getattr(line, field) == value)
            for value in values
        }
        return list(named.items()) if len(named) > 1 else [(value, "all heads") for value in named]


def _row(line: HeadLine) -> tuple[Any, ...]:
    return (
        line.head,
        str(len(line.seeds)),
        line.score_percent,
        interval_text(line.interval_percent),
        line.holding_background_percent,
        line.event_f1_percent,
        line.best_test_epoch_percent,
        line.published or "",
        short(line.parameters),
        "" if line.epoch_seconds is None else f"{line.epoch_seconds:.2f}",
        line.difference or "",
    )


def short(count: int) -> str:
    """Returns a count in few digits.

    >>> short(1537870), short(46365)
    ('1.54 M', '46 k')
    """
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"
