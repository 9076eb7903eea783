"""Writes frames and samples as mp4: H.264 and AAC by the encoders in PyAV's wheels."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from avel.recipes.composing.sounds import Waveform
from avel.stores.files import atomic_path

AAC_BITS_PER_SECOND = 48_000
X264 = {"preset": "ultrafast", "crf": "23"}


def write_mp4(
    path: Path, frames: Iterable[NDArray[np.uint8]], fps: Fraction, sound: Waveform, sample_rate: int
) -> None:
    """Writes frames (H, W, 3) at `fps` and `sound` (channels, n) to `path`, whole or not at all."""
    with atomic_path(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=fps)
        audio = container.add_stream("aac", rate=sample_rate, layout="mono" if len(sound) == 1 else "stereo")
        audio.options = {"aac_coder": "fast"}
        audio.bit_rate = AAC_BITS_PER_SECOND
        track = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), "fltp", audio.layout.name)
        track.sample_rate, track.pts, track.time_base = sample_rate, 0, Fraction(1, sample_rate)
        video.pix_fmt, video.options = "yuv420p", X264
        video.codec_context.thread_count = 1  # with more threads the bytes depend on their number
        for number, pixels in enumerate(frames):
            if number == 0:
                video.height, video.width = pixels.shape[:2]
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = number, 1 / fps
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        container.mux(audio.encode(track))
        container.mux(audio.encode(None))
