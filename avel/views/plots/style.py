"""Style of all pictures: colours, fonts, file formats.

The colours are those of Okabe and Ito, *Color Universal Design*, 2008, for every common colour blindness.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from avel.errors import ConfigError
from avel.stores.files import atomic_path, check_can_write

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
"""Colours of runs and classes, in order; yellow is left out, because it is too light for lines on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Shapes that go with SERIES, for readers without colours."""
INK, MUTED, RULE, PAPER = "#1b1b1b", "#5f6368", "#d0d4d9", "#ffffff"
EMPTY = "#e8eaed"
"""Background segments."""
QUIET = "#7d8fa0"
"""Bars of the runs beside the main one."""
FAINT = "#c3c8ce"
"""Points of classes that are not shown in colour."""

PICTURE_ENDINGS = (".png", ".svg", ".pdf")
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.facecolor": PAPER,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "pdf.fonttype": 42,  # fonts as text that a journal accepts and a reader can search
    "svg.fonttype": "none",
    "svg.hashsalt": "avel",  # the same picture is the same file
}


@contextmanager
def figure(width_inches: float, height_inches: float) -> Iterator[Figure]:
    """Makes an empty figure in avel's style, drawn without a display."""
    with rc_context(STYLE):
        fig = Figure(figsize=(width_inches, height_inches), layout="constrained")
        FigureCanvasAgg(fig)
        yield fig


def picture_path(out: Path | str) -> Path:
    """Returns `out` as a path, its ending checked.

    Raises:
        ConfigError: an ending that is none of .png, .svg, .pdf.
        WriteError: the place cannot be written.
    """
    path = Path(out)
    if path.suffix.lower() not in PICTURE_ENDINGS:
        raise ConfigError(
            f"{path}: a picture ends in {', '.join(PICTURE_ENDINGS)}", hint=f"--out {path.stem}.png"
        )
    check_can_write(path)
    return path


def save(fig: Figure, out: Path) -> None:
    """Writes the figure to `out`, whole or not at all; PNG at 200 dots per inch."""
    kind = out.suffix.lower().removeprefix(".")
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    with atomic_path(out) as partial, rc_context(STYLE):
        fig.savefig(partial, format=kind, dpi=200, metadata=undated)


def bare(axes: Axes) -> None:
    """Removes frame and ticks, for pictures and bars of segments."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
