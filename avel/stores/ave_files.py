"""Reads and checks the published AVE feature files: one HDF5 array each, row = annotation line = sample.

They hold no ids. What can be checked: shapes, label files against the annotations, order files against the
splits, and that rows of one video have the same features.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from avel.errors import DatasetError, MissingPathError, StoreError
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.labels import UNKNOWN, EventTable
from avel.stores.datasets.sample import SPLITS
from avel.stores.hdf5 import array_of, open_hdf5
from avel.text import plural

KEYS = ("avadataset", "dataset")
"""Possible names of the one array; the first of them that the file has is read."""
AUDIO_FILE, MAPS_FILE, VECTORS_FILE = "audio_feature.h5", "visual_feature.h5", "visual_feature_vec.h5"
SEGMENT_LABELS = ("labels.h5", "right_labels.h5", "right_label.h5")
EVENT_LABELS, CLASS_FRACTIONS, PRESENCE = "mil_labels.h5", "prob_label.h5", "labels_closs.h5"
ORDERS = {f"{split}_order.h5": split for split in SPLITS}
BACKGROUND_AUDIO, BACKGROUND_MAPS = "audio_feature_noisy.h5", "visual_feature_noisy.h5"
"""Features of clips that hold no event and have no annotation line; `import_background` reads them."""
NOT_READ = dict.fromkeys(
    (BACKGROUND_MAPS, BACKGROUND_AUDIO, "labels_noisy.h5"), "background clips without annotation line"
) | dict.fromkeys((f"{split}_order_match.h5" for split in SPLITS), "orders of cross-modality matching")
"""Other published files -> what they hold; `import_features` accepts them, but does not read them."""
SIZES = {AUDIO_FILE: (10, 128), MAPS_FILE: (10, 7, 7, 512), VECTORS_FILE: (10, 512)}
SIZES |= {BACKGROUND_AUDIO: SIZES[AUDIO_FILE], BACKGROUND_MAPS: SIZES[MAPS_FILE]}
"""Published feature file -> shape of one row."""
DIMENSIONS = {name: 1 + len(size) for name, size in SIZES.items()} | {
    **dict.fromkeys((EVENT_LABELS, CLASS_FRACTIONS, PRESENCE), 2),
    **dict.fromkeys(SEGMENT_LABELS, 3),
}
"""File -> dimensions of its array."""
FETCH = "fetch it again"
OTHER_DATASET = "give the annotations that belong to these files with --dataset"
MOST_WRONG = 0.01
"""Fraction of rows whose events may differ from the annotations; with more, the row order must be another."""


def find_files(paths: Sequence[Path]) -> dict[str, Path]:
    """Finds the known files in one folder, or among the given ones: file name -> path.

    Raises:
        MissingPathError: the folder or a file is not there, or there is no feature file.
        StoreError: a given file has no known name, or two have the same.
    """
    folder = paths[0] if len(paths) == 1 and paths[0].is_dir() else None
    paths = sorted(folder.iterdir()) if folder else paths
    known = {*DIMENSIONS, *ORDERS, *NOT_READ}
    for path in paths:
        if not path.is_file() and not path.is_dir():
            raise MissingPathError(f"{path}: no such file", hint="check the path")
        if folder is None and path.name not in known:
            raise StoreError(f"{path}: no known AVE file", hint=f"known names: {', '.join(sorted(known))}")
    files = {path.name: path for path in paths if path.name in known}
    if twice := [path for path in paths if files.get(path.name, path) != path]:
        raise StoreError(f"{twice[0]} and {files[twice[0].name]} are both given", hint="leave one out")
    if AUDIO_FILE not in files or not {MAPS_FILE, VECTORS_FILE} & set(files):
        shown = ", ".join(sorted(files)) or "none is there"
        raise MissingPathError(
            f"{folder or 'given files'}: no audio and visual features among the known files: {shown}",
            hint=f"need {AUDIO_FILE} and {MAPS_FILE} or {VECTORS_FILE}, from the dataset's page, AVE-ECCV18",
        )
    return files


@contextmanager
def open_array(path: Path, rows: int | None, *, any_size: bool = False) -> Iterator[h5py.Dataset]:
    """Opens the one array of a file, read-only, and checks that it has `rows` rows of the published size.

    Without `rows` it may have any number of them.

    Raises:
        StoreError: not HDF5, or no array under a known key.
        DatasetError: another number of rows or dimensions, or, without `any_size`, rows of another size.
    """
    with open_hdf5(path, FETCH) as file:
        key = next((key for key in KEYS if key in file), None)
        if key is None:
            raise StoreError(
                f"{path}: no array named {' or '.join(KEYS)}, only {', '.join(file) or 'none'}", hint=FETCH
            )
        stored, wanted = array_of(file, key, FETCH), DIMENSIONS.get(path.name)
        if stored.dtype.kind not in "fiu":
            raise StoreError(f"{path}: {key} is {stored.dtype}, not numbers", hint=FETCH)
        if wanted is not None and stored.ndim != wanted:
            raise DatasetError(f"{path}: {stored.shape}, need {wanted} dimensions", hint=FETCH)
        size = SIZES.get(path.name)
        if size and stored.shape[1:] != size and not any_size:
            raise DatasetError(
                f"{path}: rows of {stored.shape[1:]}, the published file has {size}",
                hint="fetch it again; --any-size takes features of another network or grid",
            )
        if rows is not None and stored.shape[:1] != (rows,):
            raise DatasetError(
                f"{path}: {stored.shape[0] if stored.shape else 0} rows, the annotations have {rows}",
                hint=OTHER_DATASET,
            )
        yield stored


@dataclass(frozen=True)
class Truth:
    """Annotations of R samples, against which files are checked.

    Attributes:
        labels: (R, T) class of each segment, UNKNOWN where the events are not known.
        events: the events of the samples.
        classes: K, background included.
    """

    labels: NDArray[np.int64]
    events: EventTable
    classes: int

    @property
    def known(self) -> NDArray[np.bool_]:
        """Returns True for samples whose events are known: (R,)."""
        return np.asarray((self.labels != UNKNOWN).all(1))

    def one_hot(self) -> NDArray[np.float32]:
        """Returns the contents of `labels.h5`: (R, T, K), zeros where the events are not known."""
        return np.eye(self.classes, dtype=np.float32)[self.labels] * self.known[:, None, None]

    def video_classes(self) -> NDArray[np.float32]:
        """Returns the contents of `mil_labels.h5`: (R, K), 1 for each event class, else for background."""
        classes = np.zeros((len(self.labels), self.classes), np.float32)
        classes[self.events.sample, self.events.category] = 1
        classes[:, -1] = self.known & ~classes.any(1)
        return classes

    def expected(self, name: str) -> NDArray[np.float32]:
        """Returns the contents of a label file: (R, T, K), (R, K) or (R, T)."""
        if name == EVENT_LABELS:
            return self.video_classes()
        if name == CLASS_FRACTIONS:
            return np.asarray(self.one_hot().mean(axis=1), np.float32)
        if name == PRESENCE:
            return np.asarray((self.labels != self.classes - 1) & self.known[:, None], np.float32)
        return self.one_hot()


def check_label_files(files: dict[str, Path], truth: Truth, present: NDArray[np.bool_]) -> list[str]:
    """Compares label files with the annotations of rows that have features; returns one finding per file.

    Raises:
        DatasetError: so many rows have another event that the files must be in another row order.
    """
    findings, present = [], present & truth.known
    for name in (*SEGMENT_LABELS, EVENT_LABELS, CLASS_FRACTIONS, PRESENCE):
        if name not in files:
            continue
        expected = truth.expected(name)
        with open_array(files[name], len(truth.labels)) as stored:
            if stored.shape != expected.shape:
                raise DatasetError(
                    f"{files[name]}: {stored.shape}, the annotations give {expected.shape}",
                    hint=OTHER_DATASET,
                )
            values = stored[()]
        axes = tuple(range(1, values.ndim))
        right = np.abs(values - expected).max(axis=axes) <= 1e-3
        wrong = np.flatnonzero(~right & present)
        # CLASS_FRACTIONS are only reported: the published ones were never compared with the annotations
        if name != CLASS_FRACTIONS and len(wrong) > MOST_WRONG * present.sum():
            raise DatasetError(
                f"{files[name]}: {len(wrong)} of {present.sum()} rows differ from the annotations",
                hint="the files are in the row order of other annotations; give those with --dataset",
            )
        findings.append(f"{name}: {_differences(wrong, values)}")
    return findings


def check_order_files(
    orders: dict[str, list[int]], dataset: Dataset, present: NDArray[np.bool_]
) -> list[str]:
    """Compares order files with the rows of their splits that have features; returns one finding per file.

    Raises:
        DatasetError: an order file and its split do not have the same rows.
    """
    findings = []
    absent = {sample.number for sample, there in zip(dataset.samples, present, strict=True) if not there}
    for split, order in orders.items():
        wanted = {sample.number for sample in dataset.samples if sample.split == split}
        differ = (set(order) ^ wanted) - absent
        if wanted and differ:
            raise DatasetError(
                f"{split}_order.h5: {plural(len(differ), 'row')} only in it, or only in the {split} split",
                hint="leave out the order files, or give the annotations of their release with --dataset",
            )
        left_out = len(wanted - set(order))
        without = f", {left_out} more without features" if left_out else ""
        findings.append(f"{split}_order.h5: the {plural(len(order), 'row')} of the {split} split{without}")
    return findings


def _differences(wrong: NDArray[np.int64], values: NDArray[np.float32]) -> str:
    if not len(wrong):
        return "as the annotations say"
    shown = ", ".join(map(str, wrong[:5].tolist())) + (" ..." if len(wrong) > 5 else "")
    text = f"{plural(len(wrong), 'row')} unlike the annotations ({shown}), from which labels are made"
    if values.ndim == 3:
        double = np.flatnonzero((values.sum(axis=2) > 1).any(axis=1))
        text += f"; {plural(len(double), 'row')} with two labels in a segment" if len(double) else ""
    return text
