"""Measures the memory of `avel extract` on a film of any length: the most that its decoding process has held.

    python benchmarks/film.py --minutes 120

Composes the film (H.264, 25 fps, AAC) in a temporary folder and stages it, one segment a second.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avel.pipeline.staging.extract import extract
from avel.progress import Progress

FPS, SAMPLE_RATE = 25, 16000


def compose(path: Path, seconds: int, width: int, height: int) -> None:
    """Writes a film whose picture drifts and whose audio is noise, second by second."""
    noise = np.random.default_rng(0)
    cells = noise.integers(0, 256, (height * 3 // 16, width // 4)).astype(np.uint8)
    texture = cells.repeat(8, 0).repeat(8, 1)  # two widths of 4:2:0 planes, in blocks of 8
    with av.open(str(path), "w") as container, Progress(seconds, "seconds") as progress:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "g": "250"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for second in range(seconds):
            for number in range(FPS):
                shift = (second * FPS + number) % width
                picture = np.ascontiguousarray(texture[:, shift : shift + width])
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
            wave = noise.integers(-3000, 3000, (1, SAMPLE_RATE)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
            frame.pts = second * SAMPLE_RATE
            container.mux(audio.encode(frame))
            progress.advance()
        for stream in (video, audio):
            container.mux(stream.encode(None))


def main() -> None:
    """Composes, stages, prints a line, or JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--width", type=int, default=320, help="pixels, a multiple of 16")
    parser.add_argument("--height", type=int, default=240, help="pixels, a multiple of 16")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seconds = round(options.minutes * 60)
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder) / "clips"
        clips.mkdir()
        compose(clips / "film.mp4", seconds, options.width, options.height)
        file_mib = (clips / "film.mp4").stat().st_size >> 20
        summary = extract(clips, f"{folder}/clips.zarr", workers=1, segments=seconds)
    result = {
        "minutes": options.minutes,
        "file_mib": file_mib,
        "staged": summary.staged,
        "seconds": summary.seconds,
        "peak_mib": summary.peak_mib,
    }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    film = f"a film of {options.minutes:g} minutes, {file_mib} MiB"
    print(f"{film}: {summary.staged} staged in {summary.seconds:.0f} s, at most {summary.peak_mib} MiB")


if __name__ == "__main__":
    main()
