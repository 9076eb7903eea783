"""One media file on the grid: frames and samples on one clock, in bounded memory at any length.

Decisions where files leave a choice:

- *Clock.* Slot 0 is the earliest moment at which either stream is presented, one origin for both.
- *Late picture.* Before its first picture a clip shows that picture; before its first sound there is silence.
- *Damage.* A file that ends early, or whose packets do not all decode, is staged with what came, and
  `info.damage` says so; it is refused as truncated only when less than one segment of picture came.
- *No time stamp.* A picture whose packet has none is shown one usual step after the one before it.
- *Leaps.* Where time stamps leap, the last picture is held, sound is silent, and `info.damage` says so.
- *Jitter.* Sound whose time stamps jitter is presented without a gap, as `SampleClock` says.
- *Several streams.* FFmpeg's best picture stream and the sound that goes with it; cover art is no picture.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from numpy.typing import NDArray

from avel.grid import CHUNK_SEGMENTS, Grid
from avel.pipeline.media.audio import AudioReader
from avel.pipeline.media.container import cut_short, guarding, reading
from avel.pipeline.media.info import MediaInfo, media_info, pixel_aspect, promised_seconds, stamp_faults
from avel.pipeline.media.picture import PictureScaler, Resize, jpeg_colours
from avel.pipeline.media.refusal import ClipRefused, Reason
from avel.pipeline.media.sample_clock import GAP_SECONDS
from avel.pipeline.media.scan import Track, scan
from avel.pipeline.media.video import VideoReader
from avel.stores.jpeg import Colours

MissingAudio = Literal["silence", "fail"]


class Media:
    """An open file on `grid`; made by `open_media`."""

    def __init__(
        self,
        video: VideoReader,
        audio: AudioReader | None,
        grid: Grid,
        info: MediaInfo,
        promised: float,
        missing_audio: MissingAudio,
    ) -> None:
        self._video, self._audio, self._grid, self._promised = video, audio, grid, promised
        self._missing_audio = missing_audio
        self.info = info

    @property
    def colours(self) -> Colours:
        """What each of `frames` is."""
        return self._video.colours

    @property
    def heard(self) -> bool:
        """Whether any sound lies on the grid; to be asked after `samples`."""
        return self._audio is not None and self._audio.heard

    @property
    def scale_seconds(self) -> float:
        """Time spent on scaling, as part of `pictures` and `frames`."""
        return self._video.scale_seconds

    def pictures(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """Each picture that is on screen at a slot, and for how many slots; `grid.frames` of them in all.

        In `colours`: RGB (S, S, 3), or I420 (3 S / 2, S). The next picture takes the memory of the last one.

        Raises:
            ClipRefused: unreadable, truncated or memory, at the latest after the last picture.
        """
        with guarding():
            yield from self._video.pictures()
        self._check_video()

    def frames(self, segments: int = CHUNK_SEGMENTS) -> Iterator[NDArray[np.uint8]]:
        """`pictures`, each as often as it is shown, in chunks of at most so many segments: (n, ...).

        Raises:
            ClipRefused: as `pictures` does.
        """
        step, left = segments * self._grid.frames_per_segment, self._grid.frames
        chunk, filled = self._video.room(min(step, left)), 0
        for picture, slots in self.pictures():
            for _ in range(slots):
                chunk[filled] = picture
                filled += 1
                if filled == len(chunk):
                    yield chunk
                    left -= filled
                    chunk, filled = self._video.room(min(step, left)), 0

    def samples(self) -> Iterator[NDArray[np.float32]]:
        """Chunks (n,) in [-1, 1] of at most ten segments' samples, `grid.samples` in all.

        Raises:
            ClipRefused: memory, or no-audio where none of it lies on the grid and `missing_audio` is "fail".
        """
        if self._audio is not None:
            with guarding():
                yield from self._audio.samples()
            self._check_audio(self._audio)
            return
        step = self._grid.samples_per_segment * CHUNK_SEGMENTS
        for first in range(0, self._grid.samples, step):
            yield np.zeros(min(step, self._grid.samples - first), np.float32)

    def _check_audio(self, audio: AudioReader) -> None:
        faults = [f"sound packets not decoded: {audio.errors}"] if audio.errors else []
        if audio.unmixed:
            faults.append(f"blocks of sound not mixed to mono: {audio.unmixed}")
        for fault in (*faults, *_leaps(audio)):
            self._damaged(fault)
        if not audio.heard and self._missing_audio == "fail":
            start = f"the sound starts at {self.info.audio_start_seconds:.1f} s"
            raise ClipRefused("no-audio", "; ".join(faults) or start)

    def _check_video(self) -> None:
        came = self._video.covered_seconds
        due = min(self._promised, self._grid.seconds)
        if came < min(due, self._grid.segment_seconds) - 0.5 / max(self.info.fps, 1):
            raise ClipRefused("truncated", f"{came:.2f} s of picture came, {due:.2f} s were promised")
        if due - came > self._grid.segment_seconds:
            self._damaged(f"the picture ends at {came:.2f} s of {due:.2f} s")
            valid = min(self._grid.seconds, max(came, self.info.audio_end_seconds))
            self.info = replace(self.info, video_end_seconds=came, valid_seconds=valid)
        if self._video.errors:
            self._damaged(f"picture packets not decoded: {self._video.errors}")
        if self._video.corrupt:
            self._damaged(f"pictures incomplete: {self._video.corrupt}")

    def _damaged(self, what: str) -> None:
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
    """Opens a local file and lays it on `grid`; calls `alive` now and then while it looks over a long one.

    Frames are RGB, or with `for_jpeg` in whichever `colours` are the least work on the way to a JPEG file.

    >>> with open_media("clip.mp4", Grid()) as media:  # doctest: +SKIP
    ...     next(media.frames()).shape, next(media.samples()).shape
    ((160, 256, 256, 3), (160000,))

    Raises:
        ClipRefused: the file is missing, empty, unreadable, without picture, without sound (where
            `missing_audio` is "fail") or of an unknown codec.
    """
    path = Path(path)
    with reading(path) as container:
        video, audio = _tracks(path, container)
        tracks = [track for track in (video, audio) if track is not None]
        broken = scan(container, tracks, grid.seconds, alive)
        if not video.times:
            raise ClipRefused(*_emptiness(container, broken))
        if audio is None or not audio.times:
            if missing_audio == "fail":
                raise ClipRefused("no-audio", "no sound stream, or an empty one")
            audio = None
        origin = min(track.start_seconds for track in (video, audio) if track is not None)
        late = float(video.start_seconds - origin)
        if late >= grid.seconds:
            raise ClipRefused("no-video", f"the picture starts {late:.1f} s after the sound")
        info = media_info(container, video, audio, grid, origin)
        faults = [fault for track in tracks for fault in stamp_faults(track, grid, origin)]
        info = replace(info, damage="; ".join(filter(None, (broken, *faults))))
        colours = jpeg_colours(video.stream, grid.size) if for_jpeg else "rgb"
        scaler = PictureScaler(grid.size, resize, pixel_aspect(video), colours)
        yield Media(
            VideoReader(path, video, grid, origin, scaler),
            AudioReader(path, audio, grid, origin) if audio else None,
            grid,
            info,
            promised_seconds(container, video, origin),
            missing_audio,
        )


def _leaps(audio: AudioReader) -> Iterator[str]:
    """What was done about the sound's time stamps, where they do not just follow its samples."""
    if audio.gaps:
        yield f"gaps in the sound: {len(audio.gaps)}, {sum(audio.gaps):.2f} s of silence"
    if audio.overlaps:
        yield f"overlaps in the sound: {len(audio.overlaps)}, {sum(audio.overlaps):.2f} s left out"
    if audio.jitter_seconds > GAP_SECONDS:
        yield f"the sound's time stamps jitter by up to {audio.jitter_seconds * 1000:.0f} ms: not followed"


def _emptiness(container: InputContainer, broken: str) -> tuple[Reason, str]:
    claimed = (container.duration or 0) / av.time_base
    if broken or claimed:
        return "truncated", broken or f"no picture came of the {claimed:.2f} s that the header promises"
    return "unreadable", "the picture stream is empty"


def _tracks(path: Path, container: InputContainer) -> tuple[Track, Track | None]:
    pictures = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not pictures:
        raise ClipRefused("truncated" if cut_short(path) else "no-video", "no picture stream")
    best: Any = container.streams.best("video")
    picture = best if best in pictures else pictures[0]
    if picture.codec_context is None:
        raise ClipRefused("unsupported", "no decoder for the picture stream")
    sound: Any = container.streams.best("audio", related=picture)
    if sound is not None and sound.codec_context is None:
        sound = None
    timed = container.format.name != "avi"
    return Track(picture, timed=timed), Track(sound) if sound is not None else None
