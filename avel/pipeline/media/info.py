"""What a media file holds, as far as its headers and the scan of its packets tell."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
from av.container import InputContainer

from avel.grid import Grid
from avel.pipeline.media.scan import Track


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds. Times are seconds after the clip's origin, except `origin_seconds` itself."""

    container: str
    video_codec: str
    pixel_format: str
    width: int
    height: int
    fps: float
    audio_codec: str
    """Empty where there is no sound to read."""
    audio_hz: int
    channels: int
    duration_seconds: float
    """What the container claims; 0 where it claims nothing."""
    origin_seconds: float
    """The clip's origin on the container's clock."""
    video_start_seconds: float
    video_end_seconds: float
    audio_start_seconds: float
    audio_end_seconds: float
    valid_seconds: float
    """How much of the grid the file covers; the rest is the last picture held, and silence."""
    damage: str
    """What did not come although it was promised; empty for a whole file. Complete after both reads."""


def media_info(
    container: InputContainer,
    video: Track,
    audio: Track | None,
    grid: Grid,
    origin: Fraction,
) -> MediaInfo:
    """What the container and the scanned tracks say."""
    picture, sound = video.stream.codec_context, audio.stream.codec_context if audio else None
    fps = float(video.stream.average_rate or video.stream.guessed_rate or 0)
    ends = [float(track.end_seconds - origin) if track else 0.0 for track in (video, audio)]
    return MediaInfo(
        container=container.format.name,
        video_codec=picture.name,
        pixel_format=picture.pix_fmt or "",
        width=picture.width,
        height=picture.height,
        fps=fps,
        audio_codec=sound.name if sound else "",
        audio_hz=sound.sample_rate if sound else 0,
        channels=sound.channels if sound else 0,
        duration_seconds=(container.duration or 0) / av.time_base,
        origin_seconds=float(origin),
        video_start_seconds=float(video.start_seconds - origin),
        video_end_seconds=ends[0],
        audio_start_seconds=float(audio.start_seconds - origin) if audio else 0.0,
        audio_end_seconds=ends[1],
        valid_seconds=min(grid.seconds, max(ends)),
        damage="",
    )


def stamp_faults(track: Track, grid: Grid, origin: Fraction) -> list[str]:
    """What is wrong with a stream's time stamps: some are missing, or they leap by more than a segment."""
    kind = "picture" if track.stream.type == "video" else "sound"
    if track.untimed:
        return [f"{kind} packets without a time: {track.untimed}"]
    times, end = sorted(set(track.times)), float(origin + Fraction(grid.seconds)) / track.tick_seconds
    ticks, start, after = max(((b - a, a, b) for a, b in pairwise(times) if a < end), default=(0, 0, 0))
    if (ticks - track.usual_ticks) * track.tick_seconds <= grid.segment_seconds:
        return []
    left, right = (float(pts * track.time_base - origin) for pts in (start, after))
    return [f"no new {kind} between {left:.2f} s and {right:.2f} s"]


def pixel_aspect(video: Track) -> float:
    """Width over height of one pixel."""
    return float(video.stream.sample_aspect_ratio or 1) or 1.0


def promised_seconds(container: InputContainer, video: Track, origin: Fraction) -> float:
    """Seconds after the origin up to which the file says there is picture."""
    if video.stream.duration:
        start = video.stream.start_time or 0
        end = (start + int(video.stream.duration)) * video.time_base
        return float(end - origin)
    return float((container.duration or 0) / av.time_base)
