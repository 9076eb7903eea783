"""Measures what the waveform adds to `avel extract`: processor time with and without it, in turns.

    python benchmarks/waveform.py --clips ../shared/data/semireal/AVE --count 24 --rounds 16
    python benchmarks/waveform.py --clips ../shared/data/semireal/AVE --count 24 --rounds 10 --by-clip

A round is two runs of the command, of one worker each, into new stores; the processor time is that of all
their processes, their start included. With `--by-clip` a round stages each clip twice in this process, with
the waveform and without, so that other work on the machine disturbs both alike. The order changes from turn
to turn. Printed are the ratios of the rounds, and that of the fastest of each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from avel.pipeline.config import ExtractConfig
from avel.pipeline.staging.plan import RestageOptions, make_plan
from avel.pipeline.staging.stage import Stager
from avel.stores.clip_writer import prepare_store
from avel.stores.datasets.dataset import make_dataset
from avel.stores.datasets.sample import Video
from avel.stores.location import locate
from avel.stores.manifest import Manifest, to_table


def main() -> None:
    """Measures, prints the ratios, and JSON where asked."""
    options = _options()
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder) / "clips"
        clips.mkdir()
        for file in itertools.islice(sorted(options.clips.iterdir()), options.count):
            shutil.copy(file, clips)
        measure = by_clip if options.by_clip else by_run
        for turn in range(-1, options.rounds):
            found = measure(clips, Path(folder), turn)
            if turn >= 0:  # the first round brings files and programs into memory
                for way, taken in found.items():
                    seconds[way].append(taken)
    result = ratios(seconds["with"], seconds["without"]) | {"seconds": seconds, "clips": options.count}
    if options.json:
        print(json.dumps(result))
        return
    for name in ("median", "middle_half", "all", "of_fastest"):
        print(f"{name.replace('_', ' ')}: {result[name]}")


def in_turns(turn: int) -> list[str]:
    """Returns both ways, the other one first at every other turn."""
    return ["with", "without"] if turn % 2 else ["without", "with"]


def by_run(clips: Path, folder: Path, turn: int) -> dict[str, float]:
    """Returns the processor time of the whole command, both ways."""
    return {way: processor_seconds(clips, folder / "clips.zarr", way == "with") for way in in_turns(turn)}


def by_clip(clips: Path, folder: Path, turn: int) -> dict[str, float]:
    """Returns the processor time of staging alone, both ways, summed over the clips."""
    videos = tuple(Video(file.stem, str(file)) for file in sorted(clips.iterdir()))
    data, nothing = make_dataset("benchmark", "", (), videos), Manifest(to_table(()))
    stagers, entries = {}, {}
    for way in in_turns(0):
        config, store = ExtractConfig(waveform=way == "with"), folder / f"{way}.zarr"
        plan = make_plan(data, config, None, pa.array([], pa.string()), nothing, RestageOptions())
        prepare_store(locate(store), plan.attributes, plan.video_ids)
        stagers[way], entries[way] = Stager(str(store), config), plan.todo
    taken = dict.fromkeys(stagers, 0.0)
    for number, video in enumerate(videos):
        for way in in_turns(turn + number):
            began = time.process_time()
            entry = stagers[way].stage(entries[way][video.video_id])
            taken[way] += time.process_time() - began
            assert entry.state == "staged", entry
    for way in stagers:
        shutil.rmtree(folder / f"{way}.zarr")
    return taken


def processor_seconds(clips: Path, store: Path, waveform: bool) -> float:
    """Returns the processor time of one run of `avel extract`, whose store is removed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ["extract", str(clips), str(store), "--workers", "1", *([] if waveform else ["--no-waveform"])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "avel", "--quiet", *words]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    shutil.rmtree(store)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def ratios(first: list[float], second: list[float]) -> dict[str, float | list[float]]:
    """Returns the ratio of pairs: median, quartiles, lowest and highest; and that of the lowest of each."""
    each = [one / other for one, other in zip(first, second, strict=True)]
    quartiles = statistics.quantiles(each, n=4)
    return {
        "median": round(statistics.median(each), 3),
        "middle_half": [round(quartiles[0], 3), round(quartiles[2], 3)],
        "all": [round(min(each), 3), round(max(each), 3)],
        "of_fastest": round(min(first) / min(second), 3),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, help="folder of videos")
    parser.add_argument("--count", type=int, default=24, help="videos to take from it")
    parser.add_argument("--rounds", type=int, default=16, help="turns of both")
    parser.add_argument("--by-clip", action="store_true", help="staging alone, clip by clip in this process")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
