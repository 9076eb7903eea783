"""A clip store with known contents, for tests: noise frames with a brightness of their own, noise log-mel."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from avel.grid import Grid
from avel.stores.clip_layout import StoreAttributes
from avel.stores.clip_writer import ClipWriter, flush, prepare_store, write_dataset
from avel.stores.clips import ClipStore
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.sample import Event, Sample, Samples, Video, Videos
from avel.stores.location import locate
from avel.stores.manifest import Entry, ManifestWriter

GRID = Grid(segments=10, fps=4, size=32)


def jpeg(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def pictures(clip: int, *, still: bool = False, grid: Grid = GRID) -> np.ndarray:
    """Frame k of clip c is noise around a brightness that only it has: uint8 (frames, H, W, 3)."""
    random = np.random.default_rng(clip)
    level = (np.arange(grid.frames) * 5 + clip * 3) % 200 if not still else np.full(grid.frames, 90)
    noise = random.integers(0, 20, (grid.frames, grid.size, grid.size, 3))
    return (level[:, None, None, None] + (noise[:1] if still else noise)).astype(np.uint8)


def make_store(
    path: Path,
    clips: int = 8,
    *,
    still: bool = False,
    splits: bool = True,
    frame_codec: str = "jpeg",
    lengths: Sequence[int] = (),
    after: int = 0,
) -> ClipStore:
    """`clips` staged videos c0, c1, ...; every fourth sample is val, the rest train; two classes.

    With `lengths` each clip has a length of its own, after which its content is another one for each `after`.
    """
    ids = tuple(f"c{clip}" for clip in range(clips))
    samples = tuple(
        Sample(
            clip,
            ids[clip],
            (Event(("Bark", "Bell")[clip % 2], 2, 8),),
            split="val" if clip % 4 == 3 else "train",
        )
        for clip in range(clips)
        if splits
    )
    location = locate(path)
    attributes = StoreAttributes(GRID, {"size": GRID.size}, "digest0", frame_codec, len(ids))
    prepare_store(location, attributes, ids)
    categories = ("Bark", "Bell") if splits else ()
    longest = float(max(lengths)) if lengths else None
    videos = tuple(Video(i, f"{i}.mp4") for i in ids)
    write_dataset(
        location,
        Dataset("test", "clips", categories, Samples.of(samples), Videos.of(videos), longest_seconds=longest),
    )
    writer = ClipWriter(location, attributes.digest)
    for clip in range(clips):
        random = np.random.default_rng(1000 + clip)
        noise = random.standard_normal((GRID.segments, 96, 64)).astype(np.float32)
        shown = pictures(clip, still=still)
        if lengths:
            noise[lengths[clip] :] += after
            shown[lengths[clip] * GRID.frames_per_segment :] += np.uint8(20 * after)
        writer.write("log_mel", clip, 0, np.full_like(noise, np.log(0.01)) if still else noise)
        writer.write(
            "frames", clip, 0, shown if frame_codec == "raw" else [jpeg(picture) for picture in shown]
        )
        flush(location, attributes, clip)
    entries = [
        Entry(
            name,
            row,
            "staged",
            settings=attributes.digest,
            valid_seconds=float(lengths[row]) if lengths else 0.0,
        )
        for row, name in enumerate(ids)
    ]
    ManifestWriter(location).append(entries)
    return ClipStore.open(path)
