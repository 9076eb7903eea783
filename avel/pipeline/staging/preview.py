"""Draws one staged clip for `avel preview`: its frames, its log-mel patches and its labels."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avel.errors import StoreError
from avel.grid import MEL_BANDS, MEL_FRAMES, evenly_spaced
from avel.stores.clips import ClipStore
from avel.stores.datasets.labels import EventTable, class_segments
from avel.stores.datasets.sample import Event, Sample
from avel.stores.files import atomic_path, check_can_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLUMNS = 10
PATCH_STEP_SECONDS = 0.01
COLUMN_INCHES, DOTS_PER_INCH = 1.35, 110
EVENT_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
"""Colours of Okabe and Ito, which colour-blind people can tell apart."""
LABEL_BOX = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}


def preview(store: ClipStore | Path | str, video_id: str, out: Path | str) -> Path:
    """Draws a PNG: ten frames over ten spectrogram patches on one time axis, with the clip's labels below.

    Of a clip of more than ten segments it shows ten, evenly spaced.

    Raises:
        StoreError: the clip is not staged, or `out` does not end in .png.
        UnknownNameError: the store has no such video.
    """
    path = Path(out)
    if path.suffix.lower() != ".png":
        name = shlex.quote(str(path.with_suffix(".png")))
        raise StoreError(f"{path}: a preview is a PNG", hint=f"name it {name}")
    check_can_write(path)
    opened = store if isinstance(store, ClipStore) else ClipStore.open(store)
    figure = draw(opened, video_id)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=DOTS_PER_INCH)
    return path


def draw(store: ClipStore, video_id: str) -> "Figure":
    """Draws the preview as a matplotlib figure, without pyplot's global state."""
    from matplotlib.figure import Figure

    shown = evenly_spaced(store.grid.segments, MOST_COLUMNS)
    samples = [sample for sample in store.dataset.samples if sample.video_id == video_id]
    lanes = [(sample, event) for sample in samples for event in sample.events or (None,)]
    lanes_inches = 0.3 * max(len(lanes), 1)
    figure = Figure(figsize=(COLUMN_INCHES * len(shown) + 1.6, 3.85 + lanes_inches), layout="constrained")
    heights = [COLUMN_INCHES, COLUMN_INCHES, lanes_inches]
    frames, log_mel, events = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    _draw_frames(frames, store, video_id, shown)
    _draw_log_mel(log_mel, store, video_id, shown)
    _draw_events(events, store, lanes, shown)
    entry = store.entries[video_id]
    padded = store.grid.seconds - entry.valid_seconds
    notes = [f"{padded:.2f} s padded"] if padded > 0.01 else []
    notes += ["no audio in the file"] if entry.audio == "silence" else []
    notes += [entry.detail] if entry.detail else []
    figure.suptitle("  ·  ".join([video_id, *notes]), x=0.01, ha="left", fontsize=11, parse_math=False)
    return figure


def _draw_frames(axes: "Axes", store: ClipStore, video_id: str, shown: list[int]) -> None:
    """Draws the middle frame of each segment, side by side."""
    per_segment = store.grid.frames_per_segment
    pictures = store.frames(video_id, [segment * per_segment + per_segment // 2 for segment in shown])
    for column, picture in enumerate(pictures):
        axes.imshow(picture, extent=(column, column + 1, 0, 1), aspect="auto", interpolation="antialiased")
    axes.set(xlim=(0, len(shown)), ylim=(0, 1), yticks=[], ylabel="frames")
    _separate(axes, len(shown))


def _draw_log_mel(axes: "Axes", store: ClipStore, video_id: str, shown: list[int]) -> None:
    """Draws the patch of each segment, mel bands upwards, all on one colour scale."""
    patches: NDArray[Any] = store.log_mel(video_id)[shown]
    low, high = float(np.log(0.01)), max(float(patches.max()), 0.0)
    width = MEL_FRAMES * PATCH_STEP_SECONDS / store.grid.segment_seconds
    for column, patch in enumerate(patches):
        axes.imshow(
            patch.T,
            extent=(column, column + width, 0, MEL_BANDS),
            aspect="auto",
            origin="lower",
            cmap="magma",
            vmin=low,
            vmax=high,
        )
    axes.set(
        xlim=(0, len(shown)), ylim=(0, MEL_BANDS), yticks=[0, MEL_BANDS], yticklabels=["125 Hz", "7.5 kHz"]
    )
    axes.set_ylabel("log-mel")
    _separate(axes, len(shown))


def _draw_events(
    axes: "Axes", store: ClipStore, lanes: list[tuple[Sample, Event | None]], shown: list[int]
) -> None:
    """Draws a lane for each event of the video's samples, coloured where segments have its label."""
    for lane, (sample, event) in enumerate(lanes):
        split = f" ({sample.split})" if sample.split else ""
        axes.barh(lane, len(shown), left=0, height=0.8, color="#e8e8e8")
        if event is None:
            text = f"{'no event' if sample.events is not None else 'events unknown'}{split}"
        else:
            only = "" if event.modality == "both" else f", {event.modality}"
            text = f"{event.category}{split}{only}, {event.onset_seconds:g}-{event.offset_seconds:g} s"
            for column in np.flatnonzero(_has(event, store)[shown]).tolist():
                colour = EVENT_COLOURS[lane % len(EVENT_COLOURS)]
                axes.barh(lane, 1, left=column, height=0.8, color=colour)
        axes.text(0.1, lane, text, va="center", fontsize=8, parse_math=False, bbox=LABEL_BOX)
    if not lanes:
        axes.text(0.08, 0, "no labels", va="center", fontsize=8, color="#666666")
    axes.set(ylim=(max(len(lanes), 1) - 0.5, -0.5), yticks=[], ylabel="label", xlabel="seconds")
    _time_axis(axes, store, shown)


def _has(event: Event, store: ClipStore) -> NDArray[np.bool_]:
    """Returns True for the segments that the event has: (T,)."""
    onset, offset = np.array([[event.onset_seconds], [event.offset_seconds]])
    nothing = np.zeros(1, np.int64)
    table = EventTable(nothing, nothing, onset, offset, nothing)
    _, _, has = class_segments(table, store.grid.segments, store.grid.segment_seconds)
    return np.asarray(has[0])


def _time_axis(axes: "Axes", store: ClipStore, shown: list[int]) -> None:
    """Labels the borders of segments in seconds; the columns instead where segments are left out."""
    seconds = store.grid.segment_seconds
    if len(shown) == store.grid.segments:
        axes.set_xticks(range(len(shown) + 1), [f"{place * seconds:g}" for place in range(len(shown) + 1)])
    else:
        middles = [place + 0.5 for place in range(len(shown))]
        axes.set_xticks(middles, [f"{k * seconds:g}-{(k + 1) * seconds:g}" for k in shown], fontsize=7)


def _separate(axes: "Axes", columns: int) -> None:
    """Draws a white line between columns."""
    axes.vlines(range(1, columns), *axes.get_ylim(), color="white", linewidth=0.8)
    axes.tick_params(bottom=False)
