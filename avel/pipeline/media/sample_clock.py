"""When decoded sound is presented: its samples are counted; time stamps move the count only where they leap.

Some recorders and muxers write time stamps that jitter, though the sound has no gap. A leap stays, jitter
comes back; so it takes the time stamps that follow to tell the two apart:

    time      0     1     2     3     4
    jitter    |--a--|--b---|-c--|--d--|     a to d follow each other, whatever the stamp of c says
    a leap    |--a--|--b--|     |--d--|     c was lost: all that follows is later, silence in between

Players, and FFmpeg's `aresample=async`, decide by one bound alone (there 0.1 s by default). What follows a
lost packet then comes too early.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice

from av.audio.frame import AudioFrame

GAP_SECONDS = 0.015
"""Steady time stamps this far off the count move it: less than one lost packet (AAC 21 ms, Opus 20 ms), which
must become silence; more than the rounding of Matroska and FLV (1 ms), which must not."""

DRIFT_SECONDS = 0.15
"""Time stamps that stay this far off move the count however much they jitter: more than one packet of AAC at
8 kHz (128 ms), too little to move the label of a segment of one second."""

WITNESSES = 32
"""Frames before and after that tell a leap from jitter: 0.7 s of AAC at 44.1 kHz."""


class SampleClock:
    """Gives decoded frames of sound the times at which they are presented.

    The count moves to a frame's time stamp if this and the next `WITNESSES` are all off to the same side, by
    more than the last ones jittered; `GAP_SECONDS` is the least that counts, `DRIFT_SECONDS` always does.
    So a slow drift is corrected too: each time that it has grown that far, and by all of it.

    Attributes:
        jitter_seconds: the furthest that a time stamp was off without being followed.
    """

    def __init__(self, frames: Iterator[tuple[float | None, AudioFrame]]) -> None:
        """Takes frames as they are decoded, with their time stamps in seconds, None where there is none."""
        self._frames, self._ahead = frames, deque[tuple[float | None, AudioFrame]]()
        self._drifts = deque([0.0], maxlen=WITNESSES)  # by how much the last time stamps were off
        self.jitter_seconds = 0.0

    def times(self) -> Iterator[tuple[float, AudioFrame]]:
        """Yields each frame with its time in seconds; leaves out those before the first time stamp."""
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
        """Whether the next frame, due at that time by the count, begins a leap of the time stamps."""
        self._look_ahead(WITNESSES)
        drifts = []
        for stamp, frame in islice(self._ahead, WITNESSES):
            if stamp is not None:
                drifts.append(stamp - due)
            due += frame.samples / frame.sample_rate
        jitter = max(self._drifts) - min(self._drifts)
        bound = min(max(GAP_SECONDS, jitter), DRIFT_SECONDS)
        return min(drifts) > bound or max(drifts) < -bound

    def _look_ahead(self, frames: int) -> bool:
        """Decodes until so many frames wait, or the stream ends; whether any waits."""
        while len(self._ahead) < frames and (frame := next(self._frames, None)) is not None:
            self._ahead.append(frame)
        return bool(self._ahead)
