"""Compares staging with bare decoding and other programs: clips/s of six ways, in turns on the same clips.

    python benchmarks/extract.py --clips ../shared/data/clips ../shared/data/semireal/AVE

(a) FFmpeg's command line, decoding + 16 fps + area scaling to 256x256, to nowhere. apt-get install ffmpeg
(b) bare decoding in process, nothing kept
(c) OpenCV, read all and resize all, as published AVE code does. pip install opencv-python-headless
(d) torchcodec, the frame at each k/16 s, resized in the decoder. pip install torchcodec
(e) avel's decoding and scaling alone
(f) `avel extract` whole: JPEG, log-mel, writing, manifest, and the start of its processes

Every way runs `--workers` processes with one codec thread each. (a) starts a process for each clip, as a
script would; (f) starts its own; those of the others run already. Ways that are not installed are named.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np

from avel.ahead import usable_cores
from avel.grid import Grid
from avel.pipeline.media.reading import open_media
from avel.pipeline.media.refusal import ClipRefused
from avel.pipeline.staging.extract import extract
from avel.pipeline.staging.summary import ExtractSummary
from avel.progress import set_verbosity
from avel.stores.datasets.dataset import make_dataset
from avel.stores.datasets.sample import Video
from avel.text import table

GRID = Grid()
FILTER = f"fps={GRID.fps},scale={GRID.size}:{GRID.size}:flags=area"


def command_line(path: str) -> None:
    """Runs (a), which anyone can run; its pictures stay YUV, which is in its favour."""
    files = ["-i", path, "-map", "0:v:0", "-t", f"{GRID.seconds}", "-vf", FILTER, "-f", "null", "-"]
    subprocess.run(["ffmpeg", "-v", "quiet", "-nostdin", "-threads", "1", *files], check=True)


def bare(path: str) -> None:
    """Runs (b): decodes every picture of the clip and drops it."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        start = None
        for frame in container.decode(stream):
            start = frame.time if start is None else start
            if frame.time - start >= GRID.seconds:
                return


def opencv(path: str) -> None:
    """Runs (c): decodes and resizes all pictures, then picks some by index."""
    import cv2

    cv2.setNumThreads(1)
    reader, pictures = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]), []
    more, picture = reader.read()
    while more:
        pictures.append(cv2.cvtColor(cv2.resize(picture, (GRID.size, GRID.size)), cv2.COLOR_BGR2RGB))
        more, picture = reader.read()
    np.stack([pictures[k] for k in np.linspace(0, len(pictures) - 1, GRID.frames).astype(int)])


def torchcodec(path: str) -> None:
    """Runs (d): decodes the frame on screen at each k/16 s."""
    import torch
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    torch.set_num_threads(1)
    decoder = VideoDecoder(
        path, num_ffmpeg_threads=1, dimension_order="NHWC", transforms=[Resize((GRID.size, GRID.size))]
    )
    first = decoder.metadata.begin_stream_seconds
    last = decoder.metadata.end_stream_seconds - 1e-3
    decoder.get_frames_played_at([min(first + k / GRID.fps, last) for k in range(GRID.frames)])


def scaled(path: str) -> None:
    """Runs (e): decodes the 160 frames of a clip, 256x256, in the colours that (f) stores."""
    with open_media(path, GRID, for_jpeg=True) as media:
        for _ in media.pictures():
            pass


def bit_equal(path: str) -> bool:
    """Returns True if frames stay the same to the bit when pictures that no frame shows are skipped."""
    with patch("avel.pipeline.media.video.SKIPPING", frozenset()):
        everything = frames(path)
    return bool(np.array_equal(frames(path), everything))


def frames(path: str) -> np.ndarray[Any, Any]:
    """Returns all frames of a clip: uint8 (T * N, H, W, 3)."""
    with open_media(path, GRID) as media:
        return np.concatenate(list(media.frames()))


Timed = Callable[[Sequence[str]], float]


def in_pool(pool: Any, way: Callable[[str], Any]) -> Timed:
    """Returns a function that measures the seconds a pool takes for all clips."""

    def run(paths: Sequence[str]) -> float:
        began = time.perf_counter()
        for _ in pool.map(way, paths):
            pass
        return time.perf_counter() - began

    return run


def whole(paths: Sequence[str], workers: int, runs: list[ExtractSummary]) -> float:
    """Runs (f) into a new store; returns its seconds, and adds its summary to `runs`."""
    videos = tuple(Video(str(number), path) for number, path in enumerate(paths))
    with tempfile.TemporaryDirectory() as folder:
        summary = extract(make_dataset("benchmark", "", (), videos), f"{folder}/clips.zarr", workers=workers)
    runs.append(summary)
    return summary.seconds


