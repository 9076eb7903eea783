"""Writes a feature cache as the files that the code of AVEL and PSP reads: `avel export-features`."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from avel.errors import StoreError
from avel.stores.ave_files import (
    AUDIO_FILE,
    CLASS_FRACTIONS,
    EVENT_LABELS,
    KEYS,
    MAPS_FILE,
    NOT_READ,
    ORDERS,
    PRESENCE,
    SIZES,
    VECTORS_FILE,
    Truth,
)
from avel.stores.datasets.sample import SPLITS
from avel.stores.documents import typed
from avel.stores.features import FeatureCache
from avel.stores.files import check_can_write
from avel.stores.hdf5 import BLOCK_ROWS, new_hdf5
from avel.stores.provenance import CACHE_AGAIN
from avel.text import plural, table

LABEL_FILES = ("labels.h5", "right_labels.h5", EVENT_LABELS, CLASS_FRACTIONS, PRESENCE)
PUBLISHED_CLASSES = 29
PUBLISHED_HELD_OUT_ROWS = 402
"""Rows of val, and of test; the published code reads each as one batch."""
TAKE_THE_AUTHORS = f"not written, take the authors' own: {', '.join(NOT_READ)}"


@dataclass(frozen=True)
class Exported:
    """Result of an export: file name -> shape, and remarks for users of the files."""

    folder: str
    files: dict[str, tuple[int, ...]]
    findings: tuple[str, ...]

    @property
    def published_sizes(self) -> bool:
        """Returns True if all features have the widths and grids of the published files."""
        return all(shape[1:] == SIZES.get(name, shape[1:]) for name, shape in self.files.items())

    def headline(self) -> str:
        """Returns the result in one line."""
        return f"{self.folder}: {plural(len(self.files), 'file')} as the published code reads them"

    def lines(self) -> list[str]:
        """Returns the files and their shapes as a table, and the remarks on them."""
        rows = [(name, " x ".join(map(str, shape))) for name, shape in self.files.items()]
        return [*table(("file", "shape"), rows), "", *(f"note: {each}" for each in self.findings)]


def export_features(
    cache: Path | str,
    folder: Path | str,
    *,
    level: Literal["cnn", "encoder"] | None = None,
    dtype: Literal["float64", "float32"] = "float64",
    overwrite: bool = False,
) -> Exported:
    """Writes a cache as `audio_feature.h5` (R, T, D), `visual_feature.h5` (R, T, 7, 7, C), labels, orders.

    Each file holds one contiguous array, `avadataset` or `order`; its row is the number of the sample. Rows
    without features are NaN and in no order file.

    Args:
        level: "cnn" for CNN vectors, the default where the cache holds them; "encoder" for f_a and f_v.
        dtype: of the features.
        overwrite: replace files that exist.

    Raises:
        DatasetError: a sample in which events of two classes overlap: the files hold one label per segment.
        StoreError: the cache does not hold the level, or no samples, or clips of several lengths; files are
            there and `overwrite` is not given; a file of maps is there, and the cache holds none.
    """
    folder = Path(folder)
    check_can_write(folder, folder=True)
    opened = FeatureCache.open(cache)
    if not len(opened.samples):
        raise StoreError(
            f"{cache}: holds no samples, so the files would have no rows",
            hint="give a cache that was made of a dataset with annotations",
        )
    if opened.differing_lengths:
        raise StoreError(
            f"{cache}: its clips have lengths of their own, and these files hold clips of one length",
            hint="avel extract with --format-set longest_seconds=0 pads all to one",
        )
    level = level or ("cnn" if {"cnn_a", "cnn_v"} <= set(opened.shapes) else "encoder")
    names = {
        AUDIO_FILE: "cnn_a" if level == "cnn" else "f_a",
        VECTORS_FILE: "cnn_v" if level == "cnn" else "f_v",
    }
    if "maps" in opened.shapes:
        names[MAPS_FILE] = "maps"
    for array in names.values():
        opened.check_holds(array)
    truth = Truth(opened.labels(), opened.samples.events, opened.classes)
    there = [name for name in (*names, *LABEL_FILES, *ORDERS) if (folder / name).exists()]
    if there and not overwrite:  # they may be the authors' originals
        raise StoreError(
            f"{folder}: holds {', '.join(there)} already", hint="choose another folder, or add --overwrite"
        )
    if MAPS_FILE not in names and (folder / MAPS_FILE).exists():
        raise StoreError(
            f"{folder}: holds {MAPS_FILE}, and {cache} no maps: published code would mix old and new",
            hint="choose another folder, or move that file away",
        )
    shapes = {
        name: _write_features(opened, array, folder / name, np.dtype(dtype)) for name, array in names.items()
    }
    shapes |= _write_labels(opened, truth, folder) | _write_orders(opened, folder)
    return Exported(str(folder), shapes, tuple(_findings(opened, names)))


def _write_features(cache: FeatureCache, name: str, path: Path, dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Writes one array with a row for each sample, 64 at a time: (V, T, ...) -> (R, T, ...)."""
    count = cache.annotation_rows
    shape = (count, *cache.shapes[name][1:])
    video_of_row = np.full(count, -1, np.int64)
    video_of_row[cache.samples.number] = cache.samples.video
    with _new_array(path, shape, dtype) as array:
        for start in range(0, count, BLOCK_ROWS):
            videos = video_of_row[start : start + BLOCK_ROWS]
            block = np.full((len(videos), *shape[1:]), np.nan, dtype)
            block[videos >= 0] = cache.read(name, videos[videos >= 0])
            array[start : start + len(videos)] = block
    return shape


