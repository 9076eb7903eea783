"""`avel preview`: draws a staged clip over time, with the events of its annotations."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avel.grid import evenly_spaced
from avel.heads.tasks.task import track_blocks
from avel.stores.clips import ClipStore
from avel.stores.datasets.labels import EventTable, class_segments
from avel.stores.datasets.sample import Event, Sample
from avel.views.plots.style import figure, picture_path, save
from avel.views.plots.timeline import Bar, Clip, draw_clip

MOST_FRAMES = 10
"""Most frames in the picture."""
MOST_BARS = 40
"""Most bars in the picture: hundreds take minutes to draw, and are more pixels than a PNG can have."""


def preview(store: ClipStore | Path | str, video_id: str, out: Path | str) -> Path:
    """Draws ten frames and the spectrogram of a staged clip, and a bar for each event; returns `out`.

    Of more than MOST_BARS events it draws the first ones; the title says how many there are.

    Raises:
        ConfigError: `out` does not end in .png, .svg or .pdf.
        StoreError: the clip is not staged.
        UnknownNameError: the store has no such video.
    """
    path = picture_path(out)
    clip = staged_clip(store if isinstance(store, ClipStore) else ClipStore.open(store), video_id)
    with figure(13, 3.5 + 0.5 * len(clip.bars)) as fig:
        draw_clip(fig, clip)
    save(fig, path)
    return path


def staged_clip(store: ClipStore, video_id: str) -> Clip:
    """Returns a clip of a store with a bar for each event of its samples, MOST_BARS at most.

    Raises:
        StoreError: the clip is not staged.
        UnknownNameError: the store has no such video.
    """
    patches, entry, grid = store.log_mel(video_id), store.entries[video_id], store.grid
    segments = grid.segments if store.lengths is None else store.lengths[video_id]
    seconds, per_segment = grid.segment_seconds, grid.frames_per_segment
    padded = segments * seconds - entry.valid_seconds
    samples = [sample for sample in store.dataset.samples if sample.video_id == video_id]
    events = [(sample, event) for sample in samples for event in sample.events or (None,)]
    notes = [
        f"{padded:.2f} s padded" if padded > 0.01 else "",
        "no audio in the file" if entry.audio == "silence" else "",
        entry.detail,
        "" if samples else "no labels",
        f"the first {MOST_BARS} of {len(events):,} events" if len(events) > MOST_BARS else "",
    ]
    shown = evenly_spaced(segments, MOST_FRAMES)
    return Clip(
        title="  ·  ".join([video_id, *filter(None, notes)]),
        segments=segments,
        segment_seconds=seconds,
        bars=tuple(_bar(sample, event, segments, seconds) for sample, event in events[:MOST_BARS]),
        frames=store.frames(video_id, [segment * per_segment + per_segment // 2 for segment in shown]),
        log_mel=patches[:segments],
    )


def _bar(sample: Sample, event: Event | None, segments: int, segment_seconds: float) -> Bar:
    """Returns the bar of an event, named as the annotations say; an empty one for a sample without events."""
    split = f" ({sample.split})" if sample.split else ""
    if event is None:
        return Bar(f"{'no event' if sample.events is not None else 'events unknown'}{split}", ())
    only = "" if event.modality == "both" else f"{event.modality}, "
    name = f"{event.category}{split}\n{only}{event.onset_seconds:g}-{event.offset_seconds:g} s"
    classes = [(0,) if covered else () for covered in _covers(event, segments, segment_seconds)]
    return Bar(name, track_blocks((event.category,), classes, None, "label"))


def _covers(event: Event, segments: int, segment_seconds: float) -> NDArray[np.bool_]:
    """Returns True for the segments that get the event as their label: (T,)."""
    onset, offset = np.array([[event.onset_seconds], [event.offset_seconds]])
    zero = np.zeros(1, np.int64)  # one event, in sample 0, of class 0, in both modalities
    _, _, covered = class_segments(EventTable(zero, zero, onset, offset, zero), segments, segment_seconds)
    return np.asarray(covered[0])
