"""Tells what lies at a path, so that a command that needs something else can say what was given instead."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from avel.errors import AvelError, MissingPathError, StoreError

Kind = Literal["store", "cache", "run", "runs", "video", "dataset", "file", "nothing"]
NAMES: dict[Kind, str] = {
    "store": "a clip store",
    "cache": "a feature cache",
    "run": "a run",
    "runs": "a folder of runs",
    "video": "a video",
    "dataset": "a folder of files",
    "file": "a file that is none of avel's",
}
TAKERS: dict[Kind, str] = {
    "store": "avel pretrain, cache-features and preview take a clip store",
    "cache": "avel train-head, sweep and leaderboard take a feature cache",
    "run": "avel evaluate, report and plot take a run",
    "runs": "avel runs lists them",
    "video": "avel predict RUN VIDEO finds events in it; avel extract takes the folder that holds it",
    "dataset": "avel extract DATASET STORE makes a clip store of a folder of videos",
    "file": "avel inspect tells what a path holds",
}
"""Kind -> the commands for it."""
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .flv .wmv .ogv .3gp".split()  # noqa: SIM905
)
"""File endings taken for videos, in any case."""
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def kind_of(path: str | os.PathLike[str]) -> Kind:
    """Returns the kind of what is at a path; reads at most eight bytes."""
    if "://" in str(path):
        return "store"
    place = Path(path)
    if place.is_dir():
        if (place / "zarr.json").is_file():
            return "store"
        if (place / "run.json").is_file():
            return "run"
        return "runs" if next(place.glob("*/run.json"), None) else "dataset"
    if not place.is_file():
        return "nothing"
    with suppress(OSError), place.open("rb") as file:  # whoever opens it says that it cannot be read
        if file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE:
            return "cache"
    return "video" if place.suffix.lower() in VIDEO_SUFFIXES else "file"


def not_a(wanted: str, path: str | os.PathLike[str], hint: str) -> AvelError:
    """Returns the error of a command that needs `wanted` ("clip store") at `path` and finds none there.

    Args:
        hint: how to make one, for a path at which nothing is yet.
    """
    found = kind_of(path)
    if found == "nothing":
        return MissingPathError(f"{path}: no {wanted}", hint=hint)
    return StoreError(f"{path} is {NAMES[found]}, not a {wanted}", hint=TAKERS[found])
