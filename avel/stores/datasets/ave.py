"""AVE's own layout: `Category&VideoID&Quality&Start&End`, split or order files, `AVE/<VideoID>.mp4`."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

from avel.errors import DatasetError, MissingPathError, StoreError
from avel.progress import note
from avel.stores.datasets.annotation_text import read_text, seconds
from avel.stores.datasets.dataset import SPLITS, Dataset, Row, Video, make_dataset
from avel.stores.datasets.folder import list_files

ANNOTATIONS = "Annotations.txt"


def find(root: Path) -> Path | None:
    """The folder at or one below `root` that holds `Annotations.txt`, None where there is none."""
    candidates = [root, root / "AVE_Dataset"]
    return next((folder for folder in candidates if (folder / ANNOTATIONS).is_file()), None)


def read(root: Path) -> Dataset:
    """The AVE-layout dataset at `root`. Videos may be absent: their `path` is "" then.

    Raises:
        MissingPathError: no `Annotations.txt`.
        DatasetError: a line that is not five fields, or a split line that is no annotation.
    """
    folder = find(root)
    if folder is None:
        raise MissingPathError(f"{root}: holds no {ANNOTATIONS}")
    rows = _with_splits(folder, read_annotations(folder / ANNOTATIONS))
    videos = _videos(rows, media_files(folder))
    if left_out := list_files(media_folder(folder), below=False).left_out():
        note(f"{media_folder(folder)}: left out: {left_out}")
    return make_dataset(root.resolve().name, root, rows, videos)


def media_folder(folder: Path) -> Path:
    """Returns `AVE/` or, where that is absent, the folder itself."""
    return folder / "AVE" if (folder / "AVE").is_dir() else folder


def media_files(folder: Path) -> dict[str, list[Path]]:
    """Video id -> its files, of every video in the media folder; several where only their endings differ."""
    files: dict[str, list[Path]] = {}
    for name in list_files(media_folder(folder), below=False).videos:
        path = media_folder(folder) / name
        files.setdefault(path.stem, []).append(path)
    return files


def _videos(rows: tuple[Row, ...], files: dict[str, list[Path]]) -> tuple[Video, ...]:
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.video_id, row)
    videos = []
    for row in first.values():
        found = files.get(row.video_id, [])
        if len(found) > 1:
            raise DatasetError(
                f"{row.where} ({row.video_id}): may be {', '.join(map(str, found))}", hint="leave one of them"
            )
        videos.append(Video(row.video_id, str(found[0]) if found else ""))
    return tuple(videos)


def read_annotations(path: Path) -> tuple[Row, ...]:
    """The rows of an AVE annotation or split file, numbered from 0; the times of a header are no numbers.

    Raises:
        DatasetError: a line that is not five fields, or text that is not UTF-8.
    """
    rows: list[Row] = []
    lines = io.StringIO(read_text(path), newline=None)
    numbered = ((number, line.rstrip("\n")) for number, line in enumerate(lines, start=1) if line.strip())
    for place, (number, line) in enumerate(numbered):
        fields = [field.strip() for field in line.split("&")]
        if place == 0 and len(fields) == 5 and not any(map(_is_time, fields[3:])):
            continue
        rows.append(_parse(fields, len(rows), f"{path}: line {number}"))
    return tuple(rows)


def _is_time(text: str) -> bool:
    try:
        seconds(text)
    except ValueError:
        return False
    return True


def _parse(fields: list[str], row: int, where: str) -> Row:
    try:
        category, video_id, quality, start, end = fields
        return Row(row, category, video_id, seconds(start), seconds(end), quality, where=where)
    except ValueError:
        shown = "&".join(fields)
        raise DatasetError(f"{where}: {shown!r} is not Category&VideoID&Quality&Start&End") from None


def _with_splits(folder: Path, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    split_of = _split_files(folder, rows) or _order_files(folder, len(rows))
    return tuple(dataclasses.replace(row, split=split_of.get(row.row, "")) for row in rows)


def _split_files(folder: Path, rows: tuple[Row, ...]) -> dict[int, str]:
    number_of = {_key(row): row.row for row in rows}
    split_of: dict[int, str] = {}
    for split in SPLITS:
        path = folder / f"{split}Set.txt"
        for row in read_annotations(path) if path.is_file() else ():
            if _key(row) not in number_of:
                raise DatasetError(f"{row.where} ({row.video_id}) is not in {ANNOTATIONS}")
            _assign(split_of, number_of[_key(row)], split, path)
    return split_of


def _order_files(folder: Path, count: int) -> dict[int, str]:
    split_of: dict[int, str] = {}
    for split in SPLITS:
        path = folder / f"{split}_order.h5"
        if not path.is_file():
            continue
        for number in read_order(path):
            if not 0 <= number < count:
                raise DatasetError(f"{path}: row {number} of {count}")
            _assign(split_of, number, split, path)
    return split_of


def read_order(path: Path) -> list[int]:
    """Annotation rows in the sequence of an order file.

    Raises:
        StoreError: damaged, or no order file.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return [int(number) for number in file["order"][()]]
    except OSError as error:
        raise StoreError(f"{path}: not a readable HDF5 file: {error}", hint="fetch it again") from None
    except (KeyError, TypeError, ValueError):
        raise StoreError(
            f"{path}: no list of row numbers under 'order'", hint="fetch it again, or take it away"
        ) from None


def _assign(split_of: dict[int, str], row: int, split: str, path: Path) -> None:
    if split_of.setdefault(row, split) != split:
        raise DatasetError(f"{path}: row {row} is in {split_of[row]} and in {split}")


def _key(row: Row) -> tuple[str, str, float, float]:
    return row.category, row.video_id, row.start_seconds, row.end_seconds
