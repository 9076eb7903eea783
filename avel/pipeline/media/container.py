"""Opens a file with FFmpeg, and turns FFmpeg's errors into ClipRefused."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer

from avel.pipeline.media.refusal import ClipRefused, Reason

FAULTS = (av.error.FFmpegError, OSError, ValueError, IndexError)
"""What PyAV raises for bad data; IndexError where a broken MPEG-TS changes its streams."""

FORWARDING = {"concat", "dash", "hls", "image2", "imf", "rtsp", "sdp", "vobsub", "webm_dash_manifest"}
"""Formats that make FFmpeg read other files or hosts instead of this file."""
FORMATS = ",".join(sorted(av.formats_available - FORWARDING))


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Opens a media file and yields its container.

    Reads only this file, since a playlist named as a video could make FFmpeg read other files or hosts.

    Raises:
        ClipRefused: the file is missing, empty, truncated or unreadable, or takes too much memory.
    """
    av.logging.set_level(None)  # FFmpeg's threads would call into Python to log, and can deadlock
    if not path.is_file():
        raise ClipRefused("missing", "no such file")
    with refusing_faults():
        if not path.stat().st_size:
            raise ClipRefused("empty", "0 bytes")
        try:
            options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
            container = av.open(f"file:{path}", options=options, metadata_errors="replace")
        except av.error.InvalidDataError as error:
            reason: Reason = "truncated" if is_cut_short(path) else "unreadable"
            raise ClipRefused(reason, fault_text(error)) from None
    try:
        yield container
    finally:
        container.close()


@contextmanager
def refusing_faults() -> Iterator[None]:
    """Turns FFmpeg's errors within the block into ClipRefused, as memory or unreadable."""
    try:
        yield
    except MemoryError as error:
        raise ClipRefused("memory", fault_text(error)) from None
    except FAULTS as error:
        raise ClipRefused("unreadable", fault_text(error)) from None


def fault_text(error: Exception) -> str:
    """Returns the error in one line, without the path that FFmpeg adds."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]


def is_cut_short(path: Path) -> bool:
    """Returns whether an MP4 or QuickTime file ends within one of its boxes, or has no index `moov`."""
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
