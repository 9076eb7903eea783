"""AVE's own layout: `Category&VideoID&Quality&Start&End`, split or order files, `AVE/<VideoID>.mp4`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from avel.errors import DatasetError, MissingPathError, StoreError
from avel.stores.datasets.dataset import SPLITS, Dataset, Row, Video, make_dataset
from avel.stores.datasets.folder import VIDEO_SUFFIXES

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
    files = media_files(folder)
    ids = dict.fromkeys(row.video_id for row in rows)
    videos = tuple(Video(video_id, str(files.get(video_id, ""))) for video_id in ids)
    return make_dataset(root.resolve().name, root, rows, videos)


def media_files(folder: Path) -> dict[str, Path]:
    """Video id -> file, of every video in `AVE/` or, where that is absent, in the folder itself."""
    media = folder / "AVE" if (folder / "AVE").is_dir() else folder
    return {path.stem: path for path in sorted(media.iterdir()) if path.suffix.lower() in VIDEO_SUFFIXES}


def read_annotations(path: Path) -> tuple[Row, ...]:
    """The rows of an AVE annotation or split file, numbered from 0; a header line is known by its times."""
    rows: list[Row] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        fields = line.split("&")
        if number == 1 and len(fields) == 5 and not fields[3].strip().isdigit():
            continue
        if line.strip():
            rows.append(_parse(fields, len(rows), f"{path}: line {number}"))
    return tuple(rows)


def _parse(fields: list[str], row: int, where: str) -> Row:
    try:
        category, video_id, quality, start, end = (field.strip() for field in fields)
        return Row(row, category, video_id, float(start), float(end), quality)
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
                raise DatasetError(f"{path}: entry {row.row} ({row.video_id}) is not in {ANNOTATIONS}")
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
