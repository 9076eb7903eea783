"""Any folder of videos as a dataset: annotations in a CSV or Parquet file, or none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from avel.errors import DatasetError, MissingPathError
from avel.stores.datasets.dataset import Dataset, Row, Video, make_dataset

if TYPE_CHECKING:
    import pyarrow as pa

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .flv .wmv .ogv .3gp".split()  # noqa: SIM905
)
"""File endings taken for videos, in any case."""

COLUMNS = {
    "video_id": ("video_id", "videoid", "video", "file", "filename", "path", "id"),
    "category": ("category", "label", "class", "event"),
    "start_seconds": ("start_seconds", "start", "starttime", "start_time", "onset"),
    "end_seconds": ("end_seconds", "end", "endtime", "end_time", "offset"),
    "split": ("split", "set", "subset"),
    "quality": ("quality",),
}
"""Field of a row -> column names that are understood, in any case; split and quality may be absent."""


def find_videos(root: Path) -> tuple[Video, ...]:
    """Every video below `root`, sorted; its id is the relative path, with its ending only if two share it."""
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() and not path.name.startswith("._")
    )
    stems = [path.relative_to(root).with_suffix("").as_posix() for path in files]
    uses = Counter(stems)
    return tuple(
        Video(stem if uses[stem] == 1 else path.relative_to(root).as_posix(), str(path))
        for stem, path in zip(stems, files, strict=True)
    )


def read(root: Path, annotations: Path | None) -> Dataset:
    """The videos below `root` with the rows of `annotations`; a row may name a video by id or file name.

    Raises:
        DatasetError: no videos, or a table without the needed columns or with a value that cannot be read.
    """
    videos = find_videos(root)
    if not videos:
        endings = " ".join(sorted(VIDEO_SUFFIXES))
        raise DatasetError(f"{root}: holds no video file", hint=f"endings that are looked for: {endings}")
    if annotations is None:
        return make_dataset(root.name, root, (), videos)
    names = {video.video_id: video.video_id for video in videos}
    names |= {Path(video.path).name: video.video_id for video in videos}
    rows = tuple(
        _row(number, record, names, annotations) for number, record in enumerate(_records(annotations))
    )
    known = {video.video_id for video in videos}
    absent = dict.fromkeys(row.video_id for row in rows if row.video_id not in known)
    return make_dataset(root.name, root, rows, videos + tuple(Video(video_id, "") for video_id in absent))


def _records(path: Path) -> list[dict[str, object]]:
    table = _table(path)
    found = {name.strip().lower(): name for name in table.column_names}
    chosen = {}
    for field, names in COLUMNS.items():
        column = next((found[name] for name in names if name in found), None)
        if column is not None:
            chosen[field] = table.column(column).to_pylist()
        elif field not in ("split", "quality"):
            raise DatasetError(
                f"{path}: no column for {field}; it has {', '.join(table.column_names)}",
                hint=f"name one of its columns {' or '.join(names)}",
            )
    return [dict(zip(chosen, values, strict=True)) for values in zip(*chosen.values(), strict=True)]


def _table(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv, parquet

    if not path.is_file():
        raise MissingPathError(f"{path}: no such annotation file")
    try:
        if path.suffix.lower() == ".parquet":
            return parquet.read_table(path)
        return csv.read_csv(path)
    except pa.ArrowInvalid as error:
        raise DatasetError(
            f"{path}: {error}", hint="give a CSV with a header line, or a Parquet file"
        ) from None


def _row(number: int, record: dict[str, object], names: dict[str, str], path: Path) -> Row:
    video = str(record["video_id"])
    try:
        return Row(
            row=number,
            category=str(record["category"]),
            video_id=names.get(video) or names.get(Path(video).name) or video,
            start_seconds=float(str(record["start_seconds"])),
            end_seconds=float(str(record["end_seconds"])),
            quality=str(record.get("quality", "")),
            split=str(record.get("split") or ""),
        )
    except ValueError as error:
        raise DatasetError(f"{path}: row {number} ({video}): {error}") from None
