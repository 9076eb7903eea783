"""Draws a video's events: a picture over the time axis, or a copy of the video with a timeline below."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from avel.errors import AvelError
from avel.grid import Grid, evenly_spaced
from avel.heads.tasks.single_label import BACKGROUND, SingleLabel
from avel.pipeline.media.container import FAULTS, open_container
from avel.pipeline.media.log_mel import log_mel
from avel.pipeline.media.reading import open_media
from avel.pipeline.media.refusal import ClipRefused
from avel.recipes.predicting.band import Band
from avel.recipes.predicting.events import VideoEvents
from avel.stores.datasets.labels import UNKNOWN
from avel.stores.files import atomic_path
from avel.views.plots.style import figure, save
from avel.views.plots.timeline import Clip, Track, draw_clip

PICTURES, PICTURE_PIXELS = 12, 160
LARGEST_WIDTH = 1280
CLOCK = Fraction(1, 90000)
"""Time base of the copy's video stream: MPEG's own, fine enough for every frame rate."""
X264 = {"preset": "veryfast", "crf": "22"}


def write_preview(found: VideoEvents, out: Path) -> None:
    """Writes `out` in the format of its ending: .png, or .mp4 with picture and sound.

    Raises:
        ClipRefused: the video cannot be read.
        AvelError: the copy cannot be encoded.
    """
    if out.suffix.lower() == ".png":
        _picture(found, out)
        return
    with atomic_path(out) as partial:
        try:
            _copy(found, partial)
        except ClipRefused:
            raise
        except FAULTS as error:
            raise AvelError(
                f"{out}: cannot be encoded: {error}", hint="--preview with a .png instead"
            ) from None


def _picture(found: VideoEvents, out: Path) -> None:
    length, seconds = len(found.segments), found.segment_seconds
    grid = Grid(length, seconds, max(1, round(1 / seconds)), size=PICTURE_PIXELS)
    task = SingleLabel(tuple(dict.fromkeys(name for name, _ in found.segments if name != BACKGROUND)))
    number_of = {name: number for number, name in enumerate(task.class_names)}
    classes = np.array([number_of[name] for name, _ in found.segments])
    blocks = task.blocks(classes, np.full(length, UNKNOWN))
    with open_media(Path(found.video), grid) as media:
        frames = np.concatenate(list(media.frames()))[:: grid.frames_per_segment]
        patches = [
            log_mel(chunk.reshape(-1, grid.samples_per_segment), grid.sample_rate)
            for chunk in media.samples()
        ]
    clip = Clip(
        title=Path(found.video).name,
        segments=length,
        segment_seconds=seconds,
        tracks=(Track("predicted", tuple(blocks)),),
        frames=frames[evenly_spaced(length, PICTURES)],
        log_mel=np.concatenate(patches),
    )
    with figure(10, 2.9) as drawn:
        draw_clip(drawn, clip)
    save(drawn, out)


def _copy(found: VideoEvents, partial: Path) -> None:
    """Re-encodes picture and sound, with a band below that shows all events and the present one."""
    grid = Grid(max(1, len(found.segments)), found.segment_seconds)
    with open_media(Path(found.video), grid) as media:
        origin = Fraction(media.info.origin_seconds)
    with open_container(Path(found.video)) as source, av.open(str(partial), "w", format="mp4") as target:
        picture = source.streams.best("video")
        sound: Any = source.streams.best("audio", related=picture)
        writer = _PictureWriter(target, found, origin)
        voice = target.add_stream("aac", rate=sound.codec_context.sample_rate) if sound else None
        for frame in _frames(source, [stream for stream in (picture, sound) if stream]):
            if isinstance(frame, av.VideoFrame):
                writer.write(frame)
            elif voice is not None:
                start = round(origin / frame.time_base)
                if frame.pts is not None and frame.pts >= start:
                    frame.pts -= start
                    target.mux(voice.encode(frame))
        writer.close()
        if voice is not None:
            target.mux(voice.encode(None))


def _frames(source: Any, streams: list[Any]) -> Iterator[Any]:
    """Yields decoded frames in the order of the file; packets that cannot be decoded are left out."""
    for packet in source.demux(*streams):
        try:
            yield from packet.decode()
        except FAULTS:
            continue


class _PictureWriter:
    """Encodes frames with the band below; time 0 is the clip's start."""

    def __init__(self, target: Any, found: VideoEvents, origin: Fraction) -> None:
        self._target, self._found, self._origin = target, found, origin
        self._stream = target.add_stream("libx264", rate=30, options=X264)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = CLOCK
        self._band: Band | None = None
        self._last = -1

    def write(self, frame: av.VideoFrame) -> None:
        """Encodes one frame; those before the clip's start or without a time are left out."""
        if frame.pts is None or frame.time_base is None:
            return
        seconds = frame.pts * frame.time_base - self._origin
        ticks = round(seconds / CLOCK)
        if seconds < 0 or ticks <= self._last:
            return
        self._last = ticks
        pixels = _upright(frame)
        if self._band is None:
            self._begin(*pixels.shape[:2])
        assert self._band is not None
        whole = np.concatenate((_resized(pixels, self._width, self._height), self._band.at(float(seconds))))
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
        self._band = Band(self._found, self._width)
        self._stream.width = self._width
        self._stream.height = self._height + self._band.height


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Returns RGB (H, W, 3), rotated as the container says."""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, round(frame.rotation / 90))


def _resized(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    from PIL import Image

    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height)))
