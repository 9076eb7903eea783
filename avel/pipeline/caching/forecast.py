"""Estimates what encoding clips takes on a CPU, in time and memory, before it begins."""

from __future__ import annotations

import time
from collections.abc import Sequence

from avel.ahead import reading_threads
from avel.errors import ConfigError
from avel.forecast import GB, USABLE, note_long, shortage
from avel.memory import free_memory_gb
from avel.pipeline.caching.encode import AHEAD, PartEncoder
from avel.text import duration, plural

LONG_CLIPS = 50
"""Fewer clips are encoded without measuring one first."""
IMAGE_BYTES = 2 * 4
"""Bytes of a number in an image: as float32, and once more in the layout that the CNN reads."""


def check_batch_fits(encoder: PartEncoder, clips: int) -> None:
    """Checks that batches, those read ahead and the one that is encoded, fit into memory.

    Raises:
        ConfigError: they do not.
    """
    config, grid, free = encoder.work.config, encoder.clips.grid, free_memory_gb() * GB
    batches = AHEAD + reading_threads(config.workers) + 1
    a_frame = 3 * (grid.size**2 * batches + encoder.crop_size**2 * IMAGE_BYTES)
    a_clip = grid.segments * len(encoder.frames) * a_frame
    batch = min(config.batch_size, clips)
    needs = shortage(f"encoding {plural(batch, 'clip')} at once", batch * a_clip, free)
    if needs:
        fitting = int(USABLE * free / a_clip)
        fewer = f"--batch-size {fitting}" if fitting else "a smaller --frames-per-segment"
        raise ConfigError(needs, hint=f"{fewer}, or fewer --workers")


def note_long_encoding(encoder: PartEncoder, names: Sequence[str]) -> None:
    """Says how long encoding clips takes on this CPU, as the first of them does, where that is long."""
    if len(names) < LONG_CLIPS:
        return
    seconds = 0.0
    for _ in range(2):  # the first time takes longer
        began = time.perf_counter()
        first = encoder.read((0, (names[0],)))
        if first.failures:
            return
        encoder.encode(first)
        seconds = time.perf_counter() - began
    note_long(
        seconds * len(names),
        f"{plural(len(names), 'clip')}, {duration(seconds)} each",
        "a smaller CNN or fewer --frames-per-segment take less; if ended, the same command goes on",
    )
