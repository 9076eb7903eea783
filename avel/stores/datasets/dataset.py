"""What a dataset says: annotation rows, the videos they point at, and their splits.

A row is not a video: AVE has 4143 rows and 4097 videos. Media and features belong to a video, labels and
splits to a row (Tian et al. 2018; the authors' annotation files).
"""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from avel.errors import DatasetError
from avel.grid import Grid

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Row:
    """One annotation: an event of `category` in a video from `start_seconds` to `end_seconds`.

    `row` is its number in the annotation file; `split` is "" where the dataset names none. `where` is the
    file and line it was read from, for messages; it is neither stored nor compared.
    """

    row: int
    category: str
    video_id: str
    start_seconds: float
    end_seconds: float
    quality: str = ""
    split: str = ""
    where: str = dataclasses.field(default="", compare=False)


@dataclass(frozen=True)
class Video:
    """A media file; `path` is "" where the annotations name a video that is not there."""

    video_id: str
    path: str


@dataclass(frozen=True)
class Dataset:
    """Rows and videos of one dataset. Class ids are the order of `categories`; background comes last."""

    name: str
    root: str
    categories: tuple[str, ...]
    rows: tuple[Row, ...]
    videos: tuple[Video, ...]

    @property
    def background(self) -> int:
        """Class id of background, K - 1."""
        return len(self.categories)

    @cached_property
    def class_ids(self) -> dict[str, int]:
        """Category name -> class id."""
        return {category: number for number, category in enumerate(self.categories)}

    def labels(self, grid: Grid) -> np.ndarray:
        """Class id of every segment of every row: int64 (R, T). An event owns what it covers by half."""
        import numpy as np

        labels = np.full((len(self.rows), grid.segments), self.background, np.int64)
        begin = np.arange(grid.segments) * grid.segment_seconds
        for number, row in enumerate(self.rows):
            end = np.minimum(row.end_seconds, begin + grid.segment_seconds)
            covered = end - np.maximum(row.start_seconds, begin)
            labels[number, covered >= grid.segment_seconds / 2] = self.class_ids[row.category]
        return labels

    def check_grid(self, grid: Grid) -> None:
        """Refuses events that lie wholly beyond a grid: nothing but background would be left of them.

        Raises:
            DatasetError: there is one; the first is named with its file and line.
        """
        beyond = [row for row in self.rows if row.start_seconds >= grid.seconds]
        if beyond:
            row, others = beyond[0], f", and {len(beyond) - 1} more do" if len(beyond) > 1 else ""
            raise DatasetError(
                f"{self.place(row)}: event from {row.start_seconds:g} s to {row.end_seconds:g} s lies beyond "
                f"the grid of {grid.seconds:g} s{others}",
                hint="give times in seconds from the clip's start, or make the grid longer (--segments)",
            )

    def place(self, row: Row) -> str:
        """Returns where a row stands, for messages: file and line, or its number, and its video."""
        return f"{row.where or f'{self.root}: row {row.row}'} ({row.video_id})"

    def leaked(self) -> frozenset[int]:
        """Numbers of the val and test rows whose video is in train as well."""
        train = {row.video_id for row in self.rows if row.split == "train"}
        held_out = (row for row in self.rows if row.split in ("val", "test"))
        return frozenset(row.row for row in held_out if row.video_id in train)

    def split_of_video(self) -> dict[str, frozenset[str]]:
        """Video id -> the splits its rows are in; empty where it has no row with a split."""
        found: dict[str, set[str]] = {video.video_id: set() for video in self.videos}
        for row in self.rows:
            if row.split:
                found[row.video_id].add(row.split)
        return {video_id: frozenset(splits) for video_id, splits in found.items()}

    def tables(self) -> dict[str, pa.Table]:
        """The dataset as Arrow tables: "rows" and "videos", with name, root and categories in the schema."""
        import pyarrow as pa

        metadata = {"name": self.name, "root": self.root, "categories": "\n".join(self.categories)}
        schema = pa.schema(
            [
                ("row", pa.int32()),
                ("category", pa.string()),
                ("video_id", pa.string()),
                ("start_seconds", pa.float64()),
                ("end_seconds", pa.float64()),
                ("quality", pa.string()),
                ("split", pa.string()),
            ]
        )
        columns = {name: [getattr(row, name) for row in self.rows] for name in schema.names}
        videos = {
            "video_id": [video.video_id for video in self.videos],
            "path": [video.path for video in self.videos],
        }
        return {
            "rows": pa.table(columns, schema=schema).replace_schema_metadata(metadata),
            "videos": pa.table(videos, schema=pa.schema([("video_id", pa.string()), ("path", pa.string())])),
        }

    @classmethod
    def from_tables(cls, tables: dict[str, pa.Table]) -> Dataset:
        """The inverse of `tables`."""
        metadata = {key.decode(): value.decode() for key, value in tables["rows"].schema.metadata.items()}
        return cls(
            name=metadata["name"],
            root=metadata["root"],
            categories=tuple(metadata["categories"].split("\n")) if metadata["categories"] else (),
            rows=tuple(Row(**row) for row in tables["rows"].to_pylist()),
            videos=tuple(Video(**video) for video in tables["videos"].to_pylist()),
        )

    def write(self, folder: Path) -> None:
        """`rows.parquet` and `videos.parquet` in `folder`, each whole or absent."""
        import pyarrow.parquet as pq

        from avel.stores.files import atomic_path

        for name, table in self.tables().items():
            with atomic_path(folder / f"{name}.parquet") as partial:
                pq.write_table(table, partial)

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """What `write` wrote."""
        from avel.stores.arrow import read_parquet

        return cls.from_tables(
            {name: read_parquet(folder / f"{name}.parquet") for name in ("rows", "videos")}
        )


def make_dataset(name: str, root: Path | str, rows: tuple[Row, ...], videos: tuple[Video, ...]) -> Dataset:
    """A checked Dataset; class ids are in order of first appearance, paths absolute: they are read elsewhere.

    Raises:
        DatasetError: a row without video or class, a class named background or with a line break, an event
            that ends before it starts, an unknown split; with the file and line of the row.
    """
    categories = tuple(dict.fromkeys(row.category for row in rows))
    located = tuple(
        dataclasses.replace(video, path=os.path.abspath(video.path)) if video.path else video
        for video in videos
    )
    dataset = Dataset(name, str(root), categories, rows, located)
    known = {video.video_id for video in videos}
    for row in rows:
        _check(row, dataset.place(row))
        if row.video_id not in known:
            raise DatasetError(f"{dataset.place(row)}: no such video")
    return dataset


def _check(row: Row, where: str) -> None:
    if not row.video_id:
        raise DatasetError(f"{where}: names no video")
    if "\0" in row.video_id + row.category:
        raise DatasetError(f"{where}: a NUL in {row.video_id!r} or {row.category!r}", hint="take it out")
    if not row.category.strip():
        raise DatasetError(f"{where}: the class is empty", hint="name the class, or take the row out")
    if row.category.splitlines() != [row.category]:
        raise DatasetError(f"{where}: a line break in the class {row.category!r}", hint="take it out")
    if row.category.strip().lower() == "background":
        raise DatasetError(
            f"{where}: a class may not be named {row.category!r}",
            hint="take the row out: every segment without an event is background",
        )
    if not 0 <= row.start_seconds <= row.end_seconds < math.inf:
        raise DatasetError(f"{where}: event from {row.start_seconds} s to {row.end_seconds} s")
    if row.split not in ("", *SPLITS):
        raise DatasetError(f"{where}: split {row.split!r} is none of {', '.join(SPLITS)}")
