"""Draws a video's events: a picture over the time axis, or a copy of the video with a timeline below."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from avel.errors import AvelError
from avel.grid import Grid, evenly_spaced
from avel.heads.tasks.task import track_blocks
from avel.pipeline.media.container import FAULTS
from avel.pipeline.media.log_mel import log_mel
from avel.pipeline.media.reading import Media, open_media
from avel.pipeline.media.refusal import ClipRefused
from avel.recipes.predicting.band import Band
from avel.recipes.predicting.events import VideoEvents
from avel.stores.files import atomic_path, file_at
from avel.views.plots.style import figure, save
from avel.views.plots.timeline import Bar, Clip, draw_clip

PICTURES, PICTURE_PIXELS = 12, 160
LARGEST_WIDTH = 1280
CLOCK = Fraction(1, 90000)
"""Time base of the copy's video stream: MPEG's own, fine enough for every frame rate."""
AAC_SAMPLE_RATE = 48000
X264 = {"preset": "veryfast", "crf": "22"}


def write_preview(video: VideoEvents, out: Path) -> None:
    """Writes `out` in the format of its ending: .png, or .mp4 with picture and sound.

    Raises:
        ClipRefused: the video cannot be read.
        AvelError: the copy cannot be encoded.
    """
    if out.suffix.lower() == ".png":
        _picture(video, out)
        return
    with atomic_path(out) as partial:
        try:
            _copy(video, partial)
        except ClipRefused:
            raise
        except FAULTS as error:
            raise AvelError(
                f"{out}: cannot be encoded: {error}", hint="--preview with a .png instead"
            ) from None


def _picture(video: VideoEvents, out: Path) -> None:
    length, seconds = len(video.segments), video.segment_seconds
    grid = Grid.without_frames(length, seconds, size=PICTURE_PIXELS)
    with open_media(file_at(video.video), grid) as media:
        frames = np.concatenate(list(media.frames()))[:: grid.frames_per_segment]
        patches = [log_mel(chunk.reshape(-1, grid.samples_per_segment)) for chunk in media.samples()]
    clip = Clip(
        title=Path(video.video).name,
        segments=length,
        segment_seconds=seconds,
        bars=_bars(video),
        frames=frames[evenly_spaced(length, PICTURES)],
        log_mel=np.concatenate(patches),
    )
    with figure(10, 2.5 + 0.4 * sum(bar.lanes for bar in clip.bars)) as fig:
        draw_clip(fig, clip)
    save(fig, out)


def _bars(video: VideoEvents) -> tuple[Bar, ...]:
    """Returns a bar of the events of each track that has any."""
    categories = tuple(dict.fromkeys(event.category for event in video.events))
    names = sorted({event.track for event in video.events}) or [""]
    bars = []
    for name in names:
        own = [event for event in video.events if event.track == name]
        # The middle of the last segment may lie at the end of the video, or after it, where no event is
        middles = (np.arange(len(video.segments)) + 0.5) * video.segment_seconds
        shown = [
            tuple(sorted(categories.index(e.category) for e in own if e.start_seconds <= at < e.end_seconds))
            for at in np.minimum(middles, video.valid_seconds - 1e-3).tolist()
        ]
        blocks = track_blocks(categories, shown, None, "prediction")
        bars.append(Bar(f"predicted, {name}" if name else "predicted", blocks))
    return tuple(bars)


def _copy(video: VideoEvents, partial: Path) -> None:
    """Encodes picture and audio again, with a band below the picture: where events are, and which is on now.

    Both come as staging reads them, so the copy shows and plays what the head was given, but in full size.
    """
    length = len(video.segments) + 1  # up to half a segment may follow the last one
    grid = Grid.without_frames(length, video.segment_seconds, sample_rate=AAC_SAMPLE_RATE)
    with open_media(file_at(video.video), grid) as media, av.open(str(partial), "w", format="mp4") as target:
        pictures = _PictureWriter(target, video)
        audio = _AudioWriter(target, media, video.valid_seconds) if media.info.audio_codec else None
        for frame, seconds in media.full_pictures():
            pictures.write(frame, seconds)
            if audio is not None:
                audio.write_until(seconds)
        pictures.close()
        if audio is not None:
            audio.close()


class _AudioWriter:
    """Writes the audio that staging reads, a second at a time, up to the picture that was written last."""

    def __init__(self, target: Any, media: Media, seconds: float) -> None:
        self._target, self._chunks = target, media.samples()
        self._stream = target.add_stream("aac", rate=AAC_SAMPLE_RATE, layout="mono")
        self._done, self._samples = 0, round(seconds * AAC_SAMPLE_RATE)

    def write_until(self, seconds: float) -> None:
        """Encodes chunks until one reaches `seconds`."""
        while self._done < min(self._samples, seconds * AAC_SAMPLE_RATE) and self._write():
            pass

    def close(self) -> None:
        """Writes the rest, and what the encoder still holds."""
        while self._write():
            pass
        self._target.mux(self._stream.encode(None))

    def _write(self) -> bool:
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        chunk = chunk[: max(0, self._samples - self._done)]
        for first in range(0, len(chunk), AAC_SAMPLE_RATE):
            part = np.ascontiguousarray(chunk[None, first : first + AAC_SAMPLE_RATE])
            frame = av.AudioFrame.from_ndarray(part, "fltp", "mono")
            frame.sample_rate, frame.time_base = AAC_SAMPLE_RATE, Fraction(1, AAC_SAMPLE_RATE)
            frame.pts = self._done + first
            self._target.mux(self._stream.encode(frame))
        self._done += len(chunk)
        return True


class _PictureWriter:
    """Writes frames with the band below, on the clip's clock."""

    def __init__(self, target: Any, video: VideoEvents) -> None:
        self._target, self._video = target, video
        self._stream = target.add_stream("libx264", rate=30, options=X264)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = CLOCK
        self._band: Band | None = None
        self._last = -1

    def write(self, frame: av.VideoFrame, seconds: float) -> None:
        """Encodes one frame, which is presented at `seconds`."""
        ticks = round(seconds / CLOCK)
        if ticks <= self._last:
            return
        self._last = ticks
        turns = round(frame.rotation / 90)  # as the container says
        pixels = np.rot90(frame.to_ndarray(format="rgb24"), turns)
        if self._band is None:
            self._begin(*pixels.shape[:2])
        assert self._band is not None
        resized = np.asarray(Image.fromarray(pixels).resize((self._width, self._height)))
        whole = np.concatenate((resized, self._band.at(seconds)))
        encoded = av.VideoFrame.from_ndarray(np.ascontiguousarray(whole), format="rgb24")
        encoded.pts, encoded.time_base = ticks, CLOCK
        self._target.mux(self._stream.encode(encoded))

    def close(self) -> None:
        """Writes the frames that the encoder has not given out yet."""
        if self._band is not None:
            self._target.mux(self._stream.encode(None))

    def _begin(self, height: int, width: int) -> None:
        scale = min(1.0, LARGEST_WIDTH / width)
        self._width, self._height = (max(2, round(side * scale / 2) * 2) for side in (width, height))
        self._band = Band(self._video, self._width)
        self._stream.width = self._width
        self._stream.height = self._height + self._band.height
