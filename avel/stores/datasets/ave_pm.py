"""AVE-PM's layout: `train.csv`, `val.csv`, `test.csv`, `class_name_mapping.csv`, `videos/<sample_id>.mp4`.

Source: the authors' repository, https://github.com/dzdydx/ave-pm (Liu et al. 2025).
"""

from pathlib import Path

from avel.errors import DatasetError, MissingPathError
from avel.stores.datasets.annotation_text import TextRow, parse_event, read_rows
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.event_table import TableRow, samples_of_rows
from avel.stores.datasets.formats import FORMATS, DatasetFormat, folder_with
from avel.stores.datasets.media import MediaConfig, match_media, media_files
from avel.stores.datasets.sample import SPLITS

CLASSES_FILE = "class_name_mapping.csv"
COLUMNS = ("sample_id", "onset", "offset", "label")


@FORMATS.register("ave-pm")
class AVEPM(DatasetFormat[MediaConfig]):
    """AVE-PM's folder: clips of ten seconds, named by number, each with one event timed to 0.01 s."""

    Config = MediaConfig

    @staticmethod
    def matches(folder: Path) -> bool:
        return folder_with([CLASSES_FILE], folder, "AVE-PM", "dataset/AVE-PM") is not None

    def read(self, folder: Path) -> Dataset:
        """Returns the samples of train, val and test, in the order of their tables.

        Raises:
            MissingPathError: no table of classes or of samples.
            DatasetError: a row that cannot be read, or a class that has no name.
        """
        found = folder_with([CLASSES_FILE], folder, "AVE-PM", "dataset/AVE-PM")
        tables = [] if found is None else [found / f"{split}.csv" for split in SPLITS]
        if found is None or not any(table.is_file() for table in tables):
            raise MissingPathError(
                f"{found or folder}: holds no {'train.csv, val.csv or test.csv' if found else CLASSES_FILE}",
                hint="copy dataset/AVE-PM of the authors' repository",
            )
        names = _names(found / CLASSES_FILE)
        rows = [
            _row(row, names, table.stem)
            for table in tables
            if table.is_file()
            for row in read_rows(table, COLUMNS)
        ]
        samples = samples_of_rows(rows)
        videos, extra = match_media(samples, media_files(self.config.videos or found))
        return make_dataset(folder.resolve().name, folder, samples, videos, extra)


def _names(path: Path) -> dict[str, str]:
    """Reads class id -> class name, both as text."""
    names: dict[str, str] = {}
    for row in read_rows(path, ("class_id", "class_name")):
        number, name = row.fields["class_id"], row.fields["class_name"]
        if number in names or name in names.values():
            twice = f"class_id {number}" if number in names else f"class_name {name!r}"
            raise DatasetError(f"{row.where}: {twice} is there twice", hint="take one out")
        names[number] = name
    return names


def _row(row: TextRow, names: dict[str, str], split: str) -> TableRow:
    sample_id, onset, offset, label = (row.fields[column] for column in COLUMNS)
    if label not in names:
        raise DatasetError(
            f"{row.where} ({sample_id}): class {label!r} is not in {CLASSES_FILE}",
            hint="take all tables from one version of the authors' repository",
        )
    event = parse_event(names[label], onset, offset, row.where, sample_id)
    return TableRow(sample_id, event, split, row.where)
