"""Picture stream -> the grid's frames: slot k shows the last picture presented by k / fps."""

import time
from collections.abc import Iterator
from fractions import Fraction
from heapq import heappop, heappush
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from avel.grid import Grid
from avel.pipeline.media.container import FAULTS
from avel.pipeline.media.picture import PictureScaler
from avel.pipeline.media.refusal import ClipRefused
from avel.pipeline.media.scan import Track, packets, with_drain
from avel.pipeline.media.skip_plan import SKIPPING, Clock, needed_times
from avel.stores.jpeg import Colours


class VideoReader:
    """Reads one picture stream onto the grid; `decoded` and `errors` tell afterwards how it went."""

    def __init__(self, path: Path, track: Track, grid: Grid, origin: Fraction, scaler: PictureScaler) -> None:
        self._path, self._track, self._grid, self._scaler = path, track, grid, scaler
        self._origin = origin
        self._clock = Clock(track.time_base, origin, grid.fps)
        stamped = track.timed and not track.untimed
        self._skip = stamped and track.stream.codec_context.name in SKIPPING
        self.decoded = self.errors = self.corrupt = 0
        self.scale_seconds = 0.0
        self._covered_pts: int | None = None

    @property
    def colours(self) -> Colours:
        """What each of `frames` is."""
        return self._scaler.colours

    @property
    def covered_seconds(self) -> float:
        """Up to where decoded pictures reach, counted from the origin."""
        end = self._covered_pts
        return 0.0 if end is None else max(0.0, float(end * self._track.time_base - self._origin))

    def room(self, frames: int) -> NDArray[np.uint8]:
        """Memory for n frames in `colours`."""
        return self._scaler.room(frames)

    def pictures(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """Each picture that is on screen at a slot, and for how many slots; the last is held to the end.

        The next picture takes the memory of the last one.

        Raises:
            ClipRefused: no picture came, or the decoder ran out of memory.
        """
        self.decoded = self.errors = self.corrupt = 0
        self._covered_pts = None
        scaled = self.room(1)[0]
        done = 0  # slots that are filled
        for frame, after in self._shown():
            if after > done:
                began = time.perf_counter()
                self._scaler.into(scaled, frame)
                self.scale_seconds += time.perf_counter() - began
                yield scaled, after - done
                done = after
        if not self.decoded:
            raise ClipRefused("unreadable", f"none of {len(self._track.times)} pictures can be decoded")

    def _shown(self) -> Iterator[tuple[VideoFrame, int]]:
        """Each picture with the slot from which it is no longer on screen."""
        current: VideoFrame | None = None
        current_pts, slots = 0, self._grid.frames
        for frame, pts in self._pictures():
            if current is None:
                current, current_pts = frame, pts
            elif pts > current_pts:  # a picture that comes out late is as lost as in a player
                after = min(self._clock.slot(pts), slots)
                yield current, after
                current, current_pts = frame, pts
                if after == slots:
                    return
        if current is not None:
            yield current, slots

    def _pictures(self) -> Iterator[tuple[VideoFrame, int]]:
        """Decoded pictures in order of presentation, with their time stamps."""
        needed = needed_times(self._track.times, self._clock, self._grid.frames) if self._skip else set()
        last = max(needed, default=None)
        for frame, pts in self._decode(needed):
            self.decoded += 1
            self._cover(frame, pts)
            yield frame, pts
            if pts == last:
                self._covered_pts = self._track.end_pts
                return  # nothing after it is on screen within the grid

    def _decode(self, needed: set[int]) -> Iterator[tuple[VideoFrame, int]]:
        timed, last = self._track.timed, None
        unpresented: list[int] = []  # AVI's times of decoding: pictures take them in order
        for packet, context in with_drain(packets(self._path, self._track)):
            if not context.is_open:
                context.thread_type = "NONE"
                context.thread_count = 1
            # once data turns out damaged, what the decoder makes of the rest may hang on every picture
            skipping = (
                needed and packet is not None and packet.pts not in needed and not self.errors + self.corrupt
            )
            context.skip_frame = "NONREF" if skipping else "DEFAULT"
            try:
                frames = context.decode(packet)
            except FAULTS as error:
                self.errors += 1
                if isinstance(error, MemoryError):
                    raise
                continue
            if not timed and packet is not None and packet.dts is not None:
                heappush(unpresented, packet.dts)
            for frame in frames:
                self.corrupt += frame.is_corrupt
                if not timed:
                    last = heappop(unpresented) if unpresented else None
                elif frame.pts is not None:
                    last = frame.pts
                elif last is not None:
                    last += self._track.usual_ticks
                if last is not None:
                    yield frame, last

    def _cover(self, frame: VideoFrame, pts: int) -> None:
        end = pts + (frame.duration or self._track.usual_ticks)
        if self._covered_pts is None or end > self._covered_pts:
            self._covered_pts = end
