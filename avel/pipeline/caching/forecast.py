"""Estimates what encoding clips takes on a CPU, in time and memory, before it begins."""

import time
from collections.abc import Sequence
from functools import partial

import torch

from avel.ahead import reading_threads
from avel.errors import ConfigError
from avel.forecast import USABLE, largest_operation_bytes, note_long, shortage
from avel.memory import free_memory
from avel.pipeline.caching.encode import AHEAD, Clips, PartEncoder
from avel.pipeline.encoders.encoder import at_once
from avel.pipeline.encoders.folding import NORMS
from avel.text import duration, plural

LONG_CLIPS = 50
"""Fewer clips are encoded without measuring one first."""
AS_READ, AS_FLOATS = 2, 3
"""Copies of a batch's images that are held while they are prepared for the CNN. As bytes there are two:
cropped, and laid out channels last. As floats, where images are resized, there are three: resized along one
axis, along both, and laid out."""


def check_batch_fits(encoder: PartEncoder, names: Sequence[str]) -> None:
    """Checks that batches, those read ahead and the one that is encoded, fit into memory.

    Raises:
        ConfigError: they do not.
    """
    config, grid, free = encoder.work.config, encoder.store.grid, free_memory()
    batches = AHEAD + reading_threads(config.workers) + 1  # in `read_ahead`, and the one that is encoded
    first = encoder.read((0, tuple(names[:1])))
    if first.failures:
        return
    scale = grid.segments / (grid.segments if first.lengths is None else first.lengths[0])
    a_clip = sum(values.nbytes for values in first.inputs.values()) * scale * batches
    if "visual" in first.inputs:
        image, resized = 3 * encoder.crop_size**2, first.inputs["visual"].shape[-1] != encoder.crop_size
        floats = 4 * (AS_FLOATS * image + 3 * grid.size**2)
        a_clip += grid.segments * len(encoder.frames) * (floats if resized else AS_READ * image)
    batch, in_cnns = min(config.batch_size, len(names)), cnn_bytes(encoder, first)
    needs = shortage(f"encoding {plural(batch, 'clip')} at once", in_cnns + batch * a_clip, free)
    if needs:
        fitting = int((USABLE * free - in_cnns) / a_clip)
        fewer = f"--batch-size {fitting}" if fitting > 0 else "a smaller --frames-per-segment"
        raise ConfigError(needs, hint=f"{fewer}, or fewer --workers")


def cnn_bytes(encoder: PartEncoder, clips: Clips) -> int:
    """Returns the bytes that the CNNs take, whatever the batch: it goes through them in pieces.

    A CNN whose batch norms are folded keeps a second copy of its weights.
    """
    lengths = None if clips.lengths is None else torch.tensor(clips.lengths)
    given = encoder.prepared(clips.inputs, lengths=lengths)
    largest, weights = 0, 0
    for modality in encoder.modalities:
        one = given[modality][:1] if modality == "visual" else given[modality].flatten(0, 1)[:1]
        cnn = getattr(encoder.encoder, modality)
        run = partial(encoder.encoder.run, modality, one)
        with torch.inference_mode():
            operation = largest_operation_bytes(run, [*cnn.parameters(), *cnn.buffers()])
        largest = max(largest, at_once(modality, one) * operation)
        if any(isinstance(module, NORMS) for module in cnn.modules()):
            weights += sum(weight.nbytes for weight in cnn.parameters())
    return largest + weights


def note_long_encoding(encoder: PartEncoder, names: Sequence[str]) -> None:
    """Says how long encoding clips takes on this CPU, where that is long; measured on the first of them."""
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
    lengths = encoder.store.lengths
    if first.lengths is not None and lengths is not None:  # the first may be shorter than most
        seconds *= sum(lengths[name] for name in names) / len(names) / first.lengths[0]
    note_long(
        seconds * len(names),
        f"{plural(len(names), 'clip')}, {duration(seconds)} each",
        "a smaller CNN or fewer --frames-per-segment take less; if ended, the same command goes on",
    )