def main() -> None:
    """Measures, prints a table, and JSON where asked."""
    options = _options()
    set_verbosity(0)
    runs: list[ExtractSummary] = []
    with (
        ProcessPoolExecutor(options.workers, get_context("spawn")) as processes,
        ThreadPoolExecutor(options.workers) as threads,
    ):
        paths = _clips(options.clips, options.count, processes)
        ways, left_out = _ways(processes, threads, options.workers, runs)
        for name, way in ways.items():
            if name[0] != "f":
                way(paths[: 2 * options.workers])  # imports and first use
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _, (name, way) in itertools.product(range(options.rounds), ways.items()):
            seconds[name].append(way(paths))
        equal = sum(processes.map(bit_equal, paths))
    rates = {name: len(paths) / statistics.median(times) for name, times in seconds.items()}
    result = {
        "clips": len(paths),
        "workers": options.workers,
        "rounds": options.rounds,
        "clips_per_second": {name: round(rate, 3) for name, rate in rates.items()},
        "seconds": {name: [round(each, 2) for each in times] for name, times in seconds.items()},
        "ratios": _ratios(seconds),
        "bit_equal": equal,
        "peak_mib": max(run.peak_mib for run in runs),
        "split_seconds_a_clip": _mean([run.split_seconds for run in runs], len(paths)),
        "left_out": left_out,
    }
    print(json.dumps(result, indent=1) if options.json else _report(result))


def _ways(
    processes: Any, threads: Any, workers: int, runs: list[ExtractSummary]
) -> tuple[dict[str, Timed], list[str]]:
    """Returns the ways that can be measured here, and those that cannot."""
    ways: dict[str, Timed] = {"a ffmpeg command line": in_pool(threads, command_line)}
    ways["b bare decoding"] = in_pool(processes, bare)
    ways["c opencv"] = in_pool(processes, opencv)
    ways["d torchcodec"] = in_pool(processes, torchcodec)
    ways["e avel frames"] = in_pool(processes, scaled)
    ways["f avel extract"] = partial(whole, workers=workers, runs=runs)
    needs = {"a": shutil.which("ffmpeg"), "c": find_spec("cv2"), "d": find_spec("torchcodec")}
    left_out = [name for name in ways if name[0] in needs and not needs[name[0]]]
    return {name: way for name, way in ways.items() if name not in left_out}, left_out


def _clips(folders: list[Path], count: int, pool: Any) -> list[str]:
    """Returns `count` clips that all ways can read, from each folder in turn; repeats them if too few."""
    found = [sorted(str(file) for file in folder.iterdir() if file.is_file()) for folder in folders]
    mixed = [path for row in itertools.zip_longest(*found) for path in row if path is not None][: 2 * count]
    good = [path for path, fine in zip(mixed, pool.map(_is_readable, mixed), strict=True) if fine]
    return list(itertools.islice(itertools.cycle(good), count))


def _is_readable(path: str) -> bool:
    try:
        with open_media(path, GRID) as media:
            return media.info.video_end_seconds > GRID.seconds / 2
    except ClipRefused:
        return False


def _ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Returns medians over the rounds of paired ratios of speed: e to a and b, f to a and d."""
    found = {}
    for one, other in ("ea", "eb", "fa", "fd"):
        times = {name[0]: each for name, each in seconds.items()}
        if one in times and other in times:
            paired = [b / a for a, b in zip(times[one], times[other], strict=True)]
            found[f"{one}/{other}"] = round(statistics.median(paired), 3)
    return found


def _mean(splits: list[dict[str, float]], clips: int) -> dict[str, float]:
    return {step: round(statistics.mean(s[step] for s in splits) / clips, 4) for step in splits[0]}


def _report(result: dict[str, Any]) -> str:
    rates = [(name, rate) for name, rate in result["clips_per_second"].items()]
    steps = result["split_seconds_a_clip"].items()
    split = ", ".join(f"{step} {seconds * 1000:.0f} ms" for step, seconds in steps)
    lines = [
        *table(("way", "clips/s"), rates),
        "",
        "speed, paired: " + ", ".join(f"{name} {value:.2f}" for name, value in result["ratios"].items()),
        f"bit-equal to full decoding: {result['bit_equal']} of {result['clips']}",
        f"a clip of (f): {split}",
        f"(f) held at most {result['peak_mib']} MiB in each of {result['workers']} workers",
    ]
    if result["left_out"]:
        lines.append("not installed, left out: " + ", ".join(result["left_out"]))
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, nargs="+", required=True, help="folders of videos")
    parser.add_argument("--count", type=int, default=160, help="clips to take, from each in turn")
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
