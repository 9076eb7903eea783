"""What the waveform costs `avel extract`: processor time with and without it, in pairs of runs.

    python benchmarks/waveform.py --clips ../shared/data/semireal/AVE --count 24 --rounds 20

Each run is a command of its own, of one worker, into a new store; the processor time is that of all its
processes, their start included. In every other pair the run without the waveform comes first. Beside the
ratios of pairs stands that of the fastest runs, which other work on the machine disturbs least.
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
from pathlib import Path


def main() -> None:
    """Measures, prints the ratios, and JSON where asked."""
    options = _options()
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder) / "clips"
        clips.mkdir()
        for file in itertools.islice(sorted(options.clips.iterdir()), options.count):
            shutil.copy(file, clips)
        for turn in range(-1, options.rounds):
            for way in sorted(seconds, reverse=turn % 2 == 1):
                found = processor_seconds(clips, Path(folder) / "clips.zarr", way == "with")
                if turn >= 0:  # the first pair brings files and programs into memory
                    seconds[way].append(found)
    result = ratios(seconds["with"], seconds["without"]) | {"seconds": seconds, "clips": options.count}
    if options.json:
        print(json.dumps(result))
        return
    for name in ("median", "middle_half", "all", "of_fastest"):
        print(f"{name.replace('_', ' ')}: {result[name]}")


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
    parser.add_argument("--rounds", type=int, default=20, help="pairs of runs")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
