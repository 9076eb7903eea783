"""What the number of clips costs: seconds and memory of `avel inspect` on stores of faked clips.

    python benchmarks/scale.py
    python benchmarks/scale.py --clips 1000 10000 100000 1000000

A faked store has the attributes, the manifest and the dataset's tables of so many staged clips, and no
chunks. So what listing a folder of chunks takes is not in the figures. Each inspection runs in a process of
its own, whose seconds on the processor and highest resident memory are reported, imports included; the
exponent is that of the cost in clips since the row before: 1 is linear.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

from avel.grid import Grid
from avel.stores.clip_writer import prepare_store, write_dataset
from avel.stores.clips import StoreAttributes
from avel.stores.datasets.dataset import Dataset, Event, Sample, Video
from avel.stores.inspection import inspect
from avel.stores.location import locate
from avel.stores.manifest import Entry, ManifestWriter
from avel.text import table


def main() -> None:
    """Measures and prints a table."""
    options = _options()
    rows: list[tuple[object, ...]] = []
    before: tuple[int, float] | None = None
    for clips in options.clips:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            _fake(Path(folder) / "s.zarr", clips)
            seconds, peak_mib = _measured(Path(folder) / "s.zarr")
        exponent = math.log(seconds / before[1]) / math.log(clips / before[0]) if before else None
        rows.append(
            (clips, round(seconds, 2), round(peak_mib), "" if exponent is None else f"{exponent:.2f}")
        )
        before = (clips, seconds)
    print("\n".join(table(("clips", "CPU s", "peak MiB", "exponent"), rows)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="where the stores go; by default the temporary folder")
    return parser.parse_args()


def _fake(path: Path, clips: int) -> None:
    """A store whose clips are said to be staged."""
    location, names = locate(path), tuple(f"clip{number:07d}" for number in range(clips))
    attributes = StoreAttributes(Grid(), {"size": 256}, "faked", "jpeg", names)
    prepare_store(location, attributes)
    categories = tuple(f"event {number}" for number in range(min(28, clips)))
    samples = tuple(
        Sample(number, name, (Event(categories[number % 28], 0, 10),), split="train")
        for number, name in enumerate(names)
    )
    videos = tuple(Video(name, f"/clips/{name}.mp4") for name in names)
    write_dataset(location, Dataset("faked", "/clips", categories, samples, videos))
    ManifestWriter(location).append(
        Entry(name, row, "staged", source_path=f"/clips/{name}.mp4", settings="faked", valid_seconds=10.0)
        for row, name in enumerate(names)
    )


def _measured(store: Path) -> tuple[float, float]:
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=_inspect, args=(store, results))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)
    seconds, peak_mib = results.get()
    return seconds, peak_mib


def _inspect(store: Path, results: multiprocessing.SimpleQueue[tuple[float, float]]) -> None:
    inspect(store)
    results.put((time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


if __name__ == "__main__":
    main()
