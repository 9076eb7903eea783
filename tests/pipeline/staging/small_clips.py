"""Small real mp4 clips (H.264 + AAC) for the tests of staging: two seconds of 64x48 at 12 fps."""

from pathlib import Path

import av
import numpy as np

from avel.pipeline.config import ExtractConfig

SMALL = ExtractConfig(segments=2, fps=4, size=32)
"""Two segments of four frames, so that a clip is staged in milliseconds."""

SECONDS, FPS, SAMPLE_RATE, WIDTH, HEIGHT = 2, 12, 16000, 64, 48


def make_clip(path: Path, *, seed: int = 0, seconds: float = SECONDS, sound: bool = True) -> Path:
    """A clip whose picture and tone follow from `seed`."""
    noise = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "g": "12"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if sound else None
        base = noise.integers(0, 200, (HEIGHT // 8, WIDTH // 8, 3)).repeat(8, 0).repeat(8, 1)
        for number in range(round(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray((base + number).astype(np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
            tone = 8000 * np.sin(2 * np.pi * noise.integers(200, 4000) * times)
            sound_frame = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
            sound_frame.sample_rate = SAMPLE_RATE
            container.mux(audio.encode(sound_frame))
            container.mux(audio.encode(None))
    return path


def make_folder(folder: Path, count: int) -> Path:
    """A folder of `count` different clips, clip00.mp4 and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        make_clip(folder / f"clip{number:02d}.mp4", seed=number)
    return folder


def contents(store: Path) -> dict[str, bytes]:
    """Every file of a store's arrays by name: what two equal stores share."""
    return {
        str(file.relative_to(store)): file.read_bytes()
        for part in ("frames", "log_mel", "waveform", "dataset", "zarr.json")
        for file in ([store / part] if (store / part).is_file() else sorted((store / part).rglob("*")))
        if file.is_file()
    }
