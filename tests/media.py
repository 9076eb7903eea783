"""Composes media files whose pictures and sounds are known: each picture shows its own number, sound clicks.

PyAV writes them, and the code under test reads with PyAV too; what a test expects comes from the numbers and
clicks that were composed, not from what PyAV says.
"""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

TICK = Fraction(1, 90000)
"""Time base of composed pictures: 24, 25, 29.97, 30 and 60 fps are whole numbers of ticks."""

BLOCKS = 4
"""A picture is 4 x 4 blocks, white for 1: three marked corners, then the number in 12 bits."""

UPRIGHT = {(0, 0): 1, (0, 3): 1, (3, 0): 1, (3, 3): 0}


@dataclass(frozen=True)
class Film:
    """What to compose: when each picture is presented, how it is coded, and when the sound clicks.

    Attributes:
        times: presentation time of picture n, seconds.
        paint: (number, height, width) -> pixels of `paint_format`; by default the number in blocks.
        clicks: when the sound clicks, seconds; None composes no sound stream.
        tone_hz: a tone under the clicks, at half their amplitude; 0 composes none.
        gains: amplitude of each channel's clicks.
        sound_block: samples that the sound's encoder is given at once; of PCM they are one packet.
        options: private options of the picture's encoder.
        sound_options: private options of the sound's.
        form: options of the container.
    """

    times: Sequence[Fraction] = ()
    width: int = 128
    height: int = 96
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    paint: "Callable[[int, int, int], NDArray[np.uint8]] | None" = None
    paint_format: str = "rgb24"
    colour: tuple[int, int] = (2, 0)  # FFmpeg's numbers of the matrix and range to tag with; unspecified
    clicks: Sequence[float] | None = (0.5, 1.25, 4.0, 9.5)
    sound_start: Fraction = Fraction(0)
    sound_seconds: float = 10.4
    sound_codec: str = "aac"
    sound_options: dict[str, str] = field(default_factory=dict)
    sample_rate: int = 44100
    sound_block: int = 1024
    tone_hz: float = 0.0
    gains: tuple[float, ...] = (0.8,)
    form: dict[str, str] = field(default_factory=dict)
    tick: Fraction = TICK


def steady(fps: Fraction | int, seconds: float = 10.4, start: Fraction = Fraction(0)) -> list[Fraction]:
    """Presentation times of a constant frame rate."""
    return [start + Fraction(n) / Fraction(fps) for n in range(int(seconds * fps))]


def uneven(seconds: float = 10.4, seed: int = 0) -> list[Fraction]:
    """Presentation times of a variable frame rate: 11 to 90 ms apart, with two long holds."""
    steps = np.random.default_rng(seed).integers(1000, 8100, 400)
    steps[[7, 60]] = 60000
    times = [Fraction(0)]
    for step in steps.tolist():
        times.append(times[-1] + step * TICK)
    return [time for time in times if time < seconds]


def compose(path: Path, film: Film) -> Path:
    """Writes `film` to `path`; the container follows the suffix."""
    with av.open(str(path), "w", options=film.form) as container:
        streams = []
        if film.times:
            streams.append(_picture_stream(container, film))
        if film.clicks is not None:
            streams.append(_sound_stream(container, film))
        packets = []
        for stream, frames in streams:
            for frame in [*frames, None]:
                packets += stream.encode(frame)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in packets:
            container.mux(packet)
    return path


def number_picture(number: int, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3): `number` below 4096 as white and black blocks."""
    bits = iter(number >> place & 1 for place in range(12))
    picture = np.zeros((height, width, 3), np.uint8)
    rows, columns = (np.linspace(0, length, BLOCKS + 1).astype(int) for length in (height, width))
    for row in range(BLOCKS):
        for column in range(BLOCKS):
            bit = UPRIGHT[row, column] if (row, column) in UPRIGHT else next(bits)
            picture[rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = 255 * bit
    return picture


def read_number(picture: NDArray[np.uint8]) -> int:
    """The number that a square picture (S, S, 3) shows; -1 where it is not upright."""
    size = len(picture) // BLOCKS
    places, number = 0, 0
    for row in range(BLOCKS):
        for column in range(BLOCKS):
            inner = slice(row * size + size // 4, (row + 1) * size - size // 4)
            across = slice(column * size + size // 4, (column + 1) * size - size // 4)
            bit = int(picture[inner, across].mean() > 127)
            if (row, column) not in UPRIGHT:
                number |= bit << places
                places += 1
            elif bit != UPRIGHT[row, column]:
                return -1
    return number


def find_clicks(samples: NDArray[np.float32], sample_rate: int = 16000) -> list[float]:
    """Seconds of each peak above 0.2 that is the highest within 0.1 s."""
    level, found = np.abs(samples), []
    while level.max(initial=0.0) > 0.2:
        peak = int(level.argmax())
        found.append(peak / sample_rate)
        level[max(peak - sample_rate // 10, 0) : peak + sample_rate // 10] = 0
    return sorted(found)


def remux(source: Path, target: Path, cut_seconds: Fraction, **form: str) -> Path:
    """Copies without re-encoding, cut at `cut_seconds`, in mid-GOP: earlier packets get negative times.

    In MP4 the muxer writes an edit list, and the reader must decode but not show them.
    """
    with av.open(str(source)) as reader, av.open(str(target), "w", options=form) as writer:
        streams = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        for packet in reader.demux():
            if packet.dts is None:
                continue
            shift = int(cut_seconds / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = streams[packet.stream_index]
            writer.mux(packet)
    return target


def restamp_sound(source: Path, target: Path, later: Callable[[int], float | None]) -> Path:
    """Copies without re-encoding; stamps packet n of the sound `later(n)` seconds later, loses it if None."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        streams = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        number = 0
        for packet in reader.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                shift, number = later(number), number + 1
                if shift is None:
                    continue
                packet.pts = packet.dts = packet.pts + round(shift / packet.time_base)
            packet.stream = streams[packet.stream_index]
            writer.mux(packet)
    return target


