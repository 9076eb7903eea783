"""Scans a file: reads every packet within the grid's seconds, before anything is decoded.

The packets of a short clip stay in memory, so that decoding need not read the file again. Of a long film only
the time stamps stay, 8 bytes a packet, and decoding opens the file again.
"""

import math
import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.container import InputContainer
from av.packet import Packet

from avel.pipeline.media.container import FAULTS, fault_text, open_container
from avel.pipeline.media.joined_parts import REORDERED_PICTURES, StreamPart

MOST_PACKET_BYTES = 48 * 2**20
"""Most bytes of one file's packets that stay in memory; a 10 s clip from the web has 1-4 MiB."""
PACKET_OVERHEAD_BYTES = 640
"""Bytes of FFmpeg's and PyAV's objects for one packet: in a quiet film more than its data."""

PACKETS_AT_ONCE = 8
"""Packets that are read before the scan looks whether it is beyond the grid."""
ALIVE_EVERY_PACKETS = 1000
"""Packets between two calls of `alive`: about ten seconds of a film."""

MARGIN_SECONDS = 0.5
"""Seconds to read on after the grid's end, for reordered pictures and the resampler's delay."""
PARTS_MARGIN_SECONDS = 5.0
"""Seconds to read on where time stamps leap back, since not every leap is followed."""

DEFAULT_FPS = 25
"""Frame rate that FFmpeg assumes, too, where no picture has a time stamp and the codec states no rate."""


@dataclass
class ScannedStream:
    """Results of the scan of one stream.

    Attributes:
        times: time stamps of the packets that are presented, in file order.
        timed: packets have times of presentation. AVI has only times of decoding. libavformat derives wrong
            times from them for H.264 with B pictures, so pictures take the times of decoding in order.
        untimed: number of presented packets without a time, which MPEG-TS and MPEG-PS allow.
        steady: no packet has a time, as in raw H.264: picture n is presented after n usual steps.
        usual_ticks: ticks from one picture to the next, 0 of audio.
        packets: all packets, or None once they would take too much memory.
        parts: stretches between which time stamps leap back; most files have one.
        passed: the scan has read beyond the grid's end.
        read_bytes: where the last scanned packet ends in the file.
    """

    av_stream: Any  # a video or audio stream of PyAV
    time_base: Fraction = field(init=False)
    """Seconds per tick of the time stamps."""
    times: "array[int]" = field(default_factory=lambda: array("q"))
    timed: bool = True
    untimed: int = 0
    steady: bool = False
    packets: "list[Packet[Any]] | None" = field(default_factory=list)
    parts: list[StreamPart] = field(default_factory=list)
    primed_pts: int | None = None
    """Start of the audio: an encoder's priming, and what an edit list cuts off, are decoded but dropped."""
    passed: bool = False
    read_bytes: int = 0
    _count: int = 0
    _ticks_before: int = 0
    _untimed_ticks: int = 0

    def __post_init__(self) -> None:
        self.time_base = Fraction(self.av_stream.time_base)
        self.tick_seconds = float(self.time_base)
        rate = self.av_stream.average_rate if self.av_stream.type == "video" else None
        self.usual_ticks = round(1 / (rate * self.time_base)) if rate else 0

    def add(self, packet: "Packet[Any]", number: int) -> None:
        """Adds the file's packet `number`. A packet that an edit list discards adds no time stamp."""
        if self.packets is not None:
            self.packets.append(packet)
        pts, dts = packet.pts, packet.dts
        self.read_bytes = max(self.read_bytes, (packet.pos or 0) + packet.size)
        if not self.times and self.av_stream.type == "audio" and packet.has_sidedata("skip_samples"):
            self.primed_pts = self._primed(packet)
        discarded = packet.is_discard
        part = self._part_of(packet, None if discarded else dts, number)
        self._count += 1
        if discarded:
            return
        if not self.timed:
            pts = dts
        if pts is None:
            self.untimed += 1
            self._untimed_ticks = self._untimed_ticks or packet.duration or self._step_of_codec()
            return
        self.times.append(pts)
        part.present(pts, dts, packet.duration or self.usual_ticks, self.usual_ticks)

    def settle(self) -> None:
        """Moves all time stamps by the offsets of their parts; gives pictures times where none has any."""
        if self.untimed and not self.times and self.av_stream.type == "video":
            self.steady, self.usual_ticks = True, self._untimed_ticks
            self.times = array("q", (number * self.usual_ticks for number in range(self.untimed)))
            self.parts[0].present(0, None, self.untimed * self.usual_ticks)
            self.untimed = 0
        ends = [part.times_before for part in self.parts[1:]] + [len(self.times)]
        for part, end in zip(self.parts, ends, strict=False):
            if part.offset:
                self.times[part.times_before : end] = array(
                    "q", (time + part.offset for time in self.times[part.times_before : end])
                )
        if self.packets is not None:
            for number, packet in enumerate(self.packets):
                self.move(packet, number)

    def move(self, packet: "Packet[Any]", number: int) -> None:
        """Moves the time stamps of the stream's packet `number` by the offset of its part."""
        place = bisect_right(self.parts, number, key=lambda part: part.packets_before) - 1
        offset = self.parts[place].offset
        packet.pts = None if packet.pts is None else packet.pts + offset
        packet.dts = None if packet.dts is None else packet.dts + offset

    @property
    def end_pts(self) -> int:
        """Returns the time stamp at which the last scanned picture or sample ends."""
        return max((part.end + part.offset for part in self.parts if part.start is not None), default=0)

    @property
    def start_seconds(self) -> Fraction:
        """Returns the seconds on the container's clock at which the first picture or sample is presented."""
        start = min((part.start + part.offset for part in self.parts if part.start is not None), default=0)
        if self.primed_pts is not None:
            start = max(start, self.primed_pts + self.parts[0].offset)
        return start * self.time_base

    @property
    def end_seconds(self) -> Fraction:
        """Returns the seconds on the container's clock at which the last scanned packet ends."""
        return self.end_pts * self.time_base

    @property
    def began_seconds(self) -> float:
        """Returns the seconds on the container's clock at which the first part begins."""
        return (self.parts[0].start or 0) * self.tick_seconds if self.parts else 0.0

    @property
    def scanned_seconds(self) -> float:
        """Returns the seconds scanned so far, after the start of the stream."""
        if not self.times:
            return self.untimed * self._untimed_ticks * self.tick_seconds
        return (self._ticks_before + self.parts[-1].ticks) * self.tick_seconds

    def _part_of(self, packet: "Packet[Any]", dts: int | None, number: int) -> StreamPart:
        """Returns the part to which a packet belongs, a new one where its time stamp leaps back."""
        part = self.parts[-1] if self.parts else None
        if part is None or (part.is_far(dts, self.tick_seconds) and self._leaps(packet, part)):
            self._ticks_before += part.ticks if part else 0
            part = StreamPart(self._count, len(self.times), number)
            self.parts.append(part)
        part.last_number = number
        if dts is not None and (part.latest is None or dts > part.latest):
            part.latest = dts
        return part

    def _leaps(self, packet: "Packet[Any]", part: StreamPart) -> bool:
        """Returns whether a packet that is far from the part's last one belongs to a new part.

        Pictures out of order go back without a leap where there are no times of decoding, as in Matroska.
        """
        if self.av_stream.type != "video" or packet.is_keyframe:
            return True
        if packet.pts == packet.dts and self.av_stream.codec_context.has_b_frames:
            return False  # a B picture, of which FFmpeg takes the time of presentation for that of decoding
        return part.is_far(packet.dts, self.tick_seconds, REORDERED_PICTURES * self.usual_ticks)

    def _step_of_codec(self) -> int:
        """Returns the ticks from one picture to the next that the codec states, or those of 25 fps."""
        rate = self.av_stream.guessed_rate if self.av_stream.type == "video" else None
        return round(1 / ((rate or DEFAULT_FPS) * self.time_base))

    def _primed(self, packet: "Packet[Any]") -> int | None:
        """Returns the time stamp after the samples that the first packet tells to skip."""
        if packet.pts is None or not self.av_stream.sample_rate:
            return None
        skipped = struct.unpack_from("<I", packet.get_sidedata("skip_samples"))[0]
        ticks = Fraction(skipped, self.av_stream.sample_rate) / self.time_base
        return int(packet.pts + math.floor(ticks + Fraction(1, 2)))  # half up, as FFmpeg rounds


