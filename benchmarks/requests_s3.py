"""Counts the requests of `avel extract` into an object store: how many one more clip takes.

    python benchmarks/requests_s3.py --clips 4 24 104

Small clips go into the S3 server of the tests, whose log is counted. The difference between two runs is what
the further clips took. "Other run" asks whether another run has begun: once a second for each decoder. It
grows with the time, as does the lock.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

from avel.pipeline.staging.extract import extract
from avel.progress import set_verbosity
from avel.text import table
from tests.pipeline.staging.small_clips import SMALL, make_folder
from tests.stores.s3_server import s3_server

KINDS = {"chunks": "/c/", "manifest": "manifest", "other run": r"\.run", "lock": r"\.lock", "other": ""}
"""Name of each kind of request -> what is in its path; the first that fits."""


def main() -> None:
    """Counts, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[4, 24, 104], help="clips of each run")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode")
    options = parser.parse_args()
    set_verbosity(0)
    with tempfile.TemporaryDirectory() as folder:
        counts, seconds = _counts(Path(folder), options.clips, options.workers)
    rows = []
    for before, now in zip(options.clips, options.clips[1:], strict=False):
        each = {kind: (counts[now][kind] - counts[before][kind]) / (now - before) for kind in KINDS}
        numbers = [f"{number:.2f}" for number in (*each.values(), sum(each.values()))]
        rows.append((f"{before} to {now}", *numbers, f"{seconds[now]:.1f}"))
    print("\n".join(table(("clips", *KINDS, "together, a clip", "seconds of the larger run"), rows)))


def _counts(folder: Path, clips: list[int], workers: int) -> tuple[dict[int, Counter[str]], dict[int, float]]:
    """Stages so many clips into a store each; returns the requests of each kind, and the seconds."""
    log, start = folder / "log", subprocess.Popen
    counts, seconds = dict[int, Counter[str]](), dict[int, float]()

    def start_with_log(command: list[str], **more: Any) -> Any:
        return start(command, **more | ({"stderr": log.open("w")} if "moto.server" in command else {}))

    with patch("subprocess.Popen", start_with_log), s3_server() as url:
        for count in clips:
            dataset, read = make_folder(folder / str(count), count), len(log.read_text())
            began = time.monotonic()
            extract(dataset, f"{url}/{count}.zarr", SMALL, workers=workers)
            seconds[count] = time.monotonic() - began
            paths = re.findall(r'"[A-Z]+ (/bucket\S*)', log.read_text()[read:])
            counts[count] = Counter(
                next(kind for kind, part in KINDS.items() if re.search(part, path)) for path in paths
            )
    return counts, seconds


if __name__ == "__main__":
    main()