def _write_labels(cache: FeatureCache, truth: Truth, folder: Path) -> dict[str, tuple[int, ...]]:
    """Writes all label files; rows without features are 0."""
    count, present = cache.annotation_rows, cache.samples.number
    shapes = {}
    for name in LABEL_FILES:
        values = truth.expected(name)
        shapes[name] = (count, *values.shape[1:])
        with _new_array(folder / name, shapes[name], np.dtype(np.float32)) as array:
            whole = np.zeros(shapes[name], np.float32)
            whole[present] = values
            array[...] = whole
    return shapes


def _write_orders(cache: FeatureCache, folder: Path) -> dict[str, tuple[int, ...]]:
    """Writes the order files: rows with features, as they were imported, else ascending."""
    shapes: dict[str, tuple[int, ...]] = {}
    where, orders = f"{cache.path}: provenance: orders", cache.provenance.get("orders") or {}
    # The orders in the files that the cache was imported from, if it was
    imported = typed(dict[str, tuple[int, ...]], orders, where, CACHE_AGAIN)
    for name, split in ORDERS.items():
        present = set(cache.samples.number[cache.samples.split == split].tolist())
        order = [row for row in imported.get(split, sorted(present)) if row in present]
        with _new_array(folder / name, (len(order),), np.dtype(np.int64), key="order") as array:
            array[...] = np.array(order, np.int64)
        shapes[name] = (len(order),)
    return shapes


@contextmanager
def _new_array(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], key: str = KEYS[0]
) -> Iterator[h5py.Dataset]:
    """Creates a file, whole or not at all, with one contiguous, uncompressed array."""
    with new_hdf5(path, math.prod(shape) * dtype.itemsize) as file:
        yield file.create_dataset(key, shape, dtype)


def _findings(cache: FeatureCache, names: dict[str, str]) -> list[str]:
    """Lists what users of the files should know; `names` is file -> array of the cache."""
    findings = [f"{name}: {array}, {cache.shapes[array][-1]} wide" for name, array in names.items()]
    if MAPS_FILE not in names:
        findings.append(f"no {MAPS_FILE}: the cache holds no maps, which AVEL and PSP attend over")
    counts = {
        "without features: NaN, and in no order file": sum(item.sample >= 0 for item in cache.missing),
        "of unknown events: zeros for labels": int((~cache.samples.known).sum()),
        "in no split, so in no order file": int((cache.samples.split == "").sum()),
    }
    findings += [f"{plural(count, 'row')} {what}" for what, count in counts.items() if count]
    if not set(SPLITS) <= set(cache.samples.split):
        findings.append("not every split has rows: the published code needs all three order files filled")
    return [*findings, *_beyond_the_published(cache, names), TAKE_THE_AUTHORS]


def _beyond_the_published(cache: FeatureCache, names: dict[str, str]) -> list[str]:
    """Lists what the published loaders cannot read: sizes are fixed; val and test are one batch each."""
    findings = [
        f"{name}: rows of {cache.shapes[array][1:]}, the published loaders take {SIZES[name]} only"
        for name, array in names.items()
        if cache.shapes[array][1:] != SIZES[name]
    ]
    if cache.classes != PUBLISHED_CLASSES:
        findings.append(f"{cache.classes} classes: the published loaders take {PUBLISHED_CLASSES} only")
    for split in ("val", "test"):
        rows = int((cache.samples.split == split).sum())
        if rows != PUBLISHED_HELD_OUT_ROWS:
            findings.append(
                f"{plural(rows, f'{split} row')}: the published code reads {PUBLISHED_HELD_OUT_ROWS} as one"
                " batch; set its batch_size to this number"
            )
    return findings
