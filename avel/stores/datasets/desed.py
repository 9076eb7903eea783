"""DESED's tables, as the DCASE challenges have them: lines `filename<TAB>onset<TAB>offset<TAB>event_label`.

Source: https://github.com/turpaultn/DESED (Turpault et al. 2019).
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from avel.config import option
from avel.errors import DatasetError, MissingPathError
from avel.progress import note
from avel.stores.datasets.annotation_text import TextRow, parse_event, read_rows, read_text
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.event_table import TableRow, samples_of_rows
from avel.stores.datasets.formats import FORMATS, DatasetFormat
from avel.stores.datasets.media import MediaConfig, match_media, media_files, without_ending
from avel.stores.datasets.sample import Annotated

COLUMNS = ("filename", "onset", "offset", "event_label")
SPLIT_OF = {
    "train": "train",
    "validation": "val",
    "val": "val",
    "test": "test",
    "eval": "test",
    "public": "test",
}
"""Name of a table, or of a folder that it is in -> split."""


@FORMATS.register("desed")
class DESED(DatasetFormat["DESED.Config"]):
    """A folder with DESED's tables: train.tsv, validation.tsv, test.tsv, or tables in folders of these names.

    A line without times and class says that its clip has no event. Tables with other columns are left out.
    A line that is there twice counts once: some tables repeat a part of validation.
    """

    annotations_ending = ".tsv"

    @dataclass(frozen=True)
    class Config(MediaConfig):
        """Settings of DESED's tables."""

        annotations: Path | None = option(
            None, "One table; its name may say the split.", shown="those of each split, also in metadata/"
        )

    @staticmethod
    def matches(folder: Path) -> bool:
        return bool(_tables(folder)[0])

    def read(self, folder: Path) -> Dataset:
        """Returns a sample for each clip of a split, named by its file without ending.

        Raises:
            MissingPathError: no such table.
            DatasetError: a line that cannot be read.
        """
        single = self.config.annotations
        tables, others = _tables(folder) if single is None else ({single: SPLIT_OF.get(single.stem, "")}, [])
        if others:
            note(f"{folder}: tables without all of {' '.join(COLUMNS)} are left out: {', '.join(others)}")
        if not tables:
            raise MissingPathError(
                f"{folder}: no table of {' '.join(COLUMNS)}", hint="name it with --annotations FILE"
            )
        rows = [
            _row(row, split)
            for table, split in tables.items()
            for row in read_rows(table, COLUMNS, separator="\t")
        ]
        once = {(row.name, row.split, row.event): row for row in rows}
        samples = samples_of_rows(once.values())
        videos, extra = match_media(samples, media_files(self.config.videos or folder))
        return make_dataset(folder.resolve().name, folder, samples, videos, extra)


def desed_text(clips: Iterable[Annotated]) -> str:
    """Returns clips with their events as DESED's table, which `DESED` reads.

    A clip without events gets a line of its name only; one whose events are not known gets none.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for clip in clips:
        for event in clip.events or ():
            writer.writerow((clip.video_id, event.onset_seconds, event.offset_seconds, event.category))
        if clip.events == ():
            writer.writerow((clip.video_id, "", "", ""))
    return buffer.getvalue()


def _tables(folder: Path) -> tuple[dict[Path, str], list[str]]:
    """Returns table -> split for the tables of events in a folder, and the names of other tables."""
    paths = sorted({*folder.glob("*.tsv"), *(folder / "metadata").rglob("*.tsv")})
    found: dict[Path, str] = {}
    others = []
    for path in paths:
        names = (path.stem, *reversed(path.relative_to(folder).parts[:-1]))
        split = next((SPLIT_OF[name] for name in names if name in SPLIT_OF), None)
        if split is None:
            continue
        if _has_columns(path):
            found[path] = split
        else:
            others.append(path.name)
    return found, others


def _has_columns(path: Path) -> bool:
    """Returns True for a table with all of `COLUMNS`; DESED has others, of clips' classes without times."""
    header = read_text(path).partition("\n")[0].strip().split("\t")
    return {name.strip() for name in header} >= set(COLUMNS)


def _row(row: TextRow, split: str) -> TableRow:
    filename, onset, offset, category = (row.fields[column] for column in COLUMNS)
    if not filename:
        raise DatasetError(f"{row.where}: names no file", hint="write the name of the clip's file")
    says_event = onset or offset or category
    event = parse_event(category, onset, offset, row.where, filename) if says_event else None
    return TableRow(without_ending(filename), event, split, row.where)
