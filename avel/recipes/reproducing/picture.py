"""Draws a reproduced table: the paper's and the measured accuracy of each row, on one axis."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from avel.recipes.reproducing.measured import Measured
from avel.views.plots.style import BLUE, MUTED, QUIET, VERMILLION, figure, save


def draw_table(rows: Sequence[Measured], baselines: Mapping[str, float], title: str, out: Path) -> Path:
    """Draws one line for each row, accuracy in % to the right, with its std over seeds; returns `out`."""
    with figure(7.2, 1.3 + 0.28 * len(rows)) as fig:
        axes = fig.subplots()
        for place, row in enumerate(rows):
            if row.paper_percent is not None:
                axes.plot(row.paper_percent, place, "x", color=VERMILLION, markersize=6, zorder=3)
            mean, std = row.accuracy_percent.mean, row.accuracy_percent.std or 0.0
            if mean is not None:
                axes.errorbar(mean, place, xerr=std, fmt="o", color=BLUE, markersize=5, capsize=3, zorder=4)
                axes.annotate(
                    f"{mean:.1f}",
                    (mean, place),
                    (0, 5),
                    textcoords="offset points",
                    ha="center",
                    size=7,
                    color=BLUE,
                )
        lowest, highest = _ends(rows)
        axes.set_xlim(lowest, highest)
        inside = {name: value for name, value in baselines.items() if lowest < value < highest}
        for name, value in inside.items():
            axes.axvline(value, color=QUIET, linestyle=":", linewidth=1)
            axes.annotate(
                name,
                (value, 1),
                (-3, -2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="right",
                va="top",
                size=7,
                color=MUTED,
            )
        outside = [f"{name} {value:.1f}" for name, value in baselines.items() if name not in inside]
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(len(rows) - 0.4, -1.2)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel("test accuracy, % of segments" + "".join(f" ({text})" for text in outside))
        axes.set_title(title)
        axes.plot([], [], "o", color=BLUE, markersize=5, label="here")
        axes.plot([], [], "x", color=VERMILLION, markersize=6, label="paper, on AVE")
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.12 - 0.5 / len(rows)), ncols=2, fontsize=8)
    save(fig, out)
    return out


def _ends(rows: Sequence[Measured]) -> tuple[float, float]:
    """Returns the ends of the axis: all figures with their stds, and a margin."""
    ends = [row.paper_percent for row in rows if row.paper_percent is not None]
    for row in rows:
        mean, std = row.accuracy_percent.mean, row.accuracy_percent.std or 0.0
        if mean is not None:
            ends += [mean - std, mean + std]
    return min(ends) - 3, max(ends) + 3
