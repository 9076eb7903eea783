"""Opens whatever avel reads or writes, as what it is: `avel.open`."""

from pathlib import Path

from avel.stores.clips import ClipStore
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.formats import read_dataset
from avel.stores.features import FeatureCache
from avel.stores.kinds import kind_of, not_a
from avel.stores.runs import Run


def open(path: Path | str) -> ClipStore | FeatureCache | Run | Dataset:
    """Opens a clip store, a feature cache, a run or a dataset by what lies at `path`.

    >>> avel.open("ave.h5").f_a[:2].shape  # doctest: +SKIP
    (2, 10, 256)

    Raises:
        MissingPathError: nothing is there.
        StoreError: what is there is none of these, damaged, or of another version.
        DatasetError: a folder of videos whose annotations cannot be used.
    """
    kind = kind_of(path)
    if kind == "store":
        return ClipStore.open(path)
    if kind == "cache":
        return FeatureCache.open(path)
    if kind == "run":
        return Run.open(path)
    if kind == "dataset":
        return read_dataset(path)
    raise not_a("dataset, store, cache or run", path, "check the path")
