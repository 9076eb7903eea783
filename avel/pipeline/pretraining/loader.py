"""Batches for AV-BT from a clip store: one random frame of each segment, read and decoded by threads.

Threads, because decoding and copying release the interpreter's lock: nothing is pickled, no frame is copied
from one process to another, and buffers are used again, not paged in for every batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.io import ImageReadMode

from avel.ahead import begin_ahead
from avel.device import decodes_jpeg
from avel.grid import MEL_BANDS, MEL_FRAMES
from avel.pipeline.pretraining.parallel import rank, world_size
from avel.stores.clips import ClipStore
from avel.stores.jpeg import decode_jpeg

AHEAD = 2
"""Batches that are read while one is being used."""
ORDER_STREAM, FRAME_STREAM = 1, 2
"""Last numbers of seeds, so that order and frames are drawn independently (and augmentations: augment.py)."""


@dataclass(frozen=True)
class Batch:
    """A batch; its tensors may be written over when the next one is asked for.

    Attributes:
        clips: places in the loader's list of videos.
        visual: uint8 frames (B, T, 3, H, W), or vectors of frozen CNNs (B, T, Dv).
        audio: log-mel patches (B, T, 96, 64), or vectors (B, T, Da).
        lengths: segments of each clip (B,), after which the rest is padding; None where all have T.
    """

    clips: list[int]
    visual: Tensor
    audio: Tensor
    lengths: Tensor | None = None


def lengths_of(lengths: Tensor | None, clips: list[int]) -> Tensor | None:
    """Returns the segments of some clips: (V,) -> (B,); None where all have T."""
    return None if lengths is None else lengths[clips]


def batches_of(clips: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Returns this process's clips of each step: over all processes every clip once, in a new order.

    Batches differ by one clip at most, so that the last one is no smaller than the others.
    """
    order = np.random.default_rng([seed, epoch, ORDER_STREAM]).permutation(clips)
    parts = np.array_split(order, steps_per_epoch(clips, batch_size))
    return [part[rank() :: world_size()].tolist() for part in parts]


def steps_per_epoch(clips: int, batch_size: int) -> int:
    """Returns how many steps come nearest to `batch_size` clips each; one at least."""
    return max(1, round(clips / batch_size))


def random_choices(seed: int, epoch: int, clip: int, segments: int, choices: int) -> list[int]:
    """Draws the frame that is taken of each segment in this epoch (Section 3.2.2)."""
    random = np.random.default_rng([seed, epoch, clip, FRAME_STREAM])
    return random.integers(0, choices, segments).tolist()  # type: ignore[no-any-return]


class Batches(ABC):
    """Source of batches, of every clip once an epoch; `clips` counts those of all processes."""

    clips: int
    batch_size: int

    @property
    def steps(self) -> int:
        """Counts the batches of an epoch."""
        return steps_per_epoch(self.clips, self.batch_size)

    @abstractmethod
    def epoch(self, number: int) -> Iterator[Batch]:
        """Yields the batches of epoch `number`."""

    def close(self) -> None:  # noqa: B027 - vectors in memory have nothing to end
        """Ends what is still being read."""


