"""Measures the steps of reading a clip, and what each decision of `avel/pipeline/media` saves.

    python benchmarks/decode.py --clips ../shared/data/clips

Prints CPU time a clip: the median over rounds. All ways take turns on every clip in one process with one
thread, so that a busy machine slows all of them. benchmarks/extract.py compares with other programs.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np

from avel.grid import Grid
from avel.pipeline.media.log_mel import log_mel
from avel.pipeline.media.picture import SCALING
from avel.pipeline.media.reading import open_media
from avel.text import table

GRID = Grid()


def bare(path: str) -> None:
    """Decodes every picture and drops it: the limit that the ratios are against."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        for _ in container.decode(stream):
            pass


def opening(path: str) -> None:
    """Reads headers, and the time stamps of all packets."""
    with open_media(path, GRID):
        pass


def frames(path: str, *, for_jpeg: bool = True) -> None:
    """Opens, decodes with the skip plan and scales to the planes of JPEG files, as `avel extract` does."""
    with open_media(path, GRID, for_jpeg=for_jpeg) as media:
        for _ in media.pictures():
            pass


def unplanned(path: str) -> None:
    """Does as `frames`, but decodes every picture."""
    with patch("avel.pipeline.media.video.SKIPPING", frozenset()):
        frames(path)


def unscaled(path: str) -> None:
    """Does as `frames`, but scales no picture: what the skip plan leaves of decoding."""
    with patch("avel.pipeline.media.picture.PictureScaler.write", lambda *_: None):
        frames(path)


def rgb(path: str) -> None:
    """Does as `frames`, but in RGB, each channel a plane."""
    frames(path, for_jpeg=False)


def packed(path: str) -> None:
    """Does as `rgb`, but swscale writes rgb24, for whose full-width chroma it has no SIMD."""
    with patch("avel.pipeline.media.picture.PictureScaler.write", _packed):
        rgb(path)


def samples(path: str) -> np.ndarray:
    """Opens a clip, decodes and resamples its audio."""
    with open_media(path, GRID) as media:
        return np.concatenate(list(media.samples()))


def patches(path: str) -> None:
    """Does as `samples`, and computes their log-mel patches."""
    log_mel(samples(path).reshape(GRID.segments, -1))


WAYS: dict[str, Callable[[str], object]] = {
    "bare decoding": bare,
    "opening": opening,
    "frames": frames,
    "frames, no skip plan": unplanned,
    "frames, not scaled": unscaled,
    "frames in RGB": rgb,
    "frames in packed RGB": packed,
    "samples": samples,
    "samples and log-mel": patches,
}


def measure(paths: Sequence[str], rounds: int) -> dict[str, float]:
    """Returns the CPU seconds a clip of each way, the median over rounds."""
    seconds: dict[str, list[float]] = {name: [0.0] * rounds for name in WAYS}
    for round_number in range(rounds):
        for path in paths:
            for name, way in WAYS.items():
                began = time.process_time()
                way(path)
                seconds[name][round_number] += time.process_time() - began
    return {name: statistics.median(each) / len(paths) for name, each in seconds.items()}


def main() -> None:
    """Measures, prints a table, and JSON where asked."""
    _one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=Path, nargs="+", required=True, help="folders of video files")
    parser.add_argument("--count", type=int, default=17, help="clips of each folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    paths = [str(path) for folder in options.clips for path in _videos(folder)[: options.count]]
    for way in WAYS.values():
        way(paths[0])  # imports and first use
    seconds = measure(paths, options.rounds)
    if options.json:
        result = {"clips": len(paths), "rounds": options.rounds, "cpu_seconds_a_clip": seconds}
        print(json.dumps(result, indent=1))
        return
    limit = seconds["bare decoding"]
    rows = [(name, round(each * 1000, 1), round(each / limit, 2)) for name, each in seconds.items()]
    print("\n".join(table(("way", "CPU ms a clip", "ratio to bare"), rows)))


def _videos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".mp4", ".mkv"))


def _packed(scaler: Any, out: np.ndarray, frame: av.VideoFrame) -> None:
    scaled = scaler._reformatter.reformat(
        frame, width=GRID.size, height=GRID.size, format="rgb24", interpolation=SCALING, threads=1
    )
    out[:] = np.frombuffer(scaled.planes[0], np.uint8).reshape(out.shape)


def _one_thread() -> None:
    """Starts over with one thread for numpy's BLAS, which reads the variable only when it is imported."""
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OPENBLAS_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
