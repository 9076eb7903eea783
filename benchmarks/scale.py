"""Measures `avel extract`, the same command with nothing to do, and `avel inspect` on very many clips.

    python benchmarks/scale.py
    python benchmarks/scale.py --clips 1000 10000 100000 1000000

The clips are empty files with a table of one event each, and decoding is faked: a clip is staged at once, and
no chunk is written. What is left is the work of the parent process: reading the dataset, planning, dask, the
manifest. Each measurement runs in a process of its own, whose processor time and highest resident memory are
reported, imports included. The exponent tells how the cost grows from the row with fewer clips: 1 is linear.
"""

from __future__ import annotations

import argparse
import math
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import pyarrow as pa
from pyarrow import parquet

from avel.config import digest
from avel.pipeline.config import ExtractConfig
from avel.pipeline.staging import extract as extracting
from avel.pipeline.staging import workers
from avel.stores.inspection import inspect
from avel.stores.manifest import Entry
from avel.text import table

FILES_A_FOLDER = 1000


@dataclass(frozen=True)
class Cost:
    """Cost of one measurement; `first_seconds` is when the first clip was staged."""

    cpu_seconds: float
    wall_seconds: float
    peak_mib: float
    first_seconds: float = 0.0


def main() -> None:
    """Measures and prints a table."""
    options = _options()
    rows: list[tuple[object, ...]] = []
    before: dict[str, tuple[int, float]] = {}
    for clips in options.clips:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            _make_clips(Path(folder) / "clips", clips)
            for name, measure in (("extract", _extract), ("nothing to do", _extract), ("inspect", _inspect)):
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    cost = process.submit(_measured, measure, Path(folder)).result()
                rows.append((name, clips, *_figures(clips, cost, before.get(name))))
                before[name] = clips, cost.cpu_seconds
                print("  ".join(map(str, rows[-1])), flush=True)
    head = ("command", "clips", "CPU s", "CPU ms a clip", "wall s", "first clip s", "peak MiB", "exponent")
    print("\n".join(["", *table(head, sorted(rows, key=lambda row: str(row[0])))]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="where the files go; by default the temporary folder")
    return parser.parse_args()


def _figures(clips: int, cost: Cost, before: tuple[int, float] | None) -> tuple[object, ...]:
    exponent = math.log(cost.cpu_seconds / before[1]) / math.log(clips / before[0]) if before else None
    return (
        f"{cost.cpu_seconds:.2f}",
        f"{1000 * cost.cpu_seconds / clips:.3f}",
        f"{cost.wall_seconds:.2f}",
        f"{cost.first_seconds:.2f}" if cost.first_seconds else "",
        round(cost.peak_mib),
        "" if exponent is None else f"{exponent:.2f}",
    )


def _make_clips(folder: Path, clips: int) -> None:
    """Makes so many empty files, and a table of one event for each."""
    names = [f"{number // FILES_A_FOLDER:04d}/clip{number:07d}" for number in range(clips)]
    for name in names:
        file = folder / f"{name}.mp4"
        if name.endswith("000"):
            file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    columns = {
        "video_id": names,
        "category": [f"event {number % 28}" for number in range(clips)],
        "onset_seconds": [0.0] * clips,
        "offset_seconds": [10.0] * clips,
        "split": ["train"] * clips,
    }
    parquet.write_table(pa.table(columns), folder.parent / "events.parquet")


def _measured(measure: Callable[[Path], float], folder: Path) -> Cost:
    began = time.monotonic()
    first = measure(folder)
    wall = time.monotonic() - began
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(time.process_time(), wall, peak_mib, first - began if first else 0.0)


class _Faked:
    """In place of a decoding process: every clip is staged at once."""

    first = 0.0

    def __init__(self, store: str, config: ExtractConfig, run: str = "") -> None:
        self._digest = digest(config)

    def launch(self) -> None:
        pass

    def close(self) -> None:
        pass

    def stage(self, entry: Entry) -> Entry:
        _Faked.first = _Faked.first or time.monotonic()
        status = Path(entry.source_path).stat()
        return replace(
            entry,
            state="staged",
            source_bytes=status.st_size,
            source_mtime_ns=status.st_mtime_ns,
            source_sha256=f"{entry.row:064x}",
            settings=self._digest,
            audio="stream",
            valid_seconds=10.0,
            decode_seconds=0.3,
        )


def _no_flush(*_: object) -> None:
    """Stands for a flush; a Mock would keep every call, a kilobyte a clip."""


def _extract(folder: Path) -> float:
    """Stages what is left; returns when the first clip was staged, 0 if none was."""
    with (
        mock.patch.object(workers, "Isolated", _Faked),
        mock.patch.object(workers, "flush", _no_flush),
        mock.patch.object(extracting, "FORECAST_FROM", math.inf),
    ):
        extracting.extract(folder / "clips", folder / "s.zarr", annotations=folder / "events.parquet")
    return _Faked.first


def _inspect(folder: Path) -> float:
    inspect(folder / "s.zarr")
    return 0.0


if __name__ == "__main__":
    main()
