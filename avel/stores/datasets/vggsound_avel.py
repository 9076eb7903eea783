"""Reads the layout of VGGSound-AVEL100k and 50k: a CSV of categories and splits, ten 0 or 1 for each clip.

The clips of VGGSound are named by their YouTube id and the second at which they start, `<id>_000017.mp4`; the
tables have the id alone. Of two clips of one id the authors advise to take the later one.
Sources: https://github.com/jasongief/CPSP (Zhou et al. 2022), its loader and its issues 1, 3 and 5.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avel.config import option
from avel.errors import DatasetError, MissingPathError
from avel.progress import note
from avel.stores.datasets.annotation_text import TextRow, read_json, read_rows
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.event_table import TableRow, samples_of_rows
from avel.stores.datasets.formats import FORMATS, DatasetFormat, only_file
from avel.stores.datasets.media import MediaConfig, match_media, media_files
from avel.stores.datasets.segment_vector import rows_of_vector
from avel.text import plural

TABLE_FILES = "vggsound-avel*.csv"
COLUMNS = ("category", "video_id", "split")
VECTOR_COLUMN = "label"
"""Column of the vectors, where they stand in the table."""
LABELS = ("{}_annos.json", "{}_labels.json")
"""Names of the vectors' file, where the table does not hold them; {} is the name of the table."""
MOST_IDS = 100
"""Most ids with several clips that the error lists."""


@FORMATS.register("vggsound-avel")
class VGGSoundAVEL(DatasetFormat["VGGSoundAVEL.Config"]):
    """VGGSound-AVEL's table: a clip has one class, in any number of runs of whole seconds, or nowhere."""

    @dataclass(frozen=True)
    class Config(MediaConfig):
        """Settings of VGGSound-AVEL."""

        table: Path | None = option(None, "CSV of categories and splits.", shown=TABLE_FILES)
        labels: Path | None = option(
            None, "JSON with ten 0 or 1 for each clip.", shown="column label, or TABLE_annos.json"
        )
        ambiguous: Literal["refuse", "later"] = option(
            "refuse", "What to do where several clips have one id: refuse them, or take the later one."
        )

    @staticmethod
    def matches(folder: Path) -> bool:
        return bool(_tables(folder))

    def read(self, folder: Path) -> Dataset:
        """Returns the samples in the order of the table; the events of a clip without vector are not known.

        Raises:
            MissingPathError: no table or no vectors.
            DatasetError: several tables, a row that cannot be read, or several clips of one id.
        """
        table = self.config.table or only_file(_tables(folder), folder, TABLE_FILES, "--format-set table=")
        rows = read_rows(table, COLUMNS)
        in_table = bool(rows) and VECTOR_COLUMN in rows[0].fields and self.config.labels is None
        vectors = {} if in_table else _vectors(self.config.labels or _beside(table))
        samples = samples_of_rows(each for row in rows for each in _rows(row, vectors, in_table))
        ids = {sample.video_id for sample in samples}
        files = _by_id(media_files(self.config.videos or folder), ids)
        several = {name: found for name, found in files.items() if name in ids and len(found) > 1}
        if several and self.config.ambiguous == "refuse":
            raise _several_clips(several)
        if several:
            count = plural(len(several), "id")
            note(f"{folder}: {count} with several clips; the one that starts last is taken")
        later = {video_id: _later(video_id, found) for video_id, found in several.items()}
        videos, extra = match_media(samples, files | later)
        earlier = [path for name, found in several.items() for path in found if path not in later[name]]
        return make_dataset(folder.resolve().name, folder, samples, videos, sorted((*extra, *earlier)))


def _tables(folder: Path) -> list[Path]:
    return sorted(folder.glob(TABLE_FILES))


def _beside(table: Path) -> Path:
    names = [name.format(table.stem) for name in LABELS]
    found = [table.with_name(name) for name in names if table.with_name(name).is_file()]
    if not found:
        raise MissingPathError(
            f"{table}: no column {VECTOR_COLUMN!r}, and beside it neither {' nor '.join(names)}",
            hint="name the JSON of the vectors with --format-set labels=FILE",
        )
    return found[0]


def _vectors(path: Path) -> dict[str, Any]:
    """Returns id -> its vector, of one object or of a list of objects: `{id: {"label": vector}}`."""
    held = read_json(path)
    parts = held if isinstance(held, list) else [held]
    found: dict[str, Any] = {}
    for part in parts:
        for video_id, value in part.items() if isinstance(part, dict) else [("", part)]:
            if not isinstance(value, dict) or "label" not in value:
                raise DatasetError(f'{path} ({video_id}): {value!r} is not {{"label": [0, 1, ...]}}')
            if video_id in found and found[video_id] != value["label"]:
                raise DatasetError(f"{path} ({video_id}): two vectors that differ", hint="take one out")
            found[video_id] = value["label"]
    return found


def _rows(row: TextRow, vectors: dict[str, Any], in_table: bool) -> tuple[TableRow, ...]:
    category, video_id, split = (row.fields[column] for column in COLUMNS)
    vector = row.fields[VECTOR_COLUMN] if in_table else vectors.get(video_id)
    if vector in (None, ""):
        return (TableRow(video_id, None, split, row.where, known=False),)
    return rows_of_vector(video_id, category, vector, split, row.where)


def _by_id(files: dict[str, list[Path]], ids: Collection[str]) -> dict[str, list[Path]]:
    """Returns id -> its clips: files named by it, with or without the times of a clip's start and end."""
    found: dict[str, list[Path]] = {}
    for name, paths in files.items():
        forms = (name, *(re.sub(rf"(_\d+){{{count}}}$", "", name) for count in (1, 2)))
        found.setdefault(next((form for form in forms if form in ids), name), []).extend(paths)
    return found


def _start(video_id: str, path: Path) -> float:
    """Returns the start in a clip's name, in the unit that the names use; -1 where there is none."""
    times = path.stem.removeprefix(video_id).split("_")
    return float(times[1]) if len(times) > 1 else -1.0


def _later(video_id: str, found: list[Path]) -> list[Path]:
    """Returns the clip that starts last, and those with the same start or an unknown one."""
    starts = [_start(video_id, path) for path in found]
    return [path for path, start in zip(found, starts, strict=True) if start in (-1.0, max(starts))]


def _several_clips(several: dict[str, list[Path]]) -> DatasetError:
    lines = [f"{video_id}: {', '.join(path.name for path in found)}" for video_id, found in several.items()]
    others = f"; and {len(lines) - MOST_IDS} more" if len(lines) > MOST_IDS else ""
    return DatasetError(
        f"{plural(len(lines), 'id')} with several clips, and the table does not say which one is meant: "
        f"{'; '.join(lines[:MOST_IDS])}{others}",
        hint="--format-set ambiguous=later takes the one that starts last, as the authors advise",
    )
