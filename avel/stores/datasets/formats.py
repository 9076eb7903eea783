"""Which format a folder has, and the dataset that it holds."""

from pathlib import Path

from avel.errors import MissingPathError
from avel.stores.datasets import ave, folder
from avel.stores.datasets.dataset import Dataset


def read_dataset(path: Path | str, annotations: Path | str | None = None) -> Dataset:
    """The dataset at `path`: an AVE folder, or a folder of videos with or without a CSV or Parquet of rows.

    Raises:
        MissingPathError: `path` or `annotations` is not there.
        DatasetError: annotations that contradict themselves, with their line.
    """
    root = Path(path)
    if not root.is_dir():
        raise MissingPathError(f"{root}: no such folder", hint="give the folder that holds the videos")
    if annotations is None and ave.find(root) is not None:
        return ave.read(root)
    return folder.read(root, None if annotations is None else Path(annotations))
