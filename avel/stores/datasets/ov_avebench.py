"""OV-AVEBench's layout: a CSV has the split of each clip, a JSON a 0 or 1 for each of its ten seconds.

Source: folder meta_anno_files of https://github.com/jasongief/OV-AVEL, the authors' (Zhou et al. 2025).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avel.config import option
from avel.errors import DatasetError
from avel.stores.datasets.annotation_text import TextRow, read_json, read_rows
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.event_table import TableRow, samples_of_rows
from avel.stores.datasets.formats import FORMATS, DatasetFormat, folder_with
from avel.stores.datasets.media import MediaConfig, match_media, media_files
from avel.stores.datasets.segment_vector import rows_of_vector

META = "ovave_dataset_meta.csv"
ONE_VERSION = "take table and labels from one version of the repository"
COLUMNS = ("split", "cls_name", "cls_type", "vid_name")
LABELS = ("released_ovavel_dataset_anno.json", "ovavel_dataset_anno.json")
"""Files of labels, the better first: the authors' code reads the released ones, which correct the others."""
TAGS = {"close": "seen", "open": "unseen"}
"""cls_type in the table -> tag of the sample."""


@FORMATS.register("ov-avebench")
class OVAVEBench(DatasetFormat["OVAVEBench.Config"]):
    """OV-AVEBench's folder: a clip has one class, in any number of runs of whole seconds, or nowhere.

    A sample's tag is "seen" or "unseen": whether train has its class. `evaluate` gives figures of both.
    """

    @dataclass(frozen=True)
    class Config(MediaConfig):
        """Settings of OV-AVEBench."""

        table: Path | None = option(None, "CSV of splits, such as ovave_trainratio0.5_meta.csv.", shown=META)
        labels: Path | None = option(None, "JSON of labels.", shown=" or ".join(LABELS))

    @staticmethod
    def matches(folder: Path) -> bool:
        return folder_with([META], folder, "meta_anno_files") is not None

    def read(self, folder: Path) -> Dataset:
        """Returns the samples in the order of the table.

        Raises:
            MissingPathError: no table or no labels.
            DatasetError: a row that cannot be read, a clip without label, or whose label has another class.
        """
        found = folder_with([META], folder, "meta_anno_files") or folder
        table = self.config.table or found / META
        path = self.config.labels or next(
            (found / name for name in LABELS if (found / name).is_file()), found / LABELS[0]
        )
        labels = read_json(path)
        rows = [each for row in read_rows(table, COLUMNS) for each in _rows(row, labels, path)]
        samples = samples_of_rows(rows)
        videos, extra = match_media(samples, media_files(self.config.videos or folder))
        return make_dataset(folder.resolve().name, folder, samples, videos, extra)


def _rows(row: TextRow, labels: Any, path: Path) -> tuple[TableRow, ...]:
    split, category, kind, name = (row.fields[column] for column in COLUMNS)
    label = labels.get(name) if isinstance(labels, dict) else None
    if not isinstance(label, dict) or not {"category", "label"} <= set(label):
        raise DatasetError(
            f"{row.where} ({name}): {path.name} holds no category and label of it",
            hint=ONE_VERSION,
        )
    if label["category"] != category:
        raise DatasetError(
            f"{row.where} ({name}): class {category!r}, but {path.name} says {label['category']!r}",
            hint=ONE_VERSION,
        )
    if kind not in TAGS:
        raise DatasetError(
            f"{row.where} ({name}): cls_type {kind!r} is none of {', '.join(TAGS)}", hint="write one of these"
        )
    found = rows_of_vector(name, category, label["label"], split, row.where)
    return tuple(replace(each, tag=TAGS[kind]) for each in found)