def scan(
    container: InputContainer, streams: list[ScannedStream], seconds: float, alive: Callable[[], None]
) -> str:
    """Reads the packets of the clip's first `seconds` into `streams`; calls `alive` now and then.

    Returns the fault that ended the reading early, "" where there was none.
    """
    by_index = {stream.av_stream.index: stream for stream in streams}
    packet_bytes = 0
    try:
        for number, packet in enumerate(container.demux([stream.av_stream for stream in streams]), 1):
            if number % ALIVE_EVERY_PACKETS == 0:
                alive()
            if not packet.size:
                continue  # the demuxer marks the end of each stream by an empty packet
            stream = by_index[packet.stream_index]
            stream.add(packet, number)
            packet_bytes += packet.size + PACKET_OVERHEAD_BYTES
            if packet_bytes > MOST_PACKET_BYTES:
                for each in streams:
                    each.packets = None
            if number % PACKETS_AT_ONCE == 0 and _all_passed(streams, seconds):
                break
    except MemoryError:
        raise
    except FAULTS as error:
        return fault_text(error)
    return ""


def _all_passed(streams: list[ScannedStream], seconds: float) -> bool:
    """Notes which streams are read beyond the clip's end; returns whether all are."""
    began = min((each.began_seconds for each in streams if each.times), default=0.0)
    for stream in streams:
        margin = MARGIN_SECONDS if len(stream.parts) < 2 else PARTS_MARGIN_SECONDS
        stream.passed = stream.began_seconds + stream.scanned_seconds > began + seconds + margin
    return all(stream.passed for stream in streams)


def packets(path: Path, stream: ScannedStream) -> "Iterator[Packet[Any]]":
    """Yields the stream's packets in file order, from memory, or by opening the file again."""
    if stream.packets is not None:
        stream.av_stream.codec_context.flush_buffers()  # of an earlier reading, such as `is_decodable`'s
        yield from stream.packets
        return
    with open_container(path) as container:
        number = 0
        for packet in container.demux(container.streams[stream.av_stream.index]):
            if packet.size:
                stream.move(packet, number)
                number += 1
                yield packet


def to_decode(path: Path, stream: ScannedStream) -> "Iterator[tuple[Packet[Any] | None, Any]]":
    """Yields `packets`, each with its decoder; at the end None, which makes the decoder return its rest."""
    context: Any = None
    for packet in packets(path, stream):
        context = packet.stream.codec_context
        yield packet, context
    if context is not None:
        yield None, context
