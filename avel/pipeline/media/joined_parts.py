"""Puts the parts of a joined file one after another. In each part the time stamps start again.

Recordings in MPEG-TS, MPEG-PS and Matroska can be joined without a tool, and some recorders start again after
a pause. Each part then has time stamps of its own:

    file        |-- part 1: 0 to 5 s --|-- part 2: 0 to 5 s --|
    presented   0                      5                      10 s

A part begins where the time stamps of all streams leap back. Where those of one stream alone leap back,
nothing is moved, or the two streams would no longer be in time. Where time stamps overlap, what came first
stays.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

LEAP_SECONDS = 0.2
"""Least leap back that begins a part. Audio jitters by less. FFmpeg's command line follows leaps of 0.1 s."""
WRAP_SECONDS = 2**32 / 90000
"""Half of MPEG's clock, 13 hours. A leap ahead by more is a leap back that FFmpeg took for an overflow."""
REORDERED_PICTURES = 17
"""Pictures by which time stamps may go back without a leap, where Matroska has no times of decoding."""


@dataclass
class StreamPart:
    """A stretch of one stream whose time stamps do not leap back. Times are in ticks.

    Attributes:
        packets_before: packets of the stream before it.
        times_before: those of them that are presented and have a time stamp.
        first_number: number of its first packet among the file's packets.
        last_number: the same of its last packet.
        start: time stamp of the picture or sample that is presented first, None without any.
        latest: the latest time of decoding, None without any.
        offset: ticks by which its time stamps are moved.
    """

    packets_before: int
    times_before: int
    first_number: int
    last_number: int = 0
    start: int | None = None
    latest: int | None = None
    offset: int = 0
    _longest_end: int = 0  # by the packets' own durations
    _least_end: int = 0  # by durations of at most the usual one
    _last_pts: int = 0
    _first_dts: int | None = None
    _dts_end: int = 0
    _reordered: bool = False

    def is_far(self, time: int | None, tick_seconds: float, slack: int = 0) -> bool:
        """Returns whether `time` leaps back by more than LEAP_SECONDS and `slack`, or ahead by a wrap."""
        if time is None or self.latest is None:
            return False
        seconds = (time - self.latest) * tick_seconds
        return seconds < -LEAP_SECONDS - slack * tick_seconds or seconds > WRAP_SECONDS

    def present(self, pts: int, dts: int | None, duration: int, usual: int = 0) -> None:
        """Notes that a packet is presented from `pts` on for `duration`; `usual` is that of most packets."""
        if self.start is None:
            self.start = self._longest_end = self._least_end = self._last_pts = pts
            self._first_dts = dts
        if pts < self._last_pts:
            self._reordered = True
            self.start = min(self.start, pts)
        self._last_pts = pts
        if pts + duration > self._longest_end:
            self._longest_end = pts + duration
        if pts + min(duration, usual) > self._least_end:
            self._least_end = pts + min(duration, usual)
        if dts is not None:
            self._dts_end = dts + duration

    @property
    def end(self) -> int:
        """Returns the end of the picture or samples that are presented last.

        With B pictures a packet's duration is often the time until the next packet is decoded, not the time
        for which it is presented. Over a whole part both add up to about the same.
        """
        if self.start is None or not self._reordered or self._first_dts is None:
            return self._longest_end
        end = min(self._longest_end, self._dts_end + self.start - self._first_dts)
        return max(end, self._least_end)

    @property
    def ticks(self) -> int:
        """Returns the ticks from its start to the latest time of decoding."""
        return 0 if self.start is None or self.latest is None else max(0, self.latest - self.start)


class InParts(Protocol):
    """A stream whose packets were scanned into parts."""

    parts: list[StreamPart]
    time_base: Fraction


def follow_parts(streams: Sequence[InParts]) -> list[float] | None:
    """Moves the parts of all streams so that each begins where the one before ends: sets their `offset`.

    Returns the seconds on the container's clock at which each part after the first begins; None where the
    time stamps of one stream leap back alone, and nothing was moved.
    """
    groups = _grouped(streams)
    if groups is None:
        return None
    begins: list[float] = []
    end: Fraction | None = None
    for group in groups:
        presented = [(stream, part) for stream, part in group if part.start is not None]
        if not presented:
            continue
        start = min(_seconds(part.start, stream) for stream, part in presented)
        move = Fraction(0) if end is None else end - start
        if end is not None:
            begins.append(float(end))
        for stream, part in group:
            part.offset = round(move / stream.time_base)
        end = max(_seconds(part.end + part.offset, stream) for stream, part in presented)
    return begins


def _seconds(ticks: int | None, stream: InParts) -> Fraction:
    return (ticks or 0) * stream.time_base


def _grouped(streams: Sequence[InParts]) -> list[list[tuple[InParts, StreamPart]]] | None:
    """Returns the parts of all streams that belong together.

    None where a stream goes on while the time stamps of another leap back.
    """
    leading = max(streams, key=lambda stream: len(stream.parts))
    groups: list[list[tuple[InParts, StreamPart]]] = [[(leading, part)] for part in leading.parts]
    begins = [part.first_number for part in leading.parts[1:]]
    for stream in streams:
        if stream is leading:
            continue
        for number, part in enumerate(stream.parts):
            if len(stream.parts) == len(groups):
                place = number
            else:  # the stream is missing from some parts
                place = bisect_right(begins, part.first_number)
                if place < len(begins) and part.last_number > begins[place]:
                    return None
            groups[place].append((stream, part))
    return groups
