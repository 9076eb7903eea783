"""Opening a file with FFmpeg, and turning whatever FFmpeg says against it into a refusal."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer

from avel.pipeline.media.refusal import ClipRefused, Reason

FAULTS = (av.error.FFmpegError, OSError, ValueError, IndexError)
"""What PyAV raises over bad data; IndexError where a broken MPEG-TS changes its streams."""

FORWARDING = {"concat", "dash", "hls", "image2", "imf", "rtsp", "sdp", "vobsub", "webm_dash_manifest"}
"""Formats that name other files, or hosts, to be read in the place of this one."""
FORMATS = ",".join(sorted(av.formats_available - FORWARDING))


@contextmanager
def reading(path: Path) -> Iterator[InputContainer]:
    """The open container.

    Only this very file is read: a playlist that poses as a video must not reach other files or hosts.

    Raises:
        ClipRefused: missing, empty, truncated, memory or unreadable.
    """
    av.logging.set_level(None)  # a callback into Python from FFmpeg's threads can deadlock
    if not path.is_file():
        raise ClipRefused("missing", "no such file")
    with guarding():
        if not path.stat().st_size:
            raise ClipRefused("empty", "0 bytes")
        try:
            options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
            container = av.open(f"file:{path}", options=options, metadata_errors="replace")
        except av.error.InvalidDataError as error:
            reason: Reason = "truncated" if cut_short(path) else "unreadable"
            raise ClipRefused(reason, describe(error)) from None
    try:
        yield container
    finally:
        container.close()


@contextmanager
def guarding() -> Iterator[None]:
    """Turns FFmpeg's errors within the block into ClipRefused: memory or unreadable."""
    try:
        yield
    except MemoryError as error:
        raise ClipRefused("memory", describe(error)) from None
    except FAULTS as error:
        raise ClipRefused("unreadable", describe(error)) from None


def describe(error: Exception) -> str:
    """The error in one line, without the path that FFmpeg adds."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]


def cut_short(path: Path) -> bool:
    """Whether an MP4 or QuickTime file ends within one of its boxes, or before its index `moov`."""
    size, position, kinds = path.stat().st_size, 0, []
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            header = file.read(16).ljust(16, b"\0")
            length, kind, large = struct.unpack(">I4sQ", header)
            kinds.append(kind)
            if kinds[0] not in (b"ftyp", b"wide", b"mdat", b"moov", b"free", b"skip"):
                return False
            length = large if length == 1 else length or size - position
            position += max(length, 8)
    return position > size or b"moov" not in kinds
