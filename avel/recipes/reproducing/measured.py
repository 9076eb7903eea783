"""Results of a reproduced table, and pairs of rows whose order differs from the paper's."""

from dataclasses import dataclass, field
from typing import Any

from avel.heads.evaluation.paired import (
    WOULD_SHOW,
    WOULD_SHOW_NOTE,
    Difference,
    difference_cells,
    resolved_points,
)
from avel.heads.tasks.results import Spread
from avel.recipes.reproducing.tables import AGAINST, TITLES
from avel.text import plural
from avel.text import table as as_table


@dataclass(frozen=True)
class Measured:
    """One row of a reproduced table; accuracies in % of the test segments, at the best validation epoch.

    Attributes:
        paper_percent: the paper's figure, on AVE; None where it has none.
        accuracy_percent: mean and standard deviation over seeds.
        holding_background_percent: the same over the clips that hold background.
        event_f1_percent: F1 over whole events, onset and offset at most one segment off.
        differences: metric -> this row's minus that of the row all are compared with; empty for that row.
        validation_percent: validation accuracy at the epoch that was chosen by it.
        best_test_epoch_percent: test accuracy where the epoch is chosen by test, too high a figure.
    """

    name: str
    paper_percent: float | None
    accuracy_percent: Spread = field(default_factory=Spread)
    holding_background_percent: Spread = field(default_factory=Spread)
    event_f1_percent: Spread = field(default_factory=Spread)
    validation_percent: Spread = field(default_factory=Spread)
    best_test_epoch_percent: Spread = field(default_factory=Spread)
    differences: dict[str, Difference] = field(default_factory=dict)


@dataclass(frozen=True)
class Reproduced:
    """A table of the paper on other clips.

    Attributes:
        trivial_baselines_percent: rule without a model -> its accuracy on this test split.
        reversed_order: pairs of rows whose order is not the paper's: (better here, better in the paper).
        notes: how rows differ from the paper's, and which setting changes that.
        seconds: wall time of this call, which trains only what was missing.
        picture: path of the chart of the table.
    """

    table: str
    seeds: int
    rows: tuple[Measured, ...]
    trivial_baselines_percent: dict[str, float]
    reversed_order: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    seconds: float
    picture: str

    def lines(self) -> list[str]:
        """Returns the table for people."""
        against = AGAINST[self.table]
        header = (
            *("", "paper, AVE", "here", "clips holding background", "event F1", "best test epoch"),
            *(f"here - {against}, 95 %", WOULD_SHOW),
        )
        rows: list[tuple[Any, ...]] = [
            (
                row.name,
                Spread(row.paper_percent),
                row.accuracy_percent,
                row.holding_background_percent,
                row.event_f1_percent,
                row.best_test_epoch_percent,
                *difference_cells(row.differences.get("accuracy")),
            )
            for row in self.rows
        ]
        baselines = [
            (f"trivial baseline: {name}", "", f"{value:.1f}", *[""] * 5)
            for name, value in self.trivial_baselines_percent.items()
        ]
        order = ["order of the paper: held"]
        if self.reversed_order:
            pairs = [f"  {better} > {worse}" for better, worse in self.reversed_order]
            order = ["not in the order of the paper:", *pairs]
        shown = as_table(header, [*rows, *baselines])
        return [TITLES[self.table], "", *shown, "", *self._resolution(), *self.notes, *order, ""]

    def _resolution(self) -> list[str]:
        """Says which differences these clips and seeds can show, beside those that the paper reports."""
        resolved = resolved_points([row.differences for row in self.rows])
        if resolved is None:
            return []
        told = f"these clips and seeds resolve about {resolved:.1f} points"
        paper = {row.name: row.paper_percent for row in self.rows if row.paper_percent is not None}
        own = paper.pop(AGAINST[self.table], None)
        gaps = [abs(each - own) for each in paper.values()] if own is not None else []
        if gaps:
            told += (
                f"; the paper's differences to {AGAINST[self.table]} are {min(gaps):.1f} to {max(gaps):.1f}"
            )
        return [told, WOULD_SHOW_NOTE]

    def headline(self) -> str:
        """Returns the result in one line."""
        return f"{self.table}: {plural(len(self.rows), 'row')}, {plural(self.seeds, 'seed')}; {self.picture}"


def reversed_order(rows: tuple[Measured, ...]) -> tuple[tuple[str, str], ...]:
    """Lists pairs (better here, better in the paper) of rows that both have figures."""
    both = [
        (row.name, row.paper_percent, row.accuracy_percent.mean)
        for row in rows
        if row.paper_percent is not None
    ]
    return tuple(
        (a, b)
        for a, paper_a, here_a in both
        for b, paper_b, here_b in both
        if here_a is not None and here_b is not None and here_a > here_b and paper_a < paper_b
    )
