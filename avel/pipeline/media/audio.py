"""Reads an audio stream onto the grid: mono, at the grid's rate, each sample at its presentation time."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from avel.grid import CHUNK_SEGMENTS, FULL_SCALE, Grid
from avel.pipeline.media.container import FAULTS
from avel.pipeline.media.sample_clock import DRIFT_SECONDS, GAP_SECONDS, SampleClock
from avel.pipeline.media.scan import ScannedStream, to_decode

BLOCK_SAMPLES = 16384
"""Least number of samples that are resampled at once."""

MOST_TRIED_PACKETS = 64
"""Packets of which one must decode, where a file has several audio streams to choose from."""


class AudioReader:
    """Reads one audio stream onto the grid, once. The attributes hold when `samples` is exhausted.

    Attributes:
        errors: number of packets that could not be decoded.
        unmixed: number of blocks that could not be mixed to mono, for example of ambisonic audio.
        has_audio: some of the audio lies on the grid.
        gaps: begin and end of each silence where time stamps leap ahead, in seconds after the origin.
        overlaps: seconds of each piece left out where time stamps leap back.
        jitter_seconds: the most that a time stamp was off without moving the audio.
        end_seconds: where the last decoded audio ends, in seconds after the origin.
    """

    def __init__(self, path: Path, stream: ScannedStream, grid: Grid, origin: Fraction) -> None:
        self._path, self._stream, self._grid, self._origin = path, stream, grid, float(origin)
        self.errors = self.unmixed = 0
        self.has_audio = False
        self.gaps: list[tuple[float, float]] = []
        self.overlaps: list[float] = []
        self.jitter_seconds = self.end_seconds = 0.0

    def faults(self) -> Iterator[str]:
        """Yields what could not be decoded, and which time stamps leap or jitter."""
        if self.errors:
            yield f"audio packets not decoded: {self.errors}"
        if self.unmixed:
            yield f"blocks of audio not mixed to mono: {self.unmixed}"
        if self.gaps:
            seconds, begin, end = max((end - begin, begin, end) for begin, end in self.gaps)
            silence = sum(end - begin for begin, end in self.gaps)
            is_long = seconds > self._grid.segment_seconds
            where = f", the longest from {begin:.2f} s to {end:.2f} s" if is_long else ""
            yield f"gaps in the audio: {len(self.gaps)}, {silence:.2f} s of silence{where}"
        if self.overlaps:
            yield f"overlaps in the audio: {len(self.overlaps)}, {sum(self.overlaps):.2f} s left out"
        if self.jitter_seconds > GAP_SECONDS:
            yield f"the audio's time stamps jitter by up to {self.jitter_seconds * 1000:.0f} ms: not followed"

    def zeros_begin_seconds(self) -> float:
        """Returns from where on all packets hold nothing but zeros, in seconds after the origin.

        Such packets are silence in some codecs. They also fill a file whose end was never written.
        """
        end = float(self._stream.end_seconds) - self._origin
        for packet in reversed(self._stream.packets or []):
            if any(bytes(packet)) or packet.pts is None:
                break
            end = packet.pts * self._stream.tick_seconds - self._origin
        return end

    def samples(self) -> Iterator[NDArray[np.float32]]:
        """Yields chunks (n,) in [-1, 1] of at most ten segments, `grid.samples` in all; gaps are silent."""
        total = self._grid.samples
        step = CHUNK_SEGMENTS * self._grid.samples_per_segment
        chunk = np.zeros(min(step, total), np.float32)
        first = 0  # the chunk's first sample on the grid
        # the empty piece at the end makes the loop yield all chunks that are left, even without audio
        for position, piece in chain(self._placed(), [(total, np.empty(0, np.float32))]):
            while position + len(piece) > first and first < total:
                begin = max(position - first, 0)
                if begin < len(chunk):
                    part = piece[max(first - position, 0) :][: len(chunk) - begin]
                    chunk[begin : begin + len(part)] = part
                    self.has_audio = True
                if position + len(piece) < first + len(chunk):
                    break
                yield chunk
                first += len(chunk)
                chunk = np.zeros(min(step, total - first), np.float32)

    def _placed(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yields pieces of audio with their first sample on the grid; where two overlap, the first stays."""
        end: int | None = None  # of the last piece, on the grid
        decoded = 0  # samples of all pieces
        priming = DRIFT_SECONDS * self._grid.sample_rate
        for start, run in self._runs():
            if end is None:
                end = start
            elif decoded > priming or abs(start - end) > self._grid.samples_per_segment:
                # A leap of at most a segment within the first 0.15 s is no fault: in MP4 without an edit list
                # there is one after AAC's priming.
                self._note_leap(start, end)
            position = start
            for piece in run:
                decoded += len(piece)
                overlap = max(end - position, 0)
                if overlap < len(piece):
                    yield position + overlap, piece[overlap:]
                position += len(piece)
                end = max(end, position)
                if position >= self._grid.samples:
                    return

    def _note_leap(self, start: int, end: int) -> None:
        """Adds to `gaps` or `overlaps`, where one run ends at sample `end` and the next begins at `start`."""
        left, right = (sample / self._grid.sample_rate for sample in (end, min(start, self._grid.samples)))
        if right - left > GAP_SECONDS / 2:  # less comes from rounding a run to samples of the grid
            self.gaps.append((left, right))
        elif left - right > GAP_SECONDS / 2:
            self.overlaps.append(left - right)

    def _runs(self) -> Iterator[tuple[int, Iterator[NDArray[np.float32]]]]:
        """Yields runs of audio without a gap: the first sample on the grid, and the resampled pieces."""
        frames = self._frames()
        following = next(frames, None)
        while following is not None:
            start, run = following[0], _Run(following, frames, self._grid.sample_rate)
            yield round((start - self._origin) * self._grid.sample_rate), run.pieces()
            self.unmixed += run.failed
            following = run.following

    def _frames(self) -> Iterator[tuple[float, AudioFrame]]:
        """Yields decoded frames with the time of their first sample, in seconds on the container's clock."""
        clock = SampleClock(self._stamped())
        for seconds, frame in clock.times():
            self.jitter_seconds = clock.jitter_seconds
            end = seconds + frame.samples / frame.sample_rate - self._origin
            self.end_seconds = max(self.end_seconds, end)
            yield seconds, frame

    def _stamped(self) -> Iterator[tuple[float | None, AudioFrame]]:
        """Yields decoded frames with their time stamps in seconds, None where there is none."""
        for packet, context in to_decode(self._path, self._stream):
            try:
                frames = context.decode(packet)
            except MemoryError:
                raise
            except FAULTS:
                self.errors += 1
                continue
            for frame in frames:
                pts = frame.pts if frame.pts is not None else frame.dts
                yield None if pts is None else pts * self._stream.tick_seconds, frame


