"""Describes a media file, from its headers and the scan of its packets."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
from av.container import InputContainer

from avel.grid import Grid
from avel.pipeline.media.scan import ScannedStream

STILL_FORMATS = frozenset({"apng", "avif", "gif", "ico", "jpegxl_anim", "mjpeg", "webp"})
"""FFmpeg's formats of still pictures, besides those whose names end in `_pipe`. Some also hold animations."""
STILL_BRANDS = frozenset({"avif", "heic", "heif", "heix", "mif1"})
"""Brands of pictures in the boxes of MP4: HEIF and AVIF."""
ONE_DURATION = ("matroska", "flv")
"""Formats that state only where the longest stream ends. FFmpeg may take that for the end of each stream."""
MOST_FPS, MOST_TOGETHER = 1000, 16
"""Time stamps are wrong where more than S * MOST_FPS + MOST_TOGETHER pictures lie within S seconds."""


@dataclass(frozen=True)
class MediaInfo:
    """Properties of a media file. Times are seconds after the clip's origin."""

    fps: float
    audio_codec: str
    """Empty where there is no audio that can be decoded."""
    video_end_seconds: float
    audio_start_seconds: float
    audio_end_seconds: float
    valid_seconds: float
    """Seconds of the grid that the file covers. The rest is its last picture, and silence."""
    damage: str
    """Parts that are missing or cannot be decoded, "" for none; complete once both streams are read."""


def media_info(video: ScannedStream, audio: ScannedStream | None, grid: Grid, origin: Fraction) -> MediaInfo:
    """Returns what the scanned streams state, with no damage yet."""
    video_end, audio_end = (float(each.end_seconds - origin) if each else 0.0 for each in (video, audio))
    return MediaInfo(
        fps=float(video.av_stream.average_rate or video.av_stream.guessed_rate or 0),
        audio_codec=audio.av_stream.codec_context.name if audio else "",
        video_end_seconds=video_end,
        audio_start_seconds=float(audio.start_seconds - origin) if audio else 0.0,
        audio_end_seconds=audio_end,
        valid_seconds=min(grid.seconds, max(video_end, audio_end)),
        damage="",
    )


def stamp_faults(stream: ScannedStream, grid: Grid, origin: Fraction) -> list[str]:
    """Returns what is wrong with a stream's time stamps.

    Some are missing, or those of pictures leap by more than a segment or lie too close together.
    `AudioReader` finds the leaps of audio, between samples, since one packet may be longer than a segment.
    """
    kind = stream.av_stream.type
    if stream.untimed:
        return [f"{kind} packets without a time: {stream.untimed}"]
    if kind == "audio":
        return []
    times, end = sorted(set(stream.times)), float(origin + Fraction(grid.seconds)) / stream.tick_seconds
    faults, span_seconds = [], (times[-1] - times[0]) * stream.tick_seconds
    if len(stream.times) - MOST_TOGETHER > MOST_FPS * span_seconds:
        faults.append(f"{len(stream.times)} pictures within {span_seconds:.2f} s")
    ticks, start, after = max(((b - a, a, b) for a, b in pairwise(times) if a < end), default=(0, 0, 0))
    if (ticks - stream.usual_ticks) * stream.tick_seconds > grid.segment_seconds:
        left, right = (float(pts * stream.time_base - origin) for pts in (start, after))
        faults.append(f"no new video between {left:.2f} s and {right:.2f} s")
    return faults


def is_still(container: InputContainer, video: ScannedStream) -> bool:
    """Returns whether a file is a single picture in a format of pictures, whatever its name."""
    name, brand = container.format.name, container.metadata.get("major_brand", "")
    is_picture = name.endswith("_pipe") or name in STILL_FORMATS or brand in STILL_BRANDS
    return is_picture and len(video.times) == 1


def stated_seconds(
    container: InputContainer, video: ScannedStream, info: MediaInfo, grid: Grid, origin: Fraction
) -> float:
    """Returns where the file states that the video ends, at most the grid's end: seconds after the origin."""
    if video.av_stream.duration and not container.format.name.startswith(ONE_DURATION):
        start = video.av_stream.start_time or 0
        end = (start + int(video.av_stream.duration)) * video.time_base
        return min(float(end - origin), grid.seconds)
    stated: float = min((container.duration or 0) / av.time_base, grid.seconds)
    may_be_of_audio = info.audio_end_seconds > stated - grid.segment_seconds
    return min(info.video_end_seconds, stated) if may_be_of_audio else stated
