"""Reads a media file onto the grid: frames and samples on one clock, in bounded memory at any length.

What happens where files leave a choice:

- *Clock.* Slot 0 is the earliest moment at which either stream is presented, one origin for both.
- *Late start.* Before its first picture a clip shows that picture. Before its first audio there is silence.
- *Damage.* A file that ends early, or has packets that cannot be decoded, is staged with the rest, and
  `info.damage` says so. It is refused as truncated only if it has less than one segment of video.
- *No time stamp.* A picture without one is shown one usual step after the picture before it.
- *Leaps.* Where time stamps leap ahead, the last picture stays, audio is silent, and `info.damage` says so.
- *Joined files.* Where all time stamps leap back, the next part follows: see `joined_parts`.
- *Jitter.* Audio whose time stamps jitter is presented without a gap, as `SampleClock` explains.
- *Several streams.* FFmpeg's best video stream is read, and the audio that belongs to it, but no cover art.
  Where that audio cannot be decoded, the first stream that can be is read, and `info.damage` says so.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from avel.grid import CHUNK_SEGMENTS, Grid
from avel.pipeline.media.audio import AudioReader, is_decodable
from avel.pipeline.media.container import (
    codec_name,
    is_cut_short,
    open_container,
    refusing_faults,
    unread_file,
    unread_fragment,
)
from avel.pipeline.media.info import MediaInfo, is_still, media_info, stamp_faults, stated_seconds
from avel.pipeline.media.joined_parts import follow_parts
from avel.pipeline.media.picture import PictureScaler, Resize, jpeg_colours
from avel.pipeline.media.refusal import ClipRefused
from avel.pipeline.media.scan import ScannedStream, scan
from avel.pipeline.media.video import VideoReader
from avel.stores.jpeg import Colours
from avel.stores.manifest import Reason
from avel.text import plural

MissingAudio = Literal["silence", "fail"]


class Media:
    """An open file on `grid`; `open_media` makes it.

    Attributes:
        info: what the file holds. `pictures` and `samples` add the damage they find.
    """

    def __init__(
        self,
        video: VideoReader,
        audio: AudioReader | None,
        grid: Grid,
        info: MediaInfo,
        stated_seconds: float,
        missing_audio: MissingAudio,
    ) -> None:
        self._video, self._audio, self._grid, self._stated_seconds = video, audio, grid, stated_seconds
        self._missing_audio = missing_audio
        self.info = info

    @property
    def colours(self) -> Colours:
        """Returns the layout of the frames."""
        return self._video.scaler.colours

    @property
    def has_audio(self) -> bool:
        """Returns True if any audio lies on the grid; known once `samples` is exhausted."""
        return self._audio is not None and self._audio.has_audio

    @property
    def scale_seconds(self) -> float:
        """Returns the time spent on scaling within `pictures` and `frames`."""
        return self._video.scale_seconds

    def pictures(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """Yields each picture with the number of slots it is on screen, `grid.frames` slots in all.

        Pictures are in `colours`: RGB (S, S, 3) or I420 (3 S / 2, S). Each overwrites the one before.

        Raises:
            ClipRefused: unreadable, truncated or memory; truncated only after the last picture.
        """
        with refusing_faults():
            yield from self._video.pictures()
        self._check_video()

    def full_pictures(self) -> Iterator[tuple[VideoFrame, float]]:
        """Yields every decoded picture as it is in the file, with its seconds after the origin.

        Raises:
            ClipRefused: unreadable or memory.
        """
        with refusing_faults():
            yield from self._video.full_pictures()

    def frames(self, segments: int = CHUNK_SEGMENTS) -> Iterator[NDArray[np.uint8]]:
        """Yields `pictures`, repeated for each slot, in chunks (n, ...) of at most `segments` segments.

        Raises:
            ClipRefused: as `pictures` does.
        """
        step, left = segments * self._grid.frames_per_segment, self._grid.frames
        chunk, filled = self._video.scaler.allocate(min(step, left)), 0
        for picture, slots in self.pictures():
            for _ in range(slots):
                chunk[filled] = picture
                filled += 1
                if filled == len(chunk):
                    yield chunk
                    left -= filled
                    chunk, filled = self._video.scaler.allocate(min(step, left)), 0

    def samples(self) -> Iterator[NDArray[np.float32]]:
        """Yields chunks (n,) in [-1, 1] of at most ten segments, `grid.samples` in all.

        Raises:
            ClipRefused: memory, or no-audio where no audio lies on the grid and `missing_audio` is "fail".
        """
        if self._audio is not None:
            with refusing_faults():
                yield from self._audio.samples()
            self._check_audio(self._audio)
            return
        step = self._grid.samples_per_segment * CHUNK_SEGMENTS
        for first in range(0, self._grid.samples, step):
            yield np.zeros(min(step, self._grid.samples - first), np.float32)

    def _check_audio(self, audio: AudioReader) -> None:
        faults = list(audio.faults())
        covered, stated = (
            min(end, self._grid.seconds) for end in (audio.end_seconds, self.info.audio_end_seconds)
        )
        ends_early = stated - covered > self._grid.segment_seconds
        if ends_early:
            faults.append(f"the audio ends at {covered:.2f} s of {stated:.2f} s")
        if not (audio.has_audio or faults):
            faults = [f"the audio starts at {self.info.audio_start_seconds:.1f} s"]
        for fault in faults:
            self._add_damage(fault)
        if not audio.has_audio and self._missing_audio == "fail":
            raise ClipRefused("no-audio", "; ".join(faults))
        if audio.errors or ends_early:
            self._end_earlier(audio_end_seconds=audio.end_seconds)

    def _check_video(self) -> None:
        covered = self._video.covered_seconds
        stated = self._stated_seconds
        if covered < min(stated, self._grid.segment_seconds) - 0.5 / max(self.info.fps, 1):
            raise ClipRefused("truncated", f"the video ends at {covered:.2f} s of {stated:.2f} s")
        for fault in self._video.faults():
            self._add_damage(fault)
        if self._video.errors:
            self._end_earlier(video_end_seconds=covered)
        if stated - covered > self._grid.segment_seconds:
            self._add_damage(f"the video ends at {covered:.2f} s of {stated:.2f} s")
            self._end_earlier(video_end_seconds=covered)
            if self._audio is not None and self._video.errors:  # zeros up to the end were never written
                self._end_earlier(audio_end_seconds=self._audio.zeros_begin_seconds())

    def _end_earlier(self, **ends: float) -> None:
        """Moves the stated end of a stream to where its last decoded picture or samples end."""
        info = replace(self.info, **{name: min(end, getattr(self.info, name)) for name, end in ends.items()})
        valid = min(self._grid.seconds, max(info.video_end_seconds, info.audio_end_seconds))
        self.info = replace(info, valid_seconds=valid)

    def _add_damage(self, what: str) -> None:
        if what not in self.info.damage:
            self.info = replace(self.info, damage="; ".join(filter(None, (self.info.damage, what))))


@contextmanager
def open_media(
    path: Path | str,
    grid: Grid,
    *,
    resize: Resize = "squash",
    missing_audio: MissingAudio = "silence",
    for_jpeg: bool = False,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[Media]:
    """Opens a local file on `grid`; calls `alive` now and then while it scans a long one.

    Frames are RGB, or with `for_jpeg` in the `colours` that become JPEG files fastest.

    >>> with open_media("clip.mp4", Grid()) as media:  # doctest: +SKIP
    ...     next(media.frames()).shape, next(media.samples()).shape
    ((160, 256, 256, 3), (160000,))

    Raises:
        ClipRefused: the file is missing, empty, truncated, unreadable, of an unknown codec or without video,
            takes too much memory, or is without audio where `missing_audio` is "fail".
    """
    path = Path(path)
    with open_container(path) as container:
        video, tracks = _choose_streams(path, container)
        with refusing_faults():
            fault = scan(container, [video, *tracks], grid.seconds, alive)
            audio, audio_faults = _choose_audio(path, container, tracks)
        streams = [stream for stream in (video, audio) if stream is not None]
        joined = _follow_parts(streams)
        if not video.times:
            raise ClipRefused(*_emptiness(container, fault))
        if is_still(container, video):
            raise ClipRefused("no-video", f"a still picture ({video.av_stream.codec_context.name})")
        if audio is None and missing_audio == "fail":
            if audio_faults:
                raise ClipRefused("unsupported", "; ".join(audio_faults))
            raise ClipRefused("no-audio", "no audio stream, or an empty one")
        origin = min(stream.start_seconds for stream in streams)
        late = float(video.start_seconds - origin)
        if late >= grid.seconds:
            raise ClipRefused("no-video", f"the video starts {late:.1f} s after the audio")
        info = media_info(video, audio, grid, origin)
        faults = [each for stream in streams for each in stamp_faults(stream, grid, origin)]
        damage = (fault, *joined, *faults, *audio_faults, *_unread(path, container, streams))
        info = replace(info, damage="; ".join(filter(None, damage)))
        colours = jpeg_colours(video.av_stream, grid.size) if for_jpeg else "rgb"
        aspect = float(video.av_stream.sample_aspect_ratio or 1)  # width of one pixel over its height
        scaler = PictureScaler(grid.size, resize, aspect, colours)
        yield Media(
            VideoReader(path, video, grid, origin, scaler),
            AudioReader(path, audio, grid, origin) if audio else None,
            grid,
            info,
            stated_seconds(container, video, info, grid, origin),
            missing_audio,
        )


def _follow_parts(streams: list[ScannedStream]) -> list[str]:
    """Lets the parts of a joined file follow each other, and returns what was done."""
    begins = follow_parts(streams)
    for stream in streams:
        stream.settle()
    if begins is None:
        leaps = [(stream.av_stream.type, len(stream.parts) - 1) for stream in streams]
        return [
            f"time stamps of the {kind} alone leap back: {count}, not followed"
            for kind, count in leaps
            if count
        ]
    if not begins:
        return []
    first = begins[0] - float(min(stream.start_seconds for stream in streams))
    more = f", and {plural(len(begins) - 1, 'time')} more" if len(begins) > 1 else ""
    return [f"time stamps start again at {first:.2f} s{more}: joined there"]


def _unread(path: Path, container: InputContainer, streams: list[ScannedStream]) -> Iterator[str]:
    """Yields a fault where another file, or fragments, follow unread, and the grid is not yet filled."""
    if all(stream.passed for stream in streams):
        return
    read_bytes = max(stream.read_bytes for stream in streams)
    if (begin := unread_file(path, container, read_bytes)) is not None:
        yield f"another file that was joined to it at byte {begin} is not read"
        return
    tracks = [stream.av_stream.id for stream in streams]
    if (begin := unread_fragment(path, container, tracks, read_bytes)) is not None:
        yield f"fragments from byte {begin} on are not read: bytes are missing before them"


def _emptiness(container: InputContainer, fault: str) -> tuple[Reason, str]:
    """Returns why a video stream has no packet, and the detail."""
    stated = (container.duration or 0) / av.time_base
    if fault or stated:
        return "truncated", fault or f"no video of the {stated:.2f} s that the header states"
    return "unreadable", "the video stream is empty"


def _choose_streams(path: Path, container: InputContainer) -> tuple[ScannedStream, list[ScannedStream]]:
    """Returns the video stream to read, and the audio streams that have a decoder, the best first.

    Raises:
        ClipRefused: there is no video stream, or no decoder for any.
    """
    videos = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not videos:
        raise ClipRefused("truncated" if is_cut_short(path) else "no-video", "no video stream")
    decodable = _decodable(videos, container.streams.best("video"))
    if not decodable:
        name = codec_name(container, videos[0].index)
        raise ClipRefused("unsupported", f"no decoder for the video ({name})")
    best = container.streams.best("audio", related=decodable[0])
    tracks = _decodable(container.streams.audio, best)
    timed = container.format.name != "avi"
    return ScannedStream(decodable[0], timed=timed), [ScannedStream(track) for track in tracks]


def _decodable(streams: Sequence[Any], best: Any) -> list[Any]:
    """Returns the streams that have a decoder, the best first if it has one."""
    ordered = sorted(streams, key=lambda stream: stream is not best)
    return [stream for stream in ordered if stream.codec_context is not None]


def _choose_audio(
    path: Path, container: InputContainer, tracks: list[ScannedStream]
) -> tuple[ScannedStream | None, list[str]]:
    """Returns the audio stream to read, None without any, and what is wrong with the others."""
    faults = [
        f"no decoder for the audio ({codec_name(container, each.index)})"
        for each in container.streams.audio
        if each.codec_context is None
    ]
    present = [track for track in tracks if track.times]
    if len(present) < 2:
        return next(iter(present), None), faults
    for track in present:
        if is_decodable(path, track):
            return track, faults
        faults.append(f"the first audio packets cannot be decoded ({track.av_stream.codec_context.name})")
    return present[0], faults
