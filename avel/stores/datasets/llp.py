"""LLP's own layout (Tian et al. 2020): tab-separated lists of clips, and events of audio and visual apart."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from avel.errors import DatasetError, MissingPathError
from avel.progress import note
from avel.stores.datasets.annotation_text import read_text, seconds
from avel.stores.datasets.dataset import Dataset, Event, Modality, Sample, Video, make_dataset
from avel.stores.datasets.folder import list_files
from avel.stores.datasets.formats import FORMATS, DatasetFormat

LISTS = {"train": "AVVP_train.csv", "val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
"""Split -> its clips, each with the classes that it holds somewhere."""
EVENTS: dict[Modality, str] = {"audio": "AVVP_eval_audio.csv", "visual": "AVVP_eval_visual.csv"}
"""Modality -> its events in the clips of val and test."""
MEDIA = ("LLP_dataset/video", "video", ".")
"""Folders that may hold the videos, below that of the lists."""
ID_LETTERS = 11
"""Length of a video's name on YouTube; in the lists its first and last second follow, in files' names not."""


def find(root: Path) -> Path | None:
    """Returns the folder at or one below `root` that holds the events, None where there is none."""
    candidates = [root, root / "data"]
    return next(
        (each for each in candidates if all((each / name).is_file() for name in EVENTS.values())), None
    )


@FORMATS.register("llp")
class LLP(DatasetFormat[None]):
    """LLP's folder: of train clips the classes are known, of val and test clips the events of each modality.

    A clip that both event files leave out has no event. Videos may be absent: their `path` is "" then.
    """

    @staticmethod
    def matches(folder: Path) -> bool:
        return find(folder) is not None

    def read(self, folder: Path) -> Dataset:
        """Returns the clips of train, val and test in the order of their lists.

        Raises:
            MissingPathError: an event file or the list of train is not there.
            DatasetError: a line that cannot be read, a clip that is in two lists.
        """
        found = find(folder)
        if found is None:
            raise MissingPathError(f"{folder}: holds no {' and '.join(EVENTS.values())}")
        samples = _samples(found)
        files = _files(found)
        videos = tuple(Video(sample.video_id, _path(sample, files)) for sample in samples)
        named = {video.path for video in videos}
        extra = [path for paths in files.values() for path in paths if str(path) not in named]
        return make_dataset(folder.resolve().name, folder, samples, videos, extra)


def _samples(folder: Path) -> tuple[Sample, ...]:
    events = _events(folder)
    samples: dict[str, Sample] = {}
    for split, name in LISTS.items():
        path = folder / name
        if not path.is_file():
            if split == "train":
                raise MissingPathError(f"{path}: no such list of clips")
            continue
        for where, row in read_rows(path, ("filename", "event_labels")):
            video_id = row["filename"]
            if video_id in samples:
                raise DatasetError(f"{where} ({video_id}): stands in {samples[video_id].where} as well")
            classes = tuple(dict.fromkeys(filter(None, map(str.strip, row["event_labels"].split(",")))))
            known = None if split == "train" else tuple(events.pop(video_id, ()))
            samples[video_id] = Sample(
                len(samples), video_id, known, split=split, where=where,
                categories=classes if known is None else None,
            )  # fmt: skip
    if events:
        note(f"{folder}: events of {len(events)} clips that are in neither val nor test are left out")
    return tuple(samples.values())


def _events(folder: Path) -> dict[str, list[Event]]:
    """Returns clip -> its events of both modalities; those that end before they begin are left out."""
    events: dict[str, list[Event]] = {}
    backward = []
    for modality, name in EVENTS.items():
        for where, row in read_rows(folder / name, ("filename", "onset", "offset", "event_labels")):
            try:
                onset, offset = seconds(row["onset"]), seconds(row["offset"])
            except ValueError as error:
                raise DatasetError(f"{where} ({row['filename']}): {error}") from None
            if offset < onset:
                backward.append(where)
                continue
            event = Event(row["event_labels"], onset, offset, where, modality)
            events.setdefault(row["filename"], []).append(event)
    if backward:
        note(f"{len(backward)} events end before they begin and are left out; the first is {backward[0]}")
    return events


def read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields where each row of a tab-separated file stands, and its fields by column.

    Raises:
        DatasetError: the header or a row has other columns.
    """
    lines = csv.reader(io.StringIO(read_text(path), newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    header = next(lines, [])
    if tuple(header) != columns:
        raise DatasetError(
            f"{path}: line 1: the columns are {', '.join(header) or 'none'}, not {', '.join(columns)}",
            hint="columns are separated by tabs, as in the authors' files",
        )
    for fields in lines:
        where = f"{path}: line {lines.line_num}"
        if len(fields) != len(columns):
            raise DatasetError(f"{where}: {len(fields)} fields, the header has {len(columns)}")
        yield where, dict(zip(columns, fields, strict=True))


def _files(folder: Path) -> dict[str, list[Path]]:
    """Returns name without ending -> the video files of that name, in the first folder that is there."""
    media = next(folder / name for name in MEDIA if (folder / name).is_dir())
    files: dict[str, list[Path]] = {}
    for name in list_files(media, below=False).videos:
        files.setdefault((media / name).stem, []).append(media / name)
    return files


def _path(sample: Sample, files: dict[str, list[Path]]) -> str:
    """Returns a clip's file, named as the clip or as its whole video; "" where there is none."""
    found = files.get(sample.video_id) or files.get(sample.video_id[:ID_LETTERS], [])
    if len(found) > 1:
        raise DatasetError(
            f"{sample.where} ({sample.video_id}): may be {', '.join(map(str, found))}",
            hint="leave one of them",
        )
    return str(found[0]) if found else ""
