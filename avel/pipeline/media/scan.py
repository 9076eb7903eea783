"""Scans a file: reads every packet within the grid's seconds, before anything is decoded.

The packets of a short clip stay in memory, so that decoding need not read the file again. Of a long film only
the time stamps stay, 8 bytes a packet, and decoding opens the file again.
"""

import math
import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.container import InputContainer
from av.packet import Packet

from avel.pipeline.media.container import FAULTS, fault_text, open_container

MOST_PACKET_BYTES = 48 * 2**20
"""Most bytes of one file's packets that stay in memory; a 10 s clip from the web has 1-4 MiB."""
PACKET_OVERHEAD_BYTES = 640
"""Bytes of FFmpeg's and PyAV's objects for one packet: in a quiet film more than its data."""

ALIVE_EVERY_PACKETS = 1000
"""Packets between two calls of `alive`: about ten seconds of a film."""

MARGIN_SECONDS = 0.5
"""Seconds to read on after the grid's end, for reordered pictures and the resampler's delay."""


@dataclass
class ScannedStream:
    """What the scan found of one stream.

    Attributes:
        times: time stamps of the packets that are presented, in file order.
        timed: packets have times of presentation. AVI has only times of decoding. libavformat derives wrong
            times from them for H.264 with B pictures, so pictures take the times of decoding in order.
        untimed: number of presented packets without a time, which MPEG-TS and MPEG-PS allow.
        packets: all packets, or None once they would take too much memory.
        passed: the scan has read beyond the grid's end.
    """

    av_stream: Any  # a video or audio stream of PyAV
    time_base: Fraction = field(init=False)
    """Seconds per tick of the time stamps."""
    times: "array[int]" = field(default_factory=lambda: array("q"))
    timed: bool = True
    untimed: int = 0
    packets: "list[Packet[Any]] | None" = field(default_factory=list)
    start_pts: int | None = None
    end_pts: int = 0
    primed_pts: int | None = None
    """Where audio begins: priming of the encoder, and what an edit list cuts off, are decoded but dropped."""
    passed: bool = False

    def __post_init__(self) -> None:
        self.time_base = Fraction(self.av_stream.time_base)
        self.tick_seconds = float(self.time_base)
        rate = self.av_stream.average_rate if self.av_stream.type == "video" else None
        self.usual_ticks = round(1 / (rate * self.time_base)) if rate else 0

    def add(self, packet: "Packet[Any]") -> None:
        """Adds one packet. Packets that an edit list discards are decoded, but have no time."""
        if self.packets is not None:
            self.packets.append(packet)
        if self.start_pts is None and self.av_stream.type == "audio" and packet.has_sidedata("skip_samples"):
            self.primed_pts = self._primed(packet)
        if packet.is_discard:
            return
        pts = packet.pts if self.timed else packet.dts
        if pts is None:
            self.untimed += 1
            return
        self.times.append(pts)
        end = pts + (packet.duration or self.usual_ticks)
        self.end_pts = end if self.start_pts is None else max(self.end_pts, end)
        self.start_pts = pts if self.start_pts is None else min(self.start_pts, pts)

    @property
    def start_seconds(self) -> Fraction:
        """Seconds on the container's clock at which the first picture or sample is presented."""
        start = self.start_pts or 0
        return (start if self.primed_pts is None else max(start, self.primed_pts)) * self.time_base

    @property
    def end_seconds(self) -> Fraction:
        """Seconds on the container's clock at which the last scanned packet ends."""
        return self.end_pts * self.time_base

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
            stream.add(packet)
            packet_bytes += packet.size + PACKET_OVERHEAD_BYTES
            if packet_bytes > MOST_PACKET_BYTES:
                for each in streams:
                    each.packets = None
            if _beyond(stream, packet, streams, seconds):
                break
    except FAULTS as error:
        return fault_text(error)
    return ""


def _beyond(
    stream: ScannedStream, packet: "Packet[Any]", streams: list[ScannedStream], seconds: float
) -> bool:
    """Returns whether all streams are beyond the clip; later packets are presented later still."""
    if packet.dts is not None and (time := packet.dts * stream.tick_seconds) > seconds and not stream.passed:
        starts = [each.start_pts * each.tick_seconds for each in streams if each.start_pts is not None]
        stream.passed = time > min(starts, default=math.inf) + seconds + MARGIN_SECONDS
    return all(each.passed for each in streams)


def packets(path: Path, stream: ScannedStream) -> "Iterator[Packet[Any]]":
    """Yields the stream's packets in file order, from memory, or by opening the file again."""
    if stream.packets is not None:
        stream.av_stream.codec_context.flush_buffers()
        yield from stream.packets
        return
    with open_container(path) as container:
        for packet in container.demux(container.streams[stream.av_stream.index]):
            if packet.size:
                yield packet


def with_drain(packets: "Iterator[Packet[Any]]") -> "Iterator[tuple[Packet[Any] | None, Any]]":
    """Yields each packet with its decoder; at the end None, which makes the decoder return its rest."""
    context: Any = None
    for packet in packets:
        context = packet.stream.codec_context
        yield packet, context
    if context is not None:
        yield None, context