def spoil_sound(source: Path, target: Path) -> Path:
    """Copies without re-encoding, each packet of sound as bytes that no decoder takes."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        streams = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        for packet in reader.demux():
            if packet.dts is None:
                continue
            stream = streams[packet.stream_index]
            if packet.stream.type == "audio":
                spoilt = av.Packet(b"\x55" * packet.size)
                spoilt.pts, spoilt.dts, spoilt.time_base = packet.pts, packet.dts, packet.time_base
                packet = spoilt
            packet.stream = stream
            writer.mux(packet)
    return target


def unstamp(source: Path, target: Path, bare: Callable[[int], bool]) -> Path:
    """Copies an MPEG-TS file; picture n in the order of decoding loses its time stamps where `bare(n)`."""
    data, number = bytearray(source.read_bytes()), 0
    for start in range(0, len(data), 188):
        header = int.from_bytes(data[start : start + 4])
        if header >> 8 & 0x1FFF != 256 or not header >> 22 & 1:  # not the pictures' PID, or within a packet
            continue
        packet = start + 4 + (1 + data[start + 4] if header >> 5 & 1 else 0)  # after the adaptation field
        if bare(number):
            length = data[packet + 8]
            data[packet + 7] &= 0x3F
            data[packet + 9 : packet + 9 + length] = b"\xff" * length
        number += 1
    target.write_bytes(data)
    return target


def ambisonic(path: Path) -> Path:
    """Relabels four channels of Opus in a Matroska file, in place, as first-order ambisonics."""
    data = bytearray(path.read_bytes())
    data[data.index(b"OpusHead") + 18] = 2  # OpusHead's channel mapping family
    path.write_bytes(data)
    return path


def turn(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Writes the display matrix x' = a x + c y, y' = b x + d y into an MP4's first track header."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # version 0: after times, ids, duration, layer, group and volume
    fixed = [value << 16 for value in (a, b)] + [0] + [value << 16 for value in (c, d)]
    data[matrix : matrix + 20] = struct.pack(">5i", *fixed)
    path.write_bytes(data)
    return path


def forge_ticks(path: Path, target: Path, kind: str, *, faster: int = 1, steps: bool = True) -> Path:
    """Copies an MP4 and forges the index of its "vide" or "soun" track: `faster` times the ticks a second.

    Without `steps`, each packet lasts 0 ticks.
    """
    data = bytearray(path.read_bytes())
    handler = re.search(rb"hdlr.{8}" + kind.encode(), data, re.DOTALL)
    assert handler is not None
    scale = data.rindex(b"mdhd", 0, handler.start()) + 16  # version 0: after flags and two dates
    struct.pack_into(">I", data, scale, struct.unpack_from(">I", data, scale)[0] * faster)
    table = data.index(b"stts", handler.start()) + 8
    for entry in range(0 if steps else struct.unpack_from(">I", data, table)[0]):
        struct.pack_into(">I", data, table + 8 + 8 * entry, 0)
    target.write_bytes(data)
    return target


def _picture_stream(container: av.container.OutputContainer, film: Film) -> tuple:
    stream = container.add_stream(film.codec, rate=25, options={"threads": "1", **film.options})
    stream.width, stream.height, stream.pix_fmt = film.width, film.height, film.pixel_format
    stream.codec_context.time_base = stream.time_base = film.tick
    stream.codec_context.colorspace, stream.codec_context.color_range = film.colour
    paint = film.paint or number_picture
    return stream, (
        _picture(film, paint(number, film.height, film.width), round(time / film.tick))
        for number, time in enumerate(film.times)
    )


def _picture(film: Film, pixels: NDArray[np.uint8], pts: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(pixels, format=film.paint_format)
    frame.colorspace, frame.color_range = film.colour
    frame.pts, frame.time_base = pts, film.tick
    return frame


def _sound_stream(container: av.container.OutputContainer, film: Film) -> tuple:
    layout = {1: "mono", 2: "stereo", 4: "quad", 6: "5.1"}[len(film.gains)]
    stream = container.add_stream(
        film.sound_codec, rate=film.sample_rate, layout=layout, options=dict(film.sound_options)
    )
    return stream, _sounds(film, layout)


def _sounds(film: Film, layout: str) -> "Iterator[av.AudioFrame]":
    """Blocks of tone or silence with clicks: Gaussians of 0.5 ms, whose peak survives coding."""
    start, total = round(film.sound_start * film.sample_rate), int(film.sound_seconds * film.sample_rate)
    for first in range(0, total, film.sound_block):
        seconds = (start + np.arange(first, min(first + film.sound_block, total))) / film.sample_rate
        wave = np.sin(2 * np.pi * film.tone_hz * seconds) / 2
        for click in film.clicks or ():
            if seconds[0] - 0.1 < click < seconds[-1] + 0.1:
                wave += np.exp(-0.5 * ((seconds - click) / 0.00025) ** 2)
        block = (np.outer(wave, film.gains) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.time_base = film.sample_rate, Fraction(1, film.sample_rate)
        frame.pts = start + first
        yield frame
