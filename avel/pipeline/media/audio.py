"""Sound stream -> the grid's samples: mono, at the grid's rate, each where its presentation time says."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from avel.grid import CHUNK_SEGMENTS, Grid
from avel.pipeline.media.container import FAULTS
from avel.pipeline.media.sample_clock import DRIFT_SECONDS, GAP_SECONDS, SampleClock
from avel.pipeline.media.scan import Track, packets, with_drain

BLOCK_SAMPLES = 16384
"""Samples resampled at once."""

FULL_SCALE = 32768.0


class AudioReader:
    """Reads one sound stream onto the grid; afterwards its attributes tell how that went.

    Attributes:
        decoded: stretches of sound that were decoded.
        errors: packets that were not.
        unmixed: blocks that cannot be mixed to mono, as those of ambisonic sound.
        heard: whether any of it lies on the grid.
        gaps: seconds of each silence where the time stamps leap ahead.
        overlaps: seconds of each piece left out where they leap back.
        jitter_seconds: the furthest that a time stamp was off without being followed.
    """

    def __init__(self, path: Path, track: Track, grid: Grid, origin: Fraction) -> None:
        self._path, self._track, self._grid, self._origin = path, track, grid, float(origin)
        self.decoded = self.errors = self.unmixed = 0
        self.heard = False
        self.gaps: list[float] = []
        self.overlaps: list[float] = []
        self.jitter_seconds = 0.0

    def samples(self) -> Iterator[NDArray[np.float32]]:
        """Chunks (n,) in [-1, 1] of at most ten segments, `grid.samples` in all, silence where none is."""
        self.unmixed, self.heard, self.jitter_seconds = 0, False, 0.0
        self.gaps, self.overlaps = [], []
        total = self._grid.samples
        step = CHUNK_SEGMENTS * self._grid.samples_per_segment
        chunk = np.zeros(min(step, total), np.float32)
        first = 0  # sample of the chunk's start
        for position, piece in self._placed():
            while position + len(piece) > first and first < total:
                begin = max(position - first, 0)
                if begin < len(chunk):
                    part = piece[max(first - position, 0) :][: len(chunk) - begin]
                    chunk[begin : begin + len(part)] = part
                    self.heard = True
                if position + len(piece) < first + len(chunk):
                    break
                yield chunk
                first += len(chunk)
                chunk = np.zeros(min(step, total - first), np.float32)
        while first < total:
            yield chunk
            first += len(chunk)
            chunk = np.zeros(min(step, total - first), np.float32)

    def _placed(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Pieces of sound with the sample of the grid at which each begins, never overlapping."""
        begin = end = None  # of what was handed over: where two runs overlap the earlier one stays
        for start, run in self._runs():
            if begin is None or end is None:
                begin = end = start
            elif end - begin > DRIFT_SECONDS * self._grid.hz:
                # a shorter beginning is AAC's priming, which MP4 without an edit list stamps apart: no gap
                self._note_leap(start, end)
            position = start
            for piece in run:
                late = max(end - position, 0)
                if late < len(piece):
                    yield position + late, piece[late:]
                position += len(piece)
                end = max(end, position)
                if position >= self._grid.samples:
                    return

    def _note_leap(self, start: int, end: int) -> None:
        """Notes what happens where one run ends at sample `end` and the next begins at sample `start`."""
        seconds = (min(start, self._grid.samples) - end) / self._grid.hz
        if seconds > GAP_SECONDS / 2:  # less is the rounding of a run to samples of the grid
            self.gaps.append(seconds)
        elif seconds < -GAP_SECONDS / 2:
            self.overlaps.append(-seconds)

    def _runs(self) -> Iterator[tuple[int, Iterator[NDArray[np.float32]]]]:
        """Stretches of sound without a gap: the first sample's place and the resampled pieces."""
        frames = self._frames()
        waiting = next(frames, None)
        while waiting is not None:
            start, run = waiting[0], _Run(waiting, frames, self._grid.hz, self._unmixable)
            yield round((start - self._origin) * self._grid.hz), run.pieces()
            waiting = run.rest()

    def _unmixable(self) -> None:
        self.unmixed += 1

    def _frames(self) -> Iterator[tuple[float, AudioFrame]]:
        """Decoded stretches of sound with the time of their first sample on the container's clock."""
        clock = SampleClock(self._stamped())
        for seconds, frame in clock.times():
            self.jitter_seconds = clock.jitter_seconds
            yield seconds, frame

    def _stamped(self) -> Iterator[tuple[float | None, AudioFrame]]:
        for frame in self._decode():
            self.decoded += 1
            pts = frame.pts if frame.pts is not None else frame.dts
            yield None if pts is None else pts * self._track.tick_seconds, frame

    def _decode(self) -> Iterator[AudioFrame]:
        self.decoded = self.errors = 0
        for packet, context in with_drain(packets(self._path, self._track)):
            try:
                yield from context.decode(packet)
            except FAULTS as error:
                self.errors += 1
                if isinstance(error, MemoryError):
                    raise


class _Run:
    """Resamples frames for as long as each begins where the last one ended and has the same form.

    It ends early at a block that cannot be resampled, says so by `unmixable`, and yields nothing of it.

    To 16-bit integers, because FFmpeg mixes stereo to 0.5 (L+R) there and to 0.707 (L+R) in float: VGGish's
    own pipelines read 16-bit wav files, and float would move the log-mel by 0.31.
    """

    def __init__(
        self,
        first: tuple[float, AudioFrame],
        frames: Iterator[tuple[float, AudioFrame]],
        hz: int,
        unmixable: Callable[[], None],
    ) -> None:
        self._next: tuple[float, AudioFrame] | None = first
        self._frames, self._unmixable = frames, unmixable
        self._failed = False
        self._blocks = AudioFifo()  # resampling frame by frame takes longer than decoding them
        self._resampler = AudioResampler(format="s16", layout="mono", rate=hz)

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Resampled sound (n,) in [-1, 1], until the run ends."""
        assert self._next is not None
        (start, first), count = self._next, 0
        form = _form(first)
        while self._next is not None and not self._failed:
            seconds, frame = self._next
            if _form(frame) != form or abs(seconds - start - count / form[2]) * form[2] > 1:
                break
            count += frame.samples
            frame.pts = None  # its place is kept here; FFmpeg must not stretch what is slightly off
            self._blocks.write(frame)
            if self._blocks.samples >= BLOCK_SAMPLES:
                yield from self._resampled(self._blocks.read())
            self._next = next(self._frames, None)
        if self._blocks.samples:
            yield from self._resampled(self._blocks.read())
        yield from self._resampled(None)

    def rest(self) -> tuple[float, AudioFrame] | None:
        """The frame that did not belong to this run."""
        return self._next

    def _resampled(self, block: AudioFrame | None) -> Iterator[NDArray[np.float32]]:
        if self._failed:
            return
        try:
            mixed = self._resampler.resample(block)
        except FAULTS as error:
            if isinstance(error, MemoryError):
                raise
            self._failed = True
            self._unmixable()
            return
        for piece in mixed:
            yield piece.to_ndarray()[0].astype(np.float32) / np.float32(FULL_SCALE)


def _form(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
