"""Measures `avel pack`: files, packing, packing again after one clip was staged again, reads.

    python benchmarks/shards.py
    python benchmarks/shards.py --clips 512 --sizes 64 256 --folder /mnt/disk

Clips of 160 frames of 256 x 256 pixels as JPEG files of about 20 KB, log-mel and waveform. Reads are paired:
in each round every layout reads the same frames of the same clips, in an order that changes. Before cold
reads the files' pages are dropped from the cache. Each packing runs in a process of its own, whose processor
time and highest resident memory are reported, imports included.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np

from avel.grid import Grid
from avel.progress import set_verbosity
from avel.stores.clip_layout import StoreAttributes
from avel.stores.clip_writer import ClipWriter, flush, prepare_store, write_dataset
from avel.stores.clips import ClipStore
from avel.stores.datasets.dataset import make_dataset
from avel.stores.jpeg import encode_jpeg
from avel.stores.location import locate
from avel.stores.manifest import Entry, ManifestWriter
from avel.stores.packing import pack
from avel.text import table

FRAMES_AT_ONCE = 10
READS = 100
LOOSE = "files of each clip"


def main() -> None:
    """Measures and prints two tables."""
    options = _options()
    set_verbosity(0)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        stores = {LOOSE: Path(folder) / "loose.zarr"}
        build = _seconds(lambda: _build(stores[LOOSE], options.clips))
        costs: list[tuple[object, ...]] = [(LOOSE, *_counts(stores[LOOSE]), f"{build:.1f}", "", "", "")]
        for size in options.sizes:
            name, store = f"shards of {size}", Path(folder) / f"{size}.zarr"
            shutil.copytree(stores[LOOSE], store)
            os.sync()
            wall, cpu, peak = _packing(store, size)
            _stage(store, 0, options.clips)
            again, _, _ = _packing(store, size)
            figures = f"{wall:.1f}", f"{cpu:.1f}", round(peak), f"{again:.2f}"
            costs.append((name, *_counts(store), *figures))
            stores[name] = store
        head = ("layout", "files", "folders", "wall s", "CPU s", "peak MiB", "one clip again, wall s")
        print("\n".join(table(head, costs)), flush=True)
        print("\n".join(["", *_reads(stores, options.clips, options.rounds)]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 256], help="clips to a shard")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files go; by default the temporary folder")
    return parser.parse_args()


def _name(row: int) -> str:
    return f"clip{row:06d}"


def _attributes(clips: int) -> StoreAttributes:
    return StoreAttributes(Grid(), {"size": 256}, "benchmark", "jpeg", clips, waveform=True)


def _build(store: Path, clips: int) -> None:
    """Writes a store of so many clips."""
    for row in range(clips):
        _stage(store, row, clips)
    write_dataset(locate(store), make_dataset("benchmark", "", (), ()))


def _stage(store: Path, row: int, clips: int) -> None:
    """Writes a clip: noise on blocks, of which JPEG files take about 20 KB, as of real frames."""
    location, attributes, noise = locate(store), _attributes(clips), np.random.default_rng(row)
    prepare_store(location, attributes, [_name(row) for row in range(clips)])
    writer = ClipWriter(location, attributes.digest)
    blocks = noise.integers(0, 255, (32, 32, 3)).repeat(8, 0).repeat(8, 1)
    pictures = [np.clip(blocks + noise.integers(-7, 7, blocks.shape), 0, 255) for _ in range(16)]
    files = [encode_jpeg(picture.astype(np.uint8), 90) for picture in pictures]
    writer.erase(row)
    writer.write("log_mel", row, 0, noise.standard_normal((10, 96, 64)).astype(np.float32))
    writer.write("waveform", row, 0, noise.integers(-9999, 9999, attributes.grid.samples).astype(np.int16))
    writer.write("frames", row, 0, files * 10)
    flush(location, attributes, row)
    ManifestWriter(location).append([Entry(_name(row), row, "staged", settings="benchmark")])


def _counts(store: Path) -> tuple[int, int]:
    """Returns the files and the folders of the arrays' chunks."""
    found = list(store.rglob("c/**/*"))
    return sum(path.is_file() for path in found), sum(path.is_dir() for path in found)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _packing(store: Path, size: int) -> tuple[float, float, float]:
    """Packs a store in a process of its own; returns wall and processor seconds and the peak in MiB."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_pack, store, size).result()


def _pack(store: Path, size: int) -> tuple[float, float, float]:
    set_verbosity(0)
    wall = pack(store, size).seconds
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return wall, time.process_time(), peak_mib


def _reads(stores: dict[str, Path], clips: int, rounds: int) -> list[str]:
    """Returns a table of the median milliseconds of each way to read, with the ratio to `LOOSE`."""
    opened = {name: ClipStore.open(store) for name, store in stores.items()}
    chance = random.Random(0)
    took: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        asked = [
            (_name(chance.randrange(clips)), chance.sample(range(160), FRAMES_AT_ONCE)) for _ in range(READS)
        ]
        for way in ("bytes", "decoded", "cold, decoded", "sequential, bytes"):
            for name in chance.sample(list(stores), len(stores)):
                if way.startswith("cold"):
                    _drop(stores[name])
                took.setdefault((way, name), []).append(_read(opened[name], way, asked))
    ways = list(dict.fromkeys(way for way, _ in took))
    rows = []
    for name in stores:
        cells = []
        for way in ways:
            ratio = median(own / loose for own, loose in zip(took[way, name], took[way, LOOSE], strict=True))
            cells.append(f"{median(took[way, name]):.2f} ({ratio:.2f})")
        rows.append((name, *cells))
    return table(("read, ms a clip (paired ratio)", *ways), rows)


def _read(store: ClipStore, way: str, asked: list[tuple[str, list[int]]]) -> float:
    """Returns the median milliseconds of a read; of reading one clip after another, their mean."""
    if way.startswith("sequential"):
        names = store.staged
        return 1000 * _seconds(lambda: [store.jpegs(name, range(160)) for name in names]) / len(names)
    read = store.jpegs if way == "bytes" else store.frames
    return 1000 * median(_seconds(partial(read, name, frames)) for name, frames in asked)


def _drop(store: Path) -> None:
    """Drops the pages of a store's files from the system's cache."""
    os.sync()
    for file in store.rglob("c/**/*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


if __name__ == "__main__":
    main()
