"""Finds the media of datasets whose annotations name videos by id: files of that name, in any folder."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avel.config import option
from avel.errors import DatasetError, MissingPathError
from avel.progress import note
from avel.stores.datasets.folder import list_files
from avel.stores.datasets.formats import LengthConfig
from avel.stores.datasets.sample import Sample, Video
from avel.stores.kinds import VIDEO_SUFFIXES
from avel.text import plural

AUDIO_SUFFIXES = frozenset(".wav .flac .mp3 .ogg .opus .m4a .aac".split())  # noqa: SIM905
"""File endings by which annotations of sound name their clips."""


@dataclass(frozen=True)
class MediaConfig(LengthConfig):
    """Settings of formats whose annotations may lie apart from the videos."""

    videos: Path | None = option(
        None, "Folder of the videos, which may lie in folders below it.", shown="the dataset's"
    )


def media_files(folder: Path, *, below: bool = True) -> dict[str, list[Path]]:
    """Returns name without ending -> the video files of that name; a note says what is left out.

    Raises:
        MissingPathError: no such folder.
    """
    if not folder.is_dir():
        raise MissingPathError(f"{folder}: no such folder", hint="name the folder that holds the videos")
    found = list_files(folder, below=below)
    files: dict[str, list[Path]] = {}
    for name in found.videos:
        files.setdefault(Path(name).stem, []).append(folder / name)
    if left_out := found.left_out():
        note(f"{folder}: left out: {left_out}")
    return files


def match_media(
    samples: Sequence[Sample], files: Mapping[str, list[Path]]
) -> tuple[tuple[Video, ...], tuple[Path, ...]]:
    """Returns the video of each id that samples name, without path where no file is, and all other files.

    Args:
        files: id -> its files, as `media_files` finds them.

    Raises:
        DatasetError: an id has several files.
    """
    first: dict[str, Sample] = {}
    for sample in samples:
        first.setdefault(sample.video_id, sample)
    several = {video_id: files[video_id] for video_id in first if len(files.get(video_id, ())) > 1}
    if several:
        video_id, found = next(iter(several.items()))
        others = f"; and {plural(len(several) - 1, 'id')} more with several files" if len(several) > 1 else ""
        raise DatasetError(
            f"{first[video_id].where} ({video_id}): may be {', '.join(map(str, found))}{others}",
            hint="keep one of them",
        )
    videos = tuple(
        Video(video_id, str(files[video_id][0]) if video_id in files else "") for video_id in first
    )
    return videos, tuple(path for name, paths in files.items() if name not in first for path in paths)


def without_ending(name: str) -> str:
    """Returns the id that the name of a media file gives: without folder, and without a media ending.

    >>> without_ending("clips/Y-BJNMHMZDcU_50.000_60.000.wav"), without_ending("Y-BJNMHMZDcU_50.000_60.000")
    ('Y-BJNMHMZDcU_50.000_60.000', 'Y-BJNMHMZDcU_50.000_60.000')
    """
    base = os.path.basename(name)
    stem, ending = os.path.splitext(base)
    return stem if ending.lower() in VIDEO_SUFFIXES | AUDIO_SUFFIXES else base
