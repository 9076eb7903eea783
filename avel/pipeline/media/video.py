"""Reads a video stream onto the grid: slot k shows the last picture presented by k / fps."""

import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from heapq import heappop, heappush
from itertools import pairwise
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from avel.grid import Grid
from avel.pipeline.media.container import FAULTS
from avel.pipeline.media.picture import PictureScaler
from avel.pipeline.media.refusal import ClipRefused
from avel.pipeline.media.scan import ScannedStream, to_decode

SKIPPING = frozenset({"h264", "hevc"})
"""Codecs of which FFmpeg can skip unreferenced pictures; tests show that the pictures left stay bit-exact."""


class VideoReader:
    """Reads one video stream onto the grid, once.

    Attributes:
        decoded: number of decoded pictures.
        errors: number of packets that could not be decoded.
        corrupt: number of pictures that the decoder calls incomplete.
        scaler: makes frames of the pictures.
        scale_seconds: time spent on scaling.
    """

    def __init__(
        self, path: Path, stream: ScannedStream, grid: Grid, origin: Fraction, scaler: PictureScaler
    ) -> None:
        self._path, self._stream, self._grid, self.scaler = path, stream, grid, scaler
        self._origin = origin
        self._clock = Clock(stream.time_base, origin, grid.fps)
        all_timed = stream.timed and not stream.untimed
        self._can_skip = all_timed and not stream.steady and stream.av_stream.codec_context.name in SKIPPING
        self.decoded = self.errors = self.corrupt = 0
        self._frozen = 0, 0  # time stamps of the two successive decoded pictures that are furthest apart
        self.scale_seconds = 0.0
        self._covered_pts: int | None = None

    @property
    def covered_seconds(self) -> float:
        """Returns the end of what was decoded, or need not be, in seconds after the origin."""
        end = self._covered_pts
        return 0.0 if end is None else max(0.0, float(end * self._stream.time_base - self._origin))

    def faults(self) -> Iterator[str]:
        """Yields what could not be decoded; known once `pictures` is exhausted."""
        if self.errors:
            yield f"video packets not decoded: {self.errors}"
        if self.corrupt:
            yield f"pictures incomplete: {self.corrupt}"
        # do not tell again of a gap between the time stamps themselves, which `stamp_faults` reports
        times = sorted({pts for pts in self._stream.times if self._frozen[0] <= pts <= self._frozen[1]})
        untold = self._frozen[1] - self._frozen[0] - max((b - a for a, b in pairwise(times)), default=0)
        if (untold - self._stream.usual_ticks) * self._stream.tick_seconds > self._grid.segment_seconds:
            left, right = (float(pts * self._stream.time_base - self._origin) for pts in self._frozen)
            yield f"none of {len(times) - 2} pictures decoded between {left:.2f} s and {right:.2f} s"

    def pictures(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """Yields each scaled picture with the number of slots it is on screen; the last stays to the end.

        Each picture overwrites the memory of the one before.

        Raises:
            ClipRefused: no picture can be decoded.
        """
        scaled = self.scaler.allocate(1)[0]
        done = 0  # slots filled so far
        for frame, after in self._shown():
            if after > done:
                began = time.perf_counter()
                self.scaler.write(scaled, frame)
                self.scale_seconds += time.perf_counter() - began
                yield scaled, after - done
                done = after
        if not self.decoded:
            raise self._unreadable()

    def full_pictures(self) -> Iterator[tuple[VideoFrame, float]]:
        """Yields every decoded picture in full size, with its seconds after the origin.

        Raises:
            ClipRefused: no picture can be decoded.
        """
        latest: int | None = None
        for frame, pts in self._decode(set()):
            if latest is None or pts > latest:
                latest = pts
                yield frame, float(pts * self._stream.time_base - self._origin)
        if latest is None:
            raise self._unreadable()

    def _unreadable(self) -> ClipRefused:
        return ClipRefused("unreadable", f"none of {len(self._stream.times)} pictures can be decoded")

    def _shown(self) -> Iterator[tuple[VideoFrame, int]]:
        """Yields each picture with the first slot at which it is no longer on screen."""
        current: VideoFrame | None = None
        current_pts, slots = 0, self._grid.frames
        for frame, pts in self._pictures():
            if current is None:
                current, current_pts = frame, pts
            elif pts > current_pts:  # drop a picture that is decoded after one of a later time, as players do
                if pts - current_pts > self._frozen[1] - self._frozen[0]:
                    self._frozen = current_pts, pts
                after = min(self._clock.slot(pts), slots)
                yield current, after
                current, current_pts = frame, pts
                if after == slots:
                    return
        if current is not None:
            yield current, slots

    def _pictures(self) -> Iterator[tuple[VideoFrame, int]]:
        """Yields decoded pictures with their time stamps, as far as the grid needs them."""
        needed = needed_times(self._stream.times, self._clock, self._grid.frames) if self._can_skip else set()
        last = max(needed, default=None)
        for frame, pts in self._decode(needed):
            self.decoded += 1
            self._cover(frame, pts)
            yield frame, pts
            if pts == last:
                self._covered_pts = self._stream.end_pts  # as if all were decoded: the grid needs no more
                return

    def _decode(self, needed: set[int]) -> Iterator[tuple[VideoFrame, int]]:
        """Yields decoded pictures with their time stamps.

        May skip pictures whose time stamp is not in `needed`, but none where it is empty.
        """
        timed, last = self._stream.timed, None
        decode_times: list[int] = []  # a heap, used where there are no times of presentation (AVI)
        for packet, context in to_decode(self._path, self._stream):
            if not context.is_open:
                context.thread_type = "NONE"
                context.thread_count = 1
            # after damage, skip nothing: any picture may change what the decoder makes of the rest
            skipping = (
                needed and packet is not None and packet.pts not in needed and not self.errors + self.corrupt
            )
            context.skip_frame = "NONREF" if skipping else "DEFAULT"
            try:
                frames = context.decode(packet)
            except MemoryError:
                raise
            except FAULTS:
                self.errors += 1
                continue
            if not timed and packet is not None and packet.dts is not None:
                heappush(decode_times, packet.dts)
            for frame in frames:
                self.corrupt += frame.is_corrupt
                if self._stream.steady:
                    last = 0 if last is None else last + self._stream.usual_ticks
                elif not timed:
                    last = heappop(decode_times) if decode_times else None
                elif frame.pts is not None:
                    last = frame.pts
                elif last is not None:
                    last += self._stream.usual_ticks
                if last is not None:
                    yield frame, last

    def _cover(self, frame: VideoFrame, pts: int) -> None:
        """Moves the end of the decoded pictures to the end of this one, if that is later."""
        end = min(pts + (frame.duration or self._stream.usual_ticks), self._stream.end_pts)
        if self._covered_pts is None or end > self._covered_pts:
            self._covered_pts = end


class Clock:
    """Converts one stream's time stamps to slots of the grid: slot k is shown at origin + k / fps."""

    def __init__(self, time_base: Fraction, origin: Fraction, fps: int) -> None:
        step, start = time_base * fps, origin * fps
        # slots = (pts * scale - shift) / unit, in integers: exact, and ten times faster than Fraction
        self._scale = step.numerator * start.denominator
        self._shift = start.numerator * step.denominator
        self._unit = step.denominator * start.denominator

    def slot(self, pts: int) -> int:
        """Returns the first slot at which a picture presented at `pts` is on screen, at least 0."""
        return max(0, -((self._shift - pts * self._scale) // self._unit))


def needed_times(times: Sequence[int], clock: Clock, slots: int) -> set[int]:
    """Returns the time stamps of the pictures that are on screen at one or more of `slots` slots.

    A picture is on screen from its slot until the next picture's; the first also before its own time.
    """
    order = sorted(set(times))
    starts = [0, *(clock.slot(pts) for pts in order[1:]), slots]
    pairs = zip(order, starts[:-1], starts[1:], strict=True)
    return {pts for pts, start, after in pairs if start < min(after, slots)}
