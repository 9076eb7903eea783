"""Draws one clip over time: frames, spectrogram, labels, predictions (Figure 8)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from avel.heads.tasks.task import Block
from avel.views.plots.style import BLUE, EMPTY, INK, MUTED, PAPER, VERMILLION, bare

LANE, STRIP, SOUND = 0.42, 1.0, 0.8
"""Relative heights of a lane of a bar, the frames, the spectrogram."""
WRONG = "#fbe3d6"
"""Fill of wrong segments, under their hatching."""
LETTERS_A_LINE = 84
"""Number of letters that fit into a bar of full width."""
COLOURS = {"label": INK, "right": BLUE, "prediction": BLUE, "wrong": WRONG, "background": EMPTY}
"""Kind of block -> its colour."""


@dataclass(frozen=True)
class Bar:
    """A bar of segments below the spectrogram, of labels or predictions; `Task.blocks` makes its blocks."""

    name: str
    blocks: tuple[Block, ...]

    @property
    def lanes(self) -> int:
        """Returns the number of lanes of its blocks, at least one."""
        return 1 + max((block.lane for block in self.blocks), default=0)


@dataclass(frozen=True)
class Clip:
    """Contents of the picture of one clip.

    Attributes:
        segments: T.
        frames: (n, H, W, C) uint8, evenly spaced over the clip, or None.
        log_mel: (T, 96, 64), or None.
        bars: labels first, then predictions.
    """

    title: str
    segments: int
    segment_seconds: float
    bars: tuple[Bar, ...]
    frames: NDArray[np.uint8] | None = None
    log_mel: NDArray[np.float32] | None = None


def draw_clip(fig: Figure | SubFigure, clip: Clip) -> list[Axes]:
    """Draws frames, spectrogram and the bars, all over the same seconds."""
    heights = [STRIP] * (clip.frames is not None) + [SOUND] * (clip.log_mel is not None)
    count = len(heights) + len(clip.bars)
    heights += [LANE * bar.lanes for bar in clip.bars]
    column = fig.subplots(count, 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    rest: list[Axes] = list(column)
    if clip.frames is not None:
        _strip(rest.pop(0), clip.frames, clip.segments * clip.segment_seconds / len(clip.frames))
    if clip.log_mel is not None:
        _sound(rest.pop(0), clip.log_mel, clip.segment_seconds)
    for axes, bar in zip(rest, clip.bars, strict=True):
        _bar(axes, bar, clip)
    seconds = clip.segments * clip.segment_seconds
    for axes in column:
        axes.set_xlim(0, seconds)
        axes.tick_params(bottom=False, labelbottom=False)
    last = column[-1]
    step = max(1, round(seconds / 10))
    last.set_xticks(np.arange(0, seconds + 1e-6, step))
    last.tick_params(bottom=False, labelbottom=True)
    last.set_xlabel("seconds")
    column[0].set_title(clip.title)
    if any(block.kind in ("right", "wrong") for bar in clip.bars for block in bar.blocks):
        legend(column[0])
    return list(column)


def _strip(axes: Axes, frames: NDArray[np.uint8], each_seconds: float) -> None:
    bare(axes)
    gap = 0.02 * each_seconds
    for number, frame in enumerate(frames):
        begin = number * each_seconds
        axes.imshow(frame, extent=(begin + gap, begin + each_seconds - gap, 0, 1), aspect="auto")
    axes.set_ylim(0, 1)
    _name(axes, "frames")


def _sound(axes: Axes, log_mel: NDArray[np.float32], segment_seconds: float) -> None:
    bare(axes)
    bands = log_mel.reshape(-1, log_mel.shape[-1]).T
    seconds = len(log_mel) * segment_seconds
    low, high = np.percentile(bands, (2, 99.8))
    axes.imshow(
        bands,
        extent=(0, seconds, 0, 1),
        aspect="auto",
        origin="lower",
        cmap="magma",
        vmin=low,
        vmax=max(high, low + 0.1),
        interpolation="bilinear",
    )
    axes.set_ylim(0, 1)
    _name(axes, "log-mel")


def _bar(axes: Axes, bar: Bar, clip: Clip) -> None:
    bare(axes)
    axes.set_ylim(bar.lanes, 0)
    seconds = clip.segments * clip.segment_seconds
    for block in bar.blocks:
        begin, width = block.first * clip.segment_seconds, (block.end - block.first) * clip.segment_seconds
        wrong = block.kind == "wrong"
        axes.add_patch(
            Rectangle(
                (begin, block.lane + 0.06),
                width,
                0.88,
                facecolor=COLOURS[block.kind],
                edgecolor=VERMILLION if wrong else PAPER,
                linewidth=1.2,
                hatch="////" if wrong else "",
            )
        )
        ink = VERMILLION if wrong else MUTED if block.kind == "background" else PAPER
        middle = (begin + width / 2, block.lane + 0.52)
        _fit(axes, block.text, middle, width, seconds, ink, boxed=wrong)
    _name(axes, bar.name)


def _fit(
    axes: Axes, text: str, middle: tuple[float, float], width: float, seconds: float, ink: str, *, boxed: bool
) -> None:
    """Writes text in the middle of its block: smaller, then shortened, where the block is too narrow."""
    room = LETTERS_A_LINE * width / seconds
    size = float(np.clip(8 * room / len(text), 6.5, 8))
    letters = max(int(room * 8 / size), 2)
    shown = text if len(text) <= letters else text[: letters - 1] + "…"
    box = {"facecolor": WRONG, "edgecolor": "none", "boxstyle": "round,pad=0.25"} if boxed else None
    axes.text(*middle, shown, ha="center", va="center", color=ink, size=size, weight="bold", bbox=box)


def legend(axes: Axes) -> None:
    """Draws the legend of blue, hatching and grey at the upper right."""
    marks = [
        Rectangle((0, 0), 1, 1, facecolor=BLUE, label="right"),
        Rectangle((0, 0), 1, 1, facecolor=WRONG, edgecolor=VERMILLION, hatch="////", label="wrong"),
        Rectangle((0, 0), 1, 1, facecolor=EMPTY, label="background (bg)"),
    ]
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.2}
    axes.legend(handles=marks, ncols=3, fontsize=8, handlelength=1.4, columnspacing=1.2, **place)


def _name(axes: Axes, name: str) -> None:
    axes.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=6, color=INK)
