"""What a dataset's annotations hold and where they contradict or leak: figures to see before using it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avel.grid import Grid
from avel.stores.datasets import ave
from avel.stores.datasets.dataset import SPLITS, Dataset, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Floors:
    """Segment accuracies in percent that need no model: any result has to be read beside them."""

    always_background: float
    never_background: float
    """The right event in every segment, background never predicted."""


@dataclass(frozen=True)
class Audit:
    """The figures of one dataset on one grid; rows are numbers in the annotation file.

    Attributes:
        rows_of_shared_videos: video id -> its rows, for videos that have several.
        shared_with_other_bounds: those of them whose rows differ in start or end.
        shared_with_one_class: those of them that have several rows of one class.
        dash_rows, underscore_rows: rows whose id starts with "-" (must not be read as an option) or "_".
        categories_with_spaces, categories_with_commas: names that break what is split there.
        rows_of_class: event name -> number of rows.
        rows_of_length: event segments of a row -> number of rows; 0 is an event of length none.
        rows_of_split: split -> number of rows; "" counts rows in none.
        videos_in_both: "train and test" -> number of videos that are in both splits.
        leaked_rows: split -> its rows whose video is also in train.
        floors: split -> floors; "all" where there are no splits.
    """

    name: str
    rows: int
    videos: int
    classes: int
    rows_of_shared_videos: dict[str, tuple[int, ...]]
    shared_with_other_bounds: tuple[str, ...]
    shared_with_one_class: tuple[str, ...]
    dash_rows: int
    underscore_rows: int
    categories_with_spaces: tuple[str, ...]
    categories_with_commas: tuple[str, ...]
    rows_of_class: dict[str, int]
    rows_of_length: dict[int, int]
    rows_of_split: dict[str, int]
    event_segments: int
    background_segments: int
    whole_clip_rows: int
    empty_rows: tuple[int, ...]
    videos_in_both: dict[str, int]
    leaked_rows: dict[str, tuple[int, ...]]
    floors: dict[str, Floors]
    missing_files: tuple[str, ...]
    extra_files: tuple[str, ...]

    @property
    def background_share(self) -> float:
        """Background segments over all segments; 0 where nothing is annotated."""
        return self.background_segments / max(1, self.background_segments + self.event_segments)

    def facts(self) -> dict[str, Any]:
        """Everything, as plain values that JSON holds."""
        return asdict(self) | {"background_share": self.background_share}

    def remarks(self) -> tuple[str, ...]:
        """What a user of the dataset should know, a sentence each; none of it makes the dataset unusable."""
        found = [
            f"{len(rows)} {split} rows use a video that is also in train"
            for split, rows in self.leaked_rows.items()
            if rows
        ]
        if self.empty_rows:
            found.append(f"rows {_some(self.empty_rows)} hold an event of length none: all background")
        if self.rows_of_shared_videos:
            count = len(self.rows_of_shared_videos)
            found.append(f"{count} videos have more than one row: look rows up by number, never by video id")
        if self.rows and not set(self.rows_of_split) & set(SPLITS):
            found.append("no splits: nothing can be trained and evaluated without them")
        if self.missing_files:
            found.append(f"{len(self.missing_files)} videos have no file: {_some(self.missing_files)}")
        if self.extra_files:
            found.append(f"{len(self.extra_files)} files have no annotation: {_some(self.extra_files)}")
        return tuple(found)


def audit(dataset: Dataset, grid: Grid | None = None) -> Audit:
    """Counts a dataset through: its histograms, floors, leaks, empty events, missing and extra files.

    >>> audit(read_dataset("AVE_Dataset")).floors["test"].always_background  # doctest: +SKIP
    17.786069651741293
    """
    grid = grid or Grid()
    labels = dataset.labels(grid)
    lengths = (labels != dataset.background).sum(axis=1)
    events = int(lengths.sum())
    shared = _shared(dataset)
    return Audit(
        name=dataset.name,
        rows=len(dataset.rows),
        videos=len(dataset.videos),
        classes=len(dataset.categories),
        rows_of_shared_videos={video_id: tuple(row.row for row in rows) for video_id, rows in shared.items()},
        shared_with_other_bounds=tuple(
            video_id
            for video_id, rows in shared.items()
            if len({(row.start_seconds, row.end_seconds) for row in rows}) > 1
        ),
        shared_with_one_class=tuple(
            video_id for video_id, rows in shared.items() if len({row.category for row in rows}) < len(rows)
        ),
        dash_rows=sum(row.video_id.startswith("-") for row in dataset.rows),
        underscore_rows=sum(row.video_id.startswith("_") for row in dataset.rows),
        categories_with_spaces=tuple(name for name in dataset.categories if " " in name),
        categories_with_commas=tuple(name for name in dataset.categories if "," in name),
        rows_of_class=dict(Counter(row.category for row in dataset.rows)),
        rows_of_length=dict(sorted(Counter(lengths.tolist()).items())),
        rows_of_split=dict(Counter(row.split for row in dataset.rows)),
        event_segments=events,
        background_segments=labels.size - events,
        whole_clip_rows=int((lengths == grid.segments).sum()),
        empty_rows=tuple(row.row for row, length in zip(dataset.rows, lengths, strict=True) if not length),
        videos_in_both=_videos_in_both(dataset),
        leaked_rows=_leaked(dataset),
        floors=_floors(dataset, labels),
        missing_files=tuple(video.video_id for video in dataset.videos if not video.path),
        extra_files=_extra_files(dataset),
    )


def _shared(dataset: Dataset) -> dict[str, list[Row]]:
    """Video id -> its rows, for videos that have several."""
    rows: dict[str, list[Row]] = {}
    for row in dataset.rows:
        rows.setdefault(row.video_id, []).append(row)
    return {video_id: several for video_id, several in rows.items() if len(several) > 1}


def _videos_in_both(dataset: Dataset) -> dict[str, int]:
    videos = {split: {row.video_id for row in dataset.rows if row.split == split} for split in SPLITS}
    return {f"{a} and {b}": len(videos[a] & videos[b]) for a, b in combinations(SPLITS, 2)}


def _leaked(dataset: Dataset) -> dict[str, tuple[int, ...]]:
    leaked = dataset.leaked()
    return {
        split: tuple(row.row for row in dataset.rows if row.split == split and row.row in leaked)
        for split in ("val", "test")
    }


def _floors(dataset: Dataset, labels: NDArray[np.int64]) -> dict[str, Floors]:
    """Per split; a row's event is right wherever its segment is no background."""
    floors = {}
    present = [split for split in SPLITS if any(row.split == split for row in dataset.rows)]
    for split in present or ["all"] * bool(dataset.rows):
        chosen = [split in (row.split, "all") for row in dataset.rows]
        background = 100 * float((labels[chosen] == dataset.background).mean())
        floors[split] = Floors(background, 100 - background)
    return floors


def _extra_files(dataset: Dataset) -> tuple[str, ...]:
    """Media files that no row names; none where the dataset has no rows at all."""
    named = {row.video_id for row in dataset.rows}
    folder = ave.find(Path(dataset.root)) if Path(dataset.root).is_dir() else None
    files = ave.media_files(folder) if folder else {each.video_id: [each.path] for each in dataset.videos}
    unnamed = [paths for video_id, paths in files.items() if named and video_id not in named]
    return tuple(str(path) for paths in unnamed for path in paths)


def _some(values: tuple[Any, ...], most: int = 5) -> str:
    shown = ", ".join(map(str, values[:most]))
    return shown if len(values) <= most else f"{shown} and {len(values) - most} more"
