"""Measures import and export of AVE's published files: seconds, and the most memory that both hold.

    python benchmarks/exchange.py
    python benchmarks/exchange.py --rows 200

Files of the published shapes are made up, float64 maps of 4143 x 10 x 7 x 7 x 512 (8.3 GB) among them; they
are imported, exported and compared row by row. With as many rows as AVE has, the default, that takes 20 GB of
disk. Import and export run in one process of their own, whose highest resident memory is reported.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np

from avel.progress import set_verbosity
from avel.stores.exchange import import_features
from avel.stores.export import export_features
from avel.text import table

SHAPES = {"audio_feature.h5": (10, 128), "visual_feature.h5": (10, 7, 7, 512)}
CLASSES = 28


def main() -> None:
    """Measures, prints a table, and JSON where asked."""
    options = _options()
    set_verbosity(0)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        free = shutil.disk_usage(folder).free
        needed = options.rows * 10 * 7 * 7 * 512 * (8 + 2 + 8) * 1.05  # float64 in and out, float16 between
        if free < needed:
            raise SystemExit(f"{folder}: {free / 1e9:.1f} GB free, need {needed / 1e9:.1f}; see --folder")
        _make(Path(folder) / "given", options.rows)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found = process.submit(_there_and_back, Path(folder)).result()
        found["equal_rows"] = _equal_rows(Path(folder), options.rows)
    if options.json:
        print(json.dumps(found | {"rows": options.rows}))
        return
    header = ("rows", "import s", "export s", "peak MiB", "rows equal")
    cells = (found["import_seconds"], found["export_seconds"], found["peak_mib"])
    print(
        "\n".join(table(header, [(options.rows, *(round(cell, 1) for cell in cells), found["equal_rows"])]))
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=4143, help="annotation rows, one video each")
    parser.add_argument("--folder", type=Path, help="where the files go; by default the temporary folder")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _make(folder: Path, rows: int) -> None:
    """Writes annotations, and feature files of random numbers that float16 and float32 hold exactly."""
    folder.mkdir()
    lines = [f"event {row % CLASSES}&video{row}&good&0&10\n" for row in range(rows)]
    (folder / "Annotations.txt").write_text("".join(lines))
    random = np.random.default_rng(0)
    for split, part in zip(("train", "val", "test"), np.array_split(np.arange(rows), 3), strict=True):
        with h5py.File(folder / f"{split}_order.h5", "w") as file:
            file["order"] = part
    for name, shape in SHAPES.items():
        with h5py.File(folder / name, "w") as file:
            array = file.create_dataset("avadataset", (rows, *shape), np.float64)
            for row in range(rows):
                array[row] = random.random(shape, np.float32).astype(np.float16)


def _there_and_back(folder: Path) -> dict[str, float]:
    began = time.perf_counter()
    import_features(folder / "given", folder / "cache.h5")
    imported = time.perf_counter()
    export_features(folder / "cache.h5", folder / "exported")
    exported = time.perf_counter()
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "import_seconds": imported - began,
        "export_seconds": exported - imported,
        "peak_mib": peak_kib / 1024,
    }


def _equal_rows(folder: Path, rows: int) -> int:
    """Counts the rows that came back as they went in, in every file."""
    equal = np.ones(rows, bool)
    for name in SHAPES:
        with h5py.File(folder / "given" / name) as given, h5py.File(folder / "exported" / name) as back:
            for row in range(rows):
                equal[row] &= np.array_equal(given["avadataset"][row], back["avadataset"][row])
    return int(equal.sum())


if __name__ == "__main__":
    main()
