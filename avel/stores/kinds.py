"""Tells what lies at a path, so that a command that needs something else can say what was given instead."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avel.errors import AvelError, MissingPathError, StoreError

Kind = Literal["store", "cache", "run", "runs", "video", "dataset", "file", "nothing"]
KIND_NAMES: dict[Kind, str] = {
    "store": "a clip store",
    "cache": "a feature cache",
    "run": "a run",
    "runs": "a folder of runs",
    "video": "a video",
    "dataset": "a folder of files",
    "file": "a file that is none of avel's",
}
TAKERS: dict[Kind, str] = {
    "store": "avel pretrain {path} RUN, or avel cache-features {path} CACHE",
    "cache": "avel train-head {path} RUN trains a head on it",
    "run": "avel evaluate {path}, or avel report {path} --out report",
    "runs": "avel runs {path} lists them",
    "video": "avel predict RUN {path} finds events in it; avel extract takes the folder that holds it",
    "dataset": "avel extract {path} STORE makes a clip store of a folder of videos",
    "file": "avel --help lists what each command takes",
}
"""Kind -> the commands for it."""
MEANT: dict[Kind, str] = KIND_NAMES | {"dataset": "a folder of videos", "file": "a file of predictions"}
"""Kind -> how a command that takes this kind names what it wants."""
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .flv .wmv .ogv .3gp".split()  # noqa: SIM905
)
"""File endings taken for videos, in any case."""
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def kind_of(path: str | os.PathLike[str]) -> Kind:
    """Returns the kind of what is at a path; reads at most eight bytes.

    Raises:
        StoreError: it lies in a folder that may not be looked into.
    """
    if "://" in str(path):
        return "store"
    try:
        return _local_kind(Path(path))
    except PermissionError as error:
        raise StoreError(f"{path}: {error.strerror}", hint="check its access rights") from None


def _local_kind(place: Path) -> Kind:
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
    kind = kind_of(path)
    if kind == "nothing":
        return MissingPathError(f"{path}: no {wanted}", hint=hint)
    return StoreError(
        f"{path} is {KIND_NAMES[kind]}, not a {wanted}", hint=TAKERS[kind].format(path=shlex.quote(str(path)))
    )


@dataclass(frozen=True)
class CommandPath:
    """A path that a command was given.

    Attributes:
        name: what its help calls it, "STORE".
        kinds: kinds that it may be, the one that is meant first.
        written: whether the command writes it, so that it may also be missing, or an empty folder.
        meant: what the command takes, in words; by default `MEANT` of the first kind.
    """

    name: str
    path: str
    kinds: tuple[Kind, ...]
    written: bool = False
    meant: str = ""

    def fits(self, kind: Kind) -> bool:
        """Returns whether a path of that kind can stand here; what is missing is left to the command."""
        return kind in self.kinds or kind == "nothing" or (self.written and kind == "dataset")


def check_paths(command: str, places: Sequence[CommandPath], *, alone: bool = True) -> None:
    """Checks that every path that a command was given is of a kind that it takes, before it does anything.

    Args:
        alone: whether the paths are all that the command takes beside options.

    Raises:
        StoreError: one is not; the hint is the command with its paths in order, or what takes such a path.
    """
    kinds = [kind_of(place.path) for place in places]
    wrong = [number for number, place in enumerate(places) if not place.fits(kinds[number])]
    if not wrong:
        return
    if order := _right_order(places, kinds):
        moved = [number for number, now in enumerate(order) if number != now and kinds[number] != "nothing"]
        swapped = " and ".join(f"{places[each].path} is {KIND_NAMES[kinds[each]]}" for each in moved)
        right = " ".join(shlex.quote(places[number].path) for number in order)
        hint = f"avel {command} {right}" if alone else f"avel {command} -h shows their order"
        raise StoreError(f"{swapped}: arguments swapped?", hint=hint)
    place, kind = places[wrong[0]], kinds[wrong[0]]
    meant = place.meant or MEANT[place.kinds[0]]
    if place.kinds[0] == "video" and kind == "dataset":
        raise StoreError(
            f"{place.path} is a folder, not {meant}", hint=f"name its videos, as {place.path}/*.mp4"
        )
    if not place.written:
        raise not_a(meant.partition(" ")[2], place.path, "")  # without its article
    raise StoreError(
        f"{place.path} is {KIND_NAMES[kind]}; avel {command} writes {meant} to {place.name}",
        hint=f"name a new path: {place.path}/NAME" if kind == "runs" else "name a path where nothing is yet",
    )


def _right_order(places: Sequence[CommandPath], kinds: Sequence[Kind]) -> list[int]:
    """Returns the order in which two swapped paths are what the command takes; [] if there is none."""
    for one, other in itertools.combinations(range(len(places)), 2):
        order = list(range(len(places)))
        order[one], order[other] = other, one
        pairs = [(place, kinds[number]) for place, number in zip(places, order, strict=True)]
        if all(place.fits(kind) and (place.written or kind != "nothing") for place, kind in pairs):
            return order
    return []
