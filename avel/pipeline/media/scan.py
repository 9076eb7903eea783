"""The first look at a file: every packet of the clip's span, before anything is decoded.

A short clip's packets stay in memory, so decoding needs no second reading; of a long film only the time
stamps stay, 8 bytes a packet, and decoding opens the file again.
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

from avel.pipeline.media.container import FAULTS, describe, reading

HELD_BYTES = 48 * 2**20
"""Packets of one file kept in memory; a 10 s clip of the web has 1-4 MiB."""
PACKET_BYTES = 640
"""What a packet takes beside its data, in FFmpeg's and PyAV's objects: most of a quiet film."""

SIGN_PACKETS = 1000
"""Packets between two signs of life: some ten seconds of a film."""

MARGIN_SECONDS = 0.5
"""Read on after the grid's end: reordered pictures and the resampler's tail."""


@dataclass
class Track:
    """What the scan saw of one stream. `times` are its shown packets' time stamps, in file order.

    Attributes:
        timed: packets say when they are presented. AVI's say only when they are decoded, and what libavformat
            makes of that is wrong for H.264 with B pictures: there pictures take those times in order.
        untimed: shown packets that say neither, as MPEG-TS and MPEG-PS allow.
    """

    stream: Any  # a video or audio stream of PyAV
    time_base: Fraction = field(init=False)
    """Seconds of one tick of the time stamps."""
    times: "array[int]" = field(default_factory=lambda: array("q"))
    timed: bool = True
    untimed: int = 0
    packets: "list[Packet[Any]] | None" = field(default_factory=list)
    start_pts: int | None = None
    end_pts: int = 0
    primed_pts: int | None = None
    """Where the encoder's priming ends, and what an edit list cuts off: decoded and left out before that."""
    passed: bool = False

    def __post_init__(self) -> None:
        self.time_base = Fraction(self.stream.time_base)
        self.tick_seconds = float(self.time_base)
        rate = self.stream.average_rate if self.stream.type == "video" else None
        self.usual_ticks = round(1 / (rate * self.time_base)) if rate else 0

    def add(self, packet: "Packet[Any]") -> None:
        """Notes one packet's span; those that an edit list discards are decoded but never shown."""
        if self.packets is not None:
            self.packets.append(packet)
        if self.start_pts is None and self.stream.type == "audio" and packet.has_sidedata("skip_samples"):
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
        """When the stream's first picture or sample is presented, on the container's clock."""
        start = self.start_pts or 0
        return (start if self.primed_pts is None else max(start, self.primed_pts)) * self.time_base

    @property
    def end_seconds(self) -> Fraction:
        """When the last packet that was scanned ends, on the container's clock."""
        return self.end_pts * self.time_base

    def _primed(self, packet: "Packet[Any]") -> int | None:
        if packet.pts is None or not self.stream.sample_rate:
            return None
        skipped = struct.unpack_from("<I", packet.get_sidedata("skip_samples"))[0]
        ticks = Fraction(skipped, self.stream.sample_rate) / self.time_base
        return int(packet.pts + math.floor(ticks + Fraction(1, 2)))  # half up, as FFmpeg rounds


def scan(container: InputContainer, tracks: list[Track], seconds: float, alive: Callable[[], None]) -> str:
    """Fills `tracks` with the packets of the clip's first `seconds`; returns what broke off the reading."""
    by_index = {track.stream.index: track for track in tracks}
    held = 0
    try:
        for number, packet in enumerate(container.demux([track.stream for track in tracks]), 1):
            if number % SIGN_PACKETS == 0:
                alive()
            if not packet.size:
                continue  # the demuxer's end-of-stream marks
            track = by_index[packet.stream_index]
            track.add(packet)
            held += packet.size + PACKET_BYTES
            if held > HELD_BYTES:
                for each in tracks:
                    each.packets = None
            if _beyond(track, packet, tracks, seconds):
                break
    except FAULTS as error:
        return describe(error)
    return ""


def _beyond(track: Track, packet: "Packet[Any]", tracks: list[Track], seconds: float) -> bool:
    """Whether all streams have left the clip: what follows is decoded, so shown, later still."""
    if packet.dts is not None and (time := packet.dts * track.tick_seconds) > seconds and not track.passed:
        starts = [each.start_pts * each.tick_seconds for each in tracks if each.start_pts is not None]
        track.passed = time > min(starts, default=math.inf) + seconds + MARGIN_SECONDS
    return all(each.passed for each in tracks)


def packets(path: Path, track: Track) -> "Iterator[Packet[Any]]":
    """The track's packets in file order, from memory, or by opening the file again."""
    if track.packets is not None:
        track.stream.codec_context.flush_buffers()
        yield from track.packets
        return
    with reading(path) as container:
        for packet in container.demux(container.streams[track.stream.index]):
            if packet.size:
                yield packet


def with_drain(stream: "Iterator[Packet[Any]]") -> "Iterator[tuple[Packet[Any] | None, Any]]":
    """Each packet with the decoder it belongs to; at the end None, which empties the decoder."""
    context: Any = None
    for packet in stream:
        context = packet.stream.codec_context
        yield packet, context
    if context is not None:
        yield None, context
