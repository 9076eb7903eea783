"""Keeps what is computed of an unfinished feature cache in parts: HDF5 files of up to 64 videos each.

Pretraining keeps the vectors of its CNNs in such parts, too.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.digests import digest_of
from avel.errors import StoreError
from avel.progress import note
from avel.stores.cache_lock import parts_folder
from avel.stores.hdf5 import (
    CHECKSUMS,
    array_of,
    attribute,
    decoded,
    new_hdf5,
    open_hdf5,
    read_column,
    read_verified_rows,
    texts,
    write_rows,
)

PART_VIDEOS = 64
NAME_BYTES = 1024
"""Room for the id of a video and the hash of its source."""
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Row:
    """Place of the features of one video: a part, or a cache that is extended, and the row in it."""

    path: Path
    index: int


@dataclass(frozen=True)
class Part:
    """Contents of one part: its videos, the SHA-256 of their files, digest of the CNNs and device."""

    video_ids: list[str]
    sources: list[str]
    cnn: str
    hardware: str


@dataclass(frozen=True)
class Parts:
    """Finished parts of one recipe; a recipe is the entries of the provenance that decide the features.

    Parts of another recipe lie in another folder and are never read.
    """

    folder: Path

    @classmethod
    def of(cls, cache: Path, recipe: Mapping[str, Any]) -> Parts:
        """Returns the parts in `.NAME.parts/DIGEST` beside the cache."""
        return cls(parts_folder(cache) / digest_of(recipe))

    def finished(self, sources: Mapping[str, str]) -> dict[str, Row]:
        """Returns video id -> place in a part, of the videos whose SHA-256 there is the one in `sources`."""
        places = {}
        for path, part in self._read().items():
            for index, (name, source) in enumerate(zip(part.video_ids, part.sources, strict=True)):
                if sources.get(name) == source:
                    places[name] = Row(path, index)
        return places

    def _read(self) -> dict[Path, Part]:
        """Reads which videos each part holds; removes damaged parts, whose videos are then computed again."""
        parts = {}
        for path in sorted(self.folder.glob("*.h5")):
            try:
                with open_hdf5(path, "") as file:
                    names, sources, (cnn, hardware) = (
                        decoded(read_column(file, name, np.bytes_, ""))
                        for name in ("video_ids", "sources", "made_with")
                    )
                    part = Part(names, sources, cnn, hardware)
                    if attribute(file, "digest") != digest_of(vars(part)):
                        raise StoreError(f"{path}: is damaged")
                parts[path] = part
            except StoreError as error:
                note(f"{error.message}; its clips are computed again")
                path.unlink(missing_ok=True)
        return parts

    def write(self, sources: Mapping[str, str], arrays: Arrays, *, cnn: str, hardware: str) -> dict[str, Row]:
        """Writes features of some videos, (n, T, ...) each, and what made them; returns their places."""
        names = tuple(sources)
        path = self.folder / f"{digest_of(list(sources.items()))}.h5"
        room = sum(values.nbytes for values in arrays.values()) + NAME_BYTES * len(names)
        with new_hdf5(path, room) as file:
            file["video_ids"], file["sources"] = texts(names), texts(sources.values())
            file["made_with"] = texts([cnn, hardware])
            part = Part(list(names), list(sources.values()), cnn, hardware)
            file.attrs["digest"] = np.bytes_(digest_of(vars(part)))
            for name, values in arrays.items():
                write_rows(file, name, values, values.dtype)
        return {name: Row(path, index) for index, name in enumerate(names)}

    def made_with(self) -> tuple[set[str], set[str]]:
        """Returns the digests of the CNNs behind the finished parts, and the devices."""
        parts = self._read().values()
        return {part.cnn for part in parts}, {part.hardware for part in parts}

    def remove(self) -> None:
        """Removes the parts of this recipe."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Gathered:
    """Reads an array (V, T, ...) whose rows lie in several files: parts, or a cache that is extended.

    Args:
        hint: next step for a damaged file; by default to remove it, so that its clips are computed again.
    """

    def __init__(self, name: str, places: Sequence[Row], hint: str = "") -> None:
        self._name, self._places, self._hint = name, places, hint
        with open_hdf5(places[0].path, self._hint_for(places[0].path)) as file:
            array = array_of(file, name, self._hint_for(places[0].path))
            self.shape: tuple[int, ...] = (len(places), *array.shape[1:])
            self.dtype: np.dtype[Any] = array.dtype

    def __getitem__(self, key: slice) -> NDArray[Any]:
        chosen = self._places[key]
        result, done = np.empty((len(chosen), *self.shape[1:]), self.dtype), 0
        for path, neighbours in groupby(chosen, lambda row: row.path):
            rows, hint = [row.index for row in neighbours], self._hint_for(path)
            with open_hdf5(path, hint) as file:
                array, sums = (array_of(file, self._name + end, hint) for end in ("", CHECKSUMS))
                result[done : done + len(rows)] = read_verified_rows(array, sums, rows, hint)
            done += len(rows)
        return result

    def _hint_for(self, path: Path) -> str:
        return self._hint or f"remove it, and its clips are computed again: {shlex.join(['rm', str(path)])}"
