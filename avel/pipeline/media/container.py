"""Opens a file with FFmpeg, and turns FFmpeg's errors into ClipRefused."""

import re
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path

import av
from av.container import InputContainer

from avel.pipeline.media.refusal import ClipRefused

FAULTS = (av.error.FFmpegError, OSError, ValueError, IndexError)
"""Errors that PyAV raises for bad data; IndexError where a broken MPEG-TS changes its streams. PyAV's error
for too little memory is an FFmpegError and a MemoryError at once, so catch MemoryError first."""

FORWARDING = {"concat", "dash", "hls", "image2", "imf", "rtsp", "sdp", "vobsub", "webm_dash_manifest"}
"""Formats that make FFmpeg read other files or hosts instead of this file."""
HEADERS = {
    "matroska": re.compile(rb"\x1aE\xdf\xa3.{0,64}?(matroska|webm)", re.DOTALL),
    "flv": re.compile(rb"FLV\x01"),
}
"""First bytes of files of these formats. Where several are joined, FFmpeg does not read all of them."""
FRAGMENT = re.compile(rb"(.{4})moof.{4}mfhd", re.DOTALL)
TRACK = re.compile(rb"tfhd.{4}(.{4})", re.DOTALL)
"""Beginning of a fragment of MP4, and the number of a track in it."""
MOST_FRAGMENT_BYTES = 1 << 20
CONTAINER_FORMATS = ",".join(sorted(av.formats_available - FORWARDING))


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
            options = {"protocol_whitelist": "file", "format_whitelist": CONTAINER_FORMATS}
            container = av.open(f"file:{path}", options=options, metadata_errors="replace")
        except av.error.InvalidDataError as error:
            if is_cut_short(path):
                raise ClipRefused("truncated", "the file breaks off, or has no index (moov)") from None
            raise ClipRefused("unreadable", fault_text(error)) from None
    try:
        yield container
    finally:
        container.close()


def codec_name(container: InputContainer, index: int) -> str:
    """Returns the name of a stream's codec, or its tag in the container; "unknown" where neither is known.

    PyAV names only codecs that it can decode. FFmpeg's log names the others.
    """
    av.logging.set_level(av.logging.INFO)
    text: str = container.dumps_format()  # type: ignore[attr-defined] # PyAV's stubs lack it
    av.logging.set_level(None)
    # such as "Stream #0:1[0x2](und): Audio: none (apac / 0x63617061), 44100 Hz"
    match = re.search(rf"Stream #0:{index}\b.*?: \w+: (\w+)(?: \([^)]*?\))*? ?(?:\((\S+) / 0x)?", text)
    names = match.groups() if match else ()
    return next((name for name in names if name and name != "none"), "unknown")


@contextmanager
def refusing_faults() -> Iterator[None]:
    """Turns FFmpeg's errors within the block into ClipRefused with the reason memory or unreadable."""
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


def unread_file(path: Path, container: InputContainer, read_bytes: int) -> int | None:
    """Returns the byte at which another file begins after the first `read_bytes`; None where none does.

    Joined MPEG-TS and MPEG-PS are read to their end. Of joined MP4 and FLV files FFmpeg reads the first, and
    of Matroska files two.
    """
    names = container.format.name.split(",")
    if "mp4" in names:
        return next(
            (at for at, kind, _ in _boxes(path) if kind == b"ftyp" and at >= max(read_bytes, 1)), None
        )
    header = next((header for name, header in HEADERS.items() if name in names), None)
    if header is None or not 0 < read_bytes < path.stat().st_size:
        return None
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        match = header.search(data, read_bytes)
        return match.start() if match else None


def unread_fragment(
    path: Path, container: InputContainer, tracks: Collection[int], read_bytes: int
) -> int | None:
    """Returns the byte at which a fragment of `tracks` begins after the first `read_bytes`; None without any.

    FFmpeg goes from box to box, and stops where bytes are missing or zero.
    """
    if "mp4" not in container.format.name.split(",") or not read_bytes < path.stat().st_size:
        return None
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        for match in FRAGMENT.finditer(data, read_bytes):
            size = int.from_bytes(match[1])
            moof = data[match.start() : match.start() + min(size, MOST_FRAGMENT_BYTES)]
            if any(int.from_bytes(track) in tracks for track in TRACK.findall(moof)):
                return match.start()
    return None


def is_cut_short(path: Path) -> bool:
    """Returns whether an MP4 or QuickTime file ends within one of its boxes, or has no index `moov`."""
    end, kinds = 0, []
    for at, kind, length in _boxes(path):
        kinds.append(kind)
        end = at + length
        if kinds[0] not in (b"ftyp", b"wide", b"mdat", b"moov", b"free", b"skip"):
            return False
    return end > path.stat().st_size or b"moov" not in kinds


def _boxes(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """Yields position, kind and length of each box of an MP4 or QuickTime file."""
    size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            length, kind, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
            length = max(large if length == 1 else length or size - position, 8)
            yield position, kind, length
            position += length