class ClipLoader(Batches):
    """Batches of frames and log-mel patches, read from a clip store.

    Args:
        device: where JPEG files are decoded, as `decode` says, and batches arrive.
        epochs: how many there will be; while one ends, the next is being read.
        lengths: (V,) segments of each video where these have lengths of their own.
    """

    def __init__(
        self,
        store: ClipStore,
        video_ids: Sequence[str],
        *,
        batch_size: int,
        seed: int = 0,
        workers: int = 2,
        device: torch.device | None = None,
        decode: Literal["auto", "gpu", "cpu"] = "auto",
        epochs: int = 0,
        lengths: Tensor | None = None,
    ) -> None:
        self.lengths = lengths
        self.store, self.video_ids, self.batch_size, self.seed = store, tuple(video_ids), batch_size, seed
        self.clips = len(self.video_ids)
        self.device = device or torch.device("cpu")
        self.workers, self.epochs = workers, epochs
        self.on_device = store.attributes.frame_codec == "jpeg" and decodes_jpeg(self.device, decode)
        self._side = torch.cuda.Stream(self.device) if self.on_device else None  # type: ignore[no-untyped-call]
        self._free: list[_Buffer] = []
        self._pending: Generator[_Pending] | None = None
        self._next_epoch = 0

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yields the batches of epoch `number`; at its end those of the next one, if any, are being read."""
        if self._pending is None or self._next_epoch != number:
            self.close()
            self._pending = self._read_from(number)
        try:
            for _ in range(self.steps):
                yield from self._finish(next(self._pending))
            self._next_epoch = number + 1
        finally:
            if self._next_epoch != number + 1 or self._next_epoch >= self.epochs:
                self.close()

    def close(self) -> None:
        """Ends the reading of batches that nobody has asked for."""
        if self._pending is not None:
            self._pending.close()
            self._pending = None

    def _read_from(self, first: int) -> Generator["_Pending"]:
        parts = (
            (epoch, clips)
            for epoch in range(first, max(self.epochs, first + 1))
            for clips in batches_of(self.clips, self.batch_size, self.seed, epoch)
        )
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                yield from begin_ahead(lambda part: self._submit(pool, *part), parts, AHEAD)
            finally:
                pool.shutdown(cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, epoch: int, clips: list[int]) -> "_Pending":
        buffer = self._buffer(len(clips))
        work = [
            pool.submit(self._read, clip, epoch, buffer.frames[place], buffer.log_mel[place])
            for place, clip in enumerate(clips)
        ]
        return _Pending(clips, buffer, work)

    def _read(self, clip: int, epoch: int, frames: Tensor, log_mel: Tensor) -> list[Tensor]:
        """Fills one clip's place in the buffers; JPEG files that the device will decode are handed back."""
        grid, video_id = self.store.grid, self.video_ids[clip]
        inside = random_choices(self.seed, epoch, clip, grid.segments, grid.frames_per_segment)
        wanted = [segment * grid.frames_per_segment + frame for segment, frame in enumerate(inside)]
        log_mel.copy_(torch.from_numpy(self.store.log_mel(video_id)))
        if self.store.attributes.frame_codec != "jpeg":
            frames.copy_(torch.from_numpy(self.store.frames(video_id, wanted)))
            return []
        files = self.store.jpegs(video_id, wanted)
        if self.on_device:
            return [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        for place, file in zip(frames.numpy(), files, strict=True):
            decode_jpeg(file, place)
        return []

    def _finish(self, pending: "_Pending") -> Iterator[Batch]:
        files = [file for work in pending.work for file in work.result()]
        buffer = pending.buffer
        if self._side is not None:
            decoded = self._decode(files, self._side)
            visual = decoded.reshape(len(pending.clips), -1, *decoded.shape[1:])
        else:
            visual = buffer.frames.to(self.device, non_blocking=True).permute(0, 1, 4, 2, 3)
        audio = buffer.log_mel.to(self.device, non_blocking=True)
        if self.device.type == "cuda":
            buffer.copied = torch.cuda.current_stream(self.device).record_event()
        yield Batch(pending.clips, visual, audio, lengths_of(self.lengths, pending.clips))
        self._free.append(buffer)

    def _decode(self, files: list[Tensor], side: torch.cuda.Stream) -> Tensor:
        """Decodes JPEG files on the device: n files -> uint8 (n, 3, H, W).

        torchvision's decoder writes from a stream of its own that waits for no other, so no other may still
        be using the memory it is given. The memory of `side`, which only this function uses, is no longer in
        use once the last batch has been stacked.
        """
        side.synchronize()
        with torch.cuda.stream(side):
            frames = torch.stack(torchvision.io.decode_jpeg(files, ImageReadMode.RGB, device=self.device))
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(side)
        frames.record_stream(current)
        return frames

    def _buffer(self, clips: int) -> "_Buffer":
        for buffer in self._free:
            if len(buffer.log_mel) == clips:
                self._free.remove(buffer)
                if buffer.copied is not None:
                    buffer.copied.synchronize()
                return buffer
        grid, pinned = self.store.grid, self.device.type == "cuda"
        size = 0 if self.on_device else grid.size
        frames = torch.empty(clips, grid.segments, size, size, 3, dtype=torch.uint8, pin_memory=pinned)
        log_mel = torch.empty(clips, grid.segments, MEL_FRAMES, MEL_BANDS, pin_memory=pinned)
        return _Buffer(frames, log_mel)


@dataclass(eq=False)
class _Buffer:
    """Host memory of one batch, frames (B, T, H, W, 3); `copied` says when a device has taken them."""

    frames: Tensor
    log_mel: Tensor
    copied: torch.cuda.Event | None = None


@dataclass(frozen=True)
class _Pending:
    """A batch that threads are reading into its buffer."""

    clips: list[int]
    buffer: _Buffer
    work: list[Future[list[Tensor]]]
