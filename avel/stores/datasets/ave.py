"""Reads AVE's layout: lines `Category&VideoID&Quality&Start&End`, split or order files, `AVE/VIDEOID.mp4`."""

import io
from dataclasses import replace
from pathlib import Path

from avel.errors import DatasetError, MissingPathError, StoreError
from avel.stores.datasets.annotation_text import parse_seconds, read_text
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.formats import FORMATS, DatasetFormat, folder_with
from avel.stores.datasets.media import match_media, media_files
from avel.stores.datasets.sample import SPLITS, Event, Sample

ANNOTATIONS = "Annotations.txt"


@FORMATS.register("ave")
class AVE(DatasetFormat[None]):
    """AVE's layout: each annotation is a sample with one event, even where a video has several annotations.

    Videos may be absent: their `path` is "" then.
    """

    @staticmethod
    def matches(folder: Path) -> bool:
        return folder_with([ANNOTATIONS], folder, "AVE_Dataset") is not None

    def read(self, folder: Path) -> Dataset:
        """Returns the samples in the order of `Annotations.txt`.

        Raises:
            MissingPathError: no `Annotations.txt`.
            DatasetError: a line that is not five fields, or a split line that is not an annotation.
        """
        found = folder_with([ANNOTATIONS], folder, "AVE_Dataset")
        if found is None:
            raise MissingPathError(f"{folder}: holds no {ANNOTATIONS}", hint="name the folder that holds it")
        samples = read_annotations(found / ANNOTATIONS)
        split_of = _read_split_files(found, samples) or _read_order_files(found, len(samples))
        samples = tuple(replace(each, split=split_of.get(each.number, "")) for each in samples)
        media = found / "AVE" if (found / "AVE").is_dir() else found
        videos, extra = match_media(samples, media_files(media, below=False))
        return make_dataset(folder.resolve().name, folder, samples, videos, extra)


def read_annotations(path: Path) -> tuple[Sample, ...]:
    """Reads an AVE annotation or split file, one sample per line; skips a header, whose times are words.

    Raises:
        DatasetError: a line that is not five fields, or text that is not UTF-8.
    """
    samples: list[Sample] = []
    lines = io.StringIO(read_text(path), newline=None)
    numbered = ((number, line.rstrip("\n")) for number, line in enumerate(lines, start=1) if line.strip())
    for place, (number, line) in enumerate(numbered):
        fields = [field.strip() for field in line.split("&")]
        if place == 0 and len(fields) == 5 and not any(map(_is_time, fields[3:])):
            continue
        samples.append(_parse(fields, len(samples), f"{path}: line {number}"))
    return tuple(samples)


def _is_time(text: str) -> bool:
    try:
        parse_seconds(text)
    except ValueError:
        return False
    return True


def _parse(fields: list[str], number: int, where: str) -> Sample:
    try:
        category, video_id, quality, start, end = fields
        event = Event(category, parse_seconds(start), parse_seconds(end), where)
        return Sample(number, video_id, (event,), quality, where=where)
    except ValueError:
        shown = "&".join(fields)
        raise DatasetError(
            f"{where}: {shown!r} is not Category&VideoID&Quality&Start&End", hint="give times in seconds"
        ) from None


def _read_split_files(folder: Path, samples: tuple[Sample, ...]) -> dict[int, str]:
    """Reads sample number -> split from trainSet.txt, valSet.txt and testSet.txt, if they exist."""
    numbers_of: dict[tuple[str, tuple[Event, ...] | None], list[int]] = {}
    for sample in samples:
        numbers_of.setdefault((sample.video_id, sample.events), []).append(sample.number)
    split_of: dict[int, str] = {}
    for split in SPLITS:
        path = folder / f"{split}Set.txt"
        for sample in read_annotations(path) if path.is_file() else ():
            numbers = numbers_of.get((sample.video_id, sample.events))
            if numbers is None:
                raise DatasetError(
                    f"{sample.where} ({sample.video_id}) is not in {ANNOTATIONS}",
                    hint="take both files from one release, or remove this line",
                )
            for number in numbers:
                _assign(split_of, number, split, path)
    return split_of


def _read_order_files(folder: Path, count: int) -> dict[int, str]:
    """Reads sample number -> split from train_order.h5, val_order.h5 and test_order.h5, if they exist."""
    split_of: dict[int, str] = {}
    for split in SPLITS:
        path = folder / f"{split}_order.h5"
        if not path.is_file():
            continue
        for number in read_order(path):
            if not 0 <= number < count:
                raise DatasetError(
                    f"{path}: names sample {number}; the annotations have {count}, numbered from 0",
                    hint="take both from one release",
                )
            _assign(split_of, number, split, path)
    return split_of


def read_order(path: Path) -> list[int]:
    """Reads the sample numbers of a split from its order file, in the order of that file.

    Raises:
        StoreError: damaged, or no order file.
    """
    from avel.stores.hdf5 import array_of, open_hdf5

    hint = "fetch it again, or remove it"
    with open_hdf5(path, hint) as file:
        order = array_of(file, "order", hint, dimensions=1)
        numbers: list[int] = order[()].tolist()
    if not all(isinstance(number, int) for number in numbers):
        raise StoreError(f"{path}: order does not hold numbers of samples", hint=hint)
    return numbers


def _assign(split_of: dict[int, str], number: int, split: str, path: Path) -> None:
    if split_of.setdefault(number, split) != split:
        raise DatasetError(
            f"{path}: sample {number} is in {split_of[number]} and in {split}", hint="leave it in one of them"
        )
