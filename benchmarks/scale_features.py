"""Measures the seconds and the memory that opening a feature cache of many rows takes.

    python benchmarks/scale_features.py
    python benchmarks/scale_features.py --rows 1000000

A made-up cache holds narrow vectors, a sample and an event for each row, and the hash of a file. It is opened
in a process of its own, after the imports. Opening starts a second process, which tries HDF5 files first:
wall time includes it, CPU time and memory do not.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from avel.stores.cached_samples import CachedSamples
from avel.stores.datasets.labels import ClassTable, EventTable
from avel.stores.features import FeatureCache, write_features
from avel.text import table

SEGMENTS, WIDTH, CATEGORIES = 10, 2, 28


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    measured = []
    for rows in parser.parse_args().rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "c.h5"
            _in_new_process(write_cache, path, rows)
            measured.append((rows, *_in_new_process(_open, path)))
    print("\n".join(table(("rows", "wall s", "CPU s", "peak MiB"), measured)))


def _in_new_process(function: Callable[..., Any], *given: object) -> Any:
    """Calls a function in a process of its own, so that no other call's memory is in its peak."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *given).result()


def write_cache(path: Path, rows: int) -> None:
    """Writes a cache of `rows` videos, a sample and an event each."""
    every, none = np.arange(rows, dtype=np.int64), np.empty(0, np.int64)
    ids = tuple(f"clip{number:07d}" for number in range(rows))
    samples = CachedSamples(
        every,
        every,
        np.array(["train", "val", "test"], object)[every % 3],
        np.zeros(rows, bool),
        np.ones(rows, bool),
        EventTable(every, every % CATEGORIES, np.zeros(rows), np.full(rows, 5.0), np.zeros(rows, np.int64)),
        np.full(rows, "", object),
        ClassTable(np.zeros(rows, bool), none, none),
    )
    features = np.zeros((rows, SEGMENTS, WIDTH), np.float32)
    write_features(
        path,
        video_ids=ids,
        categories=tuple(f"event {number}" for number in range(CATEGORIES)),
        samples=samples,
        arrays={"f_a": features, "f_v": features},
        sources={name: hashlib.sha256(name.encode()).hexdigest() for name in ids},
    )


def _open(path: Path) -> tuple[str, str, int]:
    """Returns wall and processor seconds of opening a cache, and the peak in MiB."""
    began, cpu = time.perf_counter(), time.process_time()
    FeatureCache.open(path)
    seconds = time.perf_counter() - began, time.process_time() - cpu
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{seconds[0]:.2f}", f"{seconds[1]:.2f}", round(peak_mib)


if __name__ == "__main__":
    main()
