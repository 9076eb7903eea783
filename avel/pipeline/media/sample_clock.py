"""Finds when decoded audio is presented: counts its samples, and follows time stamps only where they leap.

Some recorders and muxers write time stamps that jitter, although the audio has no gap. After a leap the time
stamps stay off, after jitter they come back, so only the time stamps that follow tell the two apart:

    time      0     1     2     3     4
    jitter    |--a--|--b---|-c--|--d--|     a to d follow each other, although c is stamped late
    a leap    |--a--|--b--|     |--d--|     c was lost: silence takes its place, and d stays late

Players, and FFmpeg's `aresample=async`, use one bound alone (in FFmpeg 0.1 s by default). With them the audio
after a shorter loss comes too early.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice

from av.audio.frame import AudioFrame

GAP_SECONDS = 0.015
"""A smaller difference between time stamps and the count is never a leap. This is less than one lost packet
(AAC 21 ms, Opus 20 ms), which must become silence, and more than the rounding of Matroska and FLV (1 ms)."""

DRIFT_SECONDS = 0.15
"""A larger difference that lasts is always a leap, however much the time stamps jitter. This is more than one
packet of AAC at 8 kHz (128 ms), and too little to change the label of a segment of a second."""

COMPARED_FRAMES = 32
"""Frames on either side of a time stamp that tell a leap from jitter: 0.7 s of AAC at 44.1 kHz."""


class SampleClock:
    """Assigns to decoded audio frames the times at which they are presented.

    The count moves to a frame's time stamp if the next COMPARED_FRAMES time stamps are all off to the same
    side, by more than the last ones jittered. That bound is never below GAP_SECONDS nor above DRIFT_SECONDS.
    This also corrects a slow drift: whenever the drift exceeds the bound, all of it is corrected at once.

    Attributes:
        jitter_seconds: the most that a time stamp was off without moving the count.
    """

    def __init__(self, frames: Iterator[tuple[float | None, AudioFrame]]) -> None:
        """Reads decoded frames with their time stamps in seconds, None where there is none."""
        self._frames, self._ahead = frames, deque[tuple[float | None, AudioFrame]]()
        self._drifts = deque([0.0], maxlen=COMPARED_FRAMES)  # seconds by which the last time stamps were off
        self.jitter_seconds = 0.0

    def times(self) -> Iterator[tuple[float, AudioFrame]]:
        """Yields each frame with its time in seconds, without frames before the first time stamp."""
        due = None
        while self._look_ahead(1):
            stamp, frame = self._ahead[0]
            if stamp is not None and (due is None or (abs(stamp - due) > GAP_SECONDS and self._leap(due))):
                due = stamp
            self._ahead.popleft()
            if due is None:
                continue
            if stamp is not None:
                self._drifts.append(stamp - due)
                self.jitter_seconds = max(self.jitter_seconds, abs(stamp - due))
            yield due, frame
            due += frame.samples / frame.sample_rate

    def _leap(self, due: float) -> bool:
        """Returns whether time stamps leap at the next frame, which the count puts at `due` seconds."""
        self._look_ahead(COMPARED_FRAMES)
        drifts = []
        for stamp, frame in islice(self._ahead, COMPARED_FRAMES):
            if stamp is not None:
                drifts.append(stamp - due)
            due += frame.samples / frame.sample_rate
        jitter = max(self._drifts) - min(self._drifts)
        bound = min(max(GAP_SECONDS, jitter), DRIFT_SECONDS)
        return min(drifts) > bound or max(drifts) < -bound

    def _look_ahead(self, frames: int) -> bool:
        """Decodes until `frames` frames wait, or the stream ends; returns whether any waits."""
        while len(self._ahead) < frames and (frame := next(self._frames, None)) is not None:
            self._ahead.append(frame)
        return bool(self._ahead)
