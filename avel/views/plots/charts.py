"""Draws charts of runs: confusion matrix (Figure 5), learning curves, sweep (Figure 6), t-SNE (Figure 7)."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from avel.heads.tasks.results import Spread
from avel.views.embedding import Embedding
from avel.views.plots.style import BLUE, FAINT, INK, MARKERS, MUTED, QUIET, RULE, SERIES
from avel.views.series import Curve, Sweep

FRACTIONS = LinearSegmentedColormap.from_list(
    "fractions", ["#ffffff", "#cfe3f2", "#56a3d0", "#0072B2", "#00304d"]
)
"""White to dark blue; lightness falls evenly, so that it also works in grey."""
LETTERS_A_COLUMN = 28
"""A sweep's legend has two columns if no name has more letters than this, else one."""


def draw_confusion(fig: Figure, counts: NDArray[np.int64], names: Sequence[str]) -> None:
    """Draws counts (K, K): rows are labels, columns predictions, colour the fraction of the row."""
    fig.set_layout_engine("compressed")  # for square cells "constrained" may cut off the labels at the left
    axes = fig.subplots()
    total = counts.sum(1, keepdims=True)
    fraction = counts / np.maximum(total, 1)
    image = axes.imshow(fraction, cmap=FRACTIONS, vmin=0, vmax=1, interpolation="nearest")
    ticks = range(len(names))
    labels = [f"{name} ({count})" for name, count in zip(names, total[:, 0], strict=True)]
    axes.set_yticks(ticks, labels)
    axes.set_xticks(
        ticks, names, rotation=90 if len(names) > 8 else 30, ha="center" if len(names) > 8 else "right"
    )
    axes.tick_params(length=0, labelsize=8 if len(names) <= 16 else 6)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label (segments)")
    for edge in np.arange(len(names) + 1) - 0.5:
        axes.axhline(edge, color=RULE, linewidth=0.3)
        axes.axvline(edge, color=RULE, linewidth=0.3)
    size = 7 if len(names) <= 16 else 4
    for label, predicted in np.argwhere(counts > 0):
        ink = "white" if fraction[label, predicted] > 0.55 else INK
        axes.text(
            predicted, label, f"{counts[label, predicted]}", ha="center", va="center", size=size, color=ink
        )
    bar = fig.colorbar(image, ax=axes, shrink=0.6, aspect=30, label="fraction of the label's segments")
    bar.outline.set_visible(False)


def draw_curves(fig: Figure, panels: Mapping[str, Sequence[Curve]]) -> None:
    """Draws a panel for each quantity, with a line for each trial, over epochs."""
    row = fig.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        for number, curve in enumerate(curves):
            colour = SERIES[number % len(SERIES)]
            axes.plot(curve.epoch, curve.value, color=colour, label=curve.name, alpha=0.9, linewidth=1.2)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="y")
    if 1 < len(row[-1].lines) <= 10:
        row[-1].legend(fontsize=7, ncols=2 if len(row[-1].lines) > 5 else 1)


def draw_sweep(fig: Figure, sweep: Sweep) -> None:
    """Draws the score in % over a setting: mean and std over seeds, each seed a dot; writes the best mean."""
    axes = fig.subplots()
    best = max(spread.mean or 0 for line in sweep.lines for spread in line.spreads)
    gap = min(0.06, 0.8 / len(sweep.lines))
    for number, line in enumerate(sweep.lines):
        offset = gap * (number - (len(sweep.lines) - 1) / 2)  # so that no line hides another
        places = np.array(line.place) + offset
        colour = SERIES[number % len(SERIES)]
        axes.errorbar(
            places,
            [spread.mean or 0 for spread in line.spreads],
            [spread.std or 0 for spread in line.spreads],
            label=line.name,
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            markersize=5,
            linestyle="-" if sweep.ordered else "none",
            elinewidth=1,
            capsize=3,
        )
        for place, values, spread in zip(places, line.score_percent, line.spreads, strict=True):
            axes.plot([place] * len(values), values, ".", color=MUTED, markersize=3, zorder=1)
            if spread.mean == best and not axes.texts:
                look: dict[str, Any] = {"textcoords": "offset points", "weight": "bold", "color": colour}
                axes.annotate(f"{best:.1f}", (place, best), xytext=(6, 5), **look)
    turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    crowded = len("".join(sweep.values)) > 7 * len(sweep.values)
    axes.set_xticks(range(len(sweep.values)), sweep.values, **(turned if crowded else {}))
    axes.set_xlabel(textwrap.fill(f"{sweep.label}: {sweep.help}", 60))
    axes.set_ylabel(f"{sweep.split} {sweep.measure}, %")
    axes.margins(x=0.15, y=0.1)
    axes.grid(axis="y")
    if len(sweep.lines) > 1:
        handles, names = axes.get_legend_handles_labels()
        columns = 1 if max(map(len, names)) > LETTERS_A_COLUMN else 2
        names = [textwrap.fill(name, 2 * LETTERS_A_COLUMN) for name in names]
        fig.legend(handles, names, loc="outside upper center", fontsize=7, ncols=columns)


def draw_clouds(fig: Figure, embedding: Embedding, names: Sequence[str], shown: Sequence[int]) -> None:
    """Draws t-SNE panels side by side: the `shown` classes in colour and shape, all others grey.

    The last of the names is background's.
    """
    row = fig.subplots(1, len(embedding.points), squeeze=False)[0]
    classes = embedding.classes
    rest = ~np.isin(classes, shown)
    others = names[-1] if (classes[rest] == len(names) - 1).all() else "other"
    for axes, (title, points) in zip(row, embedding.points.items(), strict=True):
        x, y = points.T
        if rest.any():
            axes.scatter(x[rest], y[rest], s=5, color=FAINT, linewidth=0, label=others, rasterized=True)
        for number, chosen in enumerate(shown):
            own = classes == chosen
            look = {"color": SERIES[number % len(SERIES)], "marker": MARKERS[number % len(MARKERS)]}
            axes.scatter(x[own], y[own], s=11, linewidth=0.25, edgecolor="white", label=names[chosen], **look)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(visible=True, color=RULE)
    handles, labels = row[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), markerscale=1.6)


def draw_accuracy(
    axes: Axes, names: Sequence[str], accuracy: Sequence[NDArray[np.float64]], lines: dict[str, float]
) -> None:
    """Draws a bar for each run with its std over seeds, and `lines` across; accuracies in [0, 1]."""
    place = np.arange(len(names))[::-1]
    spreads = [Spread.of_fractions(values) for values in accuracy]
    axes.barh(
        place,
        [spread.mean or 0 for spread in spreads],
        height=0.62,
        color=[*([QUIET] * (len(names) - 1)), BLUE],
        xerr=[spread.std or 0 for spread in spreads],
        error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 2},
    )
    for y, spread in zip(place, spreads, strict=True):
        axes.text(1.5, y, str(spread), va="center", color="white", weight="bold")
    for number, (name, value) in enumerate(lines.items()):
        axes.axvline(
            100 * value,
            color=INK,
            linestyle=("--", ":")[number % 2],
            linewidth=1.2,
            label=f"{name} {100 * value:.1f}",
        )
    axes.set_yticks(place, names)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 100)
    axes.set_xlabel("right segments on test, %")