class _Run:
    """Resamples frames for as long as each begins where the last one ended and has the same format.

    It ends early at a block that cannot be resampled, and leaves that block out.

    It resamples to 16-bit integers, since VGGish's own pipelines read 16-bit wav files. To integers FFmpeg
    mixes stereo as 0.5 (L+R), but to float as 0.707 (L+R), which would move the log-mel by 0.31.

    Attributes:
        failed: whether it ended early.
        following: the first frame that does not belong to it, with its seconds.
    """

    def __init__(
        self,
        first: tuple[float, AudioFrame],
        frames: Iterator[tuple[float, AudioFrame]],
        sample_rate: int,
    ) -> None:
        self.following: tuple[float, AudioFrame] | None = first
        self._frames, self.failed = frames, False
        self._blocks = AudioFifo()  # resampling single frames would take longer than decoding them
        self._resampler = AudioResampler(format="s16", layout="mono", rate=sample_rate)

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Yields resampled audio (n,) in [-1, 1], until the run ends."""
        assert self.following is not None
        (start, first), count = self.following, 0
        format_ = _format(first)
        while self.following is not None and not self.failed:
            seconds, frame = self.following
            if _format(frame) != format_ or abs(seconds - start - count / format_[2]) * format_[2] > 1:
                break
            count += frame.samples
            frame.pts = None  # or FFmpeg would stretch audio whose time stamps are slightly off
            self._blocks.write(frame)
            if self._blocks.samples >= BLOCK_SAMPLES:
                yield from self._resampled(self._blocks.read())
            self.following = next(self._frames, None)
        if self._blocks.samples:
            yield from self._resampled(self._blocks.read())
        yield from self._resampled(None)

    def _resampled(self, block: AudioFrame | None) -> Iterator[NDArray[np.float32]]:
        """Yields the resampled block; None yields what the resampler still holds."""
        if self.failed:
            return
        try:
            mixed = self._resampler.resample(block)
        except MemoryError:
            raise
        except FAULTS:
            self.failed = True
            return
        for piece in mixed:
            yield piece.to_ndarray()[0].astype(np.float32) / np.float32(FULL_SCALE)


def as_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Converts samples to the int16 of a store, without loss if `AudioReader` made them: (n,) -> (n,)."""
    return (samples * FULL_SCALE).astype(np.int16)


def is_decodable(path: Path, stream: ScannedStream) -> bool:
    """Returns whether the first packets of a stream can be decoded, and mixed to mono."""
    for packet, context in islice(to_decode(path, stream), MOST_TRIED_PACKETS):
        try:
            for frame in context.decode(packet):
                AudioResampler(format="s16", layout="mono", rate=frame.sample_rate).resample(frame)
                return True
        except MemoryError:
            raise
        except FAULTS:
            continue
    return False


def _format(frame: AudioFrame) -> tuple[str, str, int]:
    """Returns sample format, channel layout and sample rate."""
    return frame.format.name, frame.layout.name, frame.sample_rate
