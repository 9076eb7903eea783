"""Any folder of videos as a dataset: annotations in a CSV or Parquet file, or none."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path, PurePath

from avel.config import option
from avel.errors import DatasetError
from avel.progress import note
from avel.stores.datasets.dataset import Dataset, Video, make_dataset
from avel.stores.datasets.event_table import TableRow, read_events, samples_of_rows
from avel.stores.datasets.formats import FORMATS, PLAIN, DatasetFormat, LengthConfig
from avel.stores.files import path_text
from avel.stores.kinds import VIDEO_SUFFIXES

OTHER_SUFFIXES = frozenset(
    (  # noqa: SIM905
        ".264 .265 .3g2 .apng .asf .divx .dv .f4v .gif .h264 .h265 .hevc .ivf .m1v .m2v .mjpeg .mjpg .mk3d "
        ".mp4v .mpe .mpv .mxf .nut .ogm .qt .rm .rmvb .swf .vob .wtv .y4m"
    ).split()
)
"""Endings of videos that are taken only if a row names them; otherwise a note says that they are left out."""


@dataclasses.dataclass(frozen=True)
class Files:
    """Contents of a folder, as sorted paths below it.

    Attributes:
        videos: files with one of VIDEO_SUFFIXES.
        others: all other files.
        linked: folders that are links; they are not followed.
        closed: folders that cannot be read.
        broken: names with a video's ending that are not files, such as broken links.
    """

    videos: tuple[str, ...]
    others: tuple[str, ...]
    linked: tuple[str, ...]
    closed: tuple[str, ...]
    broken: tuple[str, ...]

    def left_out(self, named: Collection[str] = ()) -> str:
        """Describes which videos and folders are left out and why; "" where none is.

        `named` are those of `others` that a row names; they are not left out.
        """
        unknown = [name for name in self.others if _ending(name) in OTHER_SUFFIXES and name not in named]
        groups = (
            ("ending not looked for", unknown),
            ("linked folder, not followed", self.linked),
            ("folder cannot be read", self.closed),
            ("no file, or a broken link", self.broken),
        )
        return "; ".join(f"{_first(names)} ({len(names)}: {why})" for why, names in groups if names)


def list_files(root: Path, *, below: bool = True) -> Files:
    """Lists the files in `root` and, where `below`, in every folder below it, by their `path_text`."""
    found: dict[str, list[str]] = {field.name: [] for field in dataclasses.fields(Files)}

    def note_closed(error: OSError) -> None:
        found["closed"].append(os.path.relpath(error.filename, root))

    for folder, folders, names in os.walk(root, onerror=note_closed):
        inside = os.path.relpath(folder, root)
        prefix = "" if inside == "." else f"{inside}/"
        for name in names:
            is_video = _ending(name) in VIDEO_SUFFIXES and not name.startswith("._")
            if os.path.isfile(f"{folder}/{name}"):
                found["videos" if is_video else "others"].append(prefix + name)
            elif is_video:
                found["broken"].append(prefix + name)
        if not below:
            break
        found["linked"] += (prefix + name for name in folders if os.path.islink(f"{folder}/{name}"))
    return Files(
        **{
            kind: tuple(map(path_text, sorted(paths, key=lambda path: path.split("/"))))
            for kind, paths in found.items()
        }
    )


@FORMATS.register(PLAIN)
class Folder(DatasetFormat["Folder.Config"]):
    """Any folder of videos. The rows of one video and split are the events of one sample.

    With a sample for each row, the events of one would be background in the other.
    """

    @dataclasses.dataclass(frozen=True)
    class Config(LengthConfig):
        """Settings of a plain folder."""

        annotations: Path | None = option(None, "CSV or Parquet of events.", shown="none")

    @staticmethod
    def matches(folder: Path) -> bool:
        return bool(list_files(folder).videos)

    def read(self, folder: Path) -> Dataset:
        """Returns the videos below the folder with the samples of the annotations, if any.

        A video's id is its path below the folder, with its ending only if another file has the same without.
        A row names a video by that path, with or without ending, or by its absolute path. A name without
        folder also matches a file in any folder, if there is only one. A name that matches no file belongs to
        a missing video; a video without any row has no sample.

        Raises:
            MissingPathError: no such annotation file.
            DatasetError: no videos, a table or a value that cannot be read, a name that fits several files,
                rows that contradict each other.
        """
        files, table = list_files(folder), self.config.annotations
        rows = () if table is None else read_events(table)
        file_of, others = _files_of(rows, folder, files), set(files.others)
        named = dict.fromkeys(name for name in file_of.values() if name in others)
        left_out = files.left_out(named)
        if not files.videos and not named:
            raise DatasetError(
                f"{folder}: holds no video file" + (f"; left out: {left_out}" if left_out else ""),
                hint=f"endings that are looked for: {' '.join(sorted(VIDEO_SUFFIXES))}",
            )
        if left_out:
            note(f"{folder}: left out: {left_out}")
        id_of = _ids(files.videos) | {name: name for name in named}
        samples = samples_of_rows(rows, {name: id_of.get(file, name) for name, file in file_of.items()})
        videos = [Video(video_id, os.path.join(folder, name)) for name, video_id in id_of.items()]
        absent = dict.fromkeys(name for name, file in file_of.items() if not file)
        return make_dataset(folder.name, folder, samples, (*videos, *(Video(name, "") for name in absent)))


def _ids(videos: tuple[str, ...]) -> dict[str, str]:
    """Returns file -> id: its path without ending, unless another file has the same."""
    stems = [_without_ending(name) for name in videos]
    uses = Counter([*stems, *videos])
    return {name: stem if uses[stem] == 1 else name for name, stem in zip(videos, stems, strict=True)}


def _files_of(rows: Iterable[TableRow], root: Path, files: Files) -> dict[str, str]:
    """Returns name in a row -> the file that it names, "" where there is none.

    Names are looked up by path first; those without a folder then also in every folder.
    """
    tables: tuple[
        tuple[Callable[[str], str], tuple[str, ...], bool], ...
    ] = (  # key of a file, files, whether a name with a folder is looked up there, too; each made once
        (str, files.videos, True),
        (_without_ending, files.videos, True),
        (os.path.basename, files.videos, False),
        (_bare, files.videos, False),
        (str, files.others, True),
        (os.path.basename, files.others, False),
    )
    made: dict[int, dict[str, list[str]]] = {}
    roots = (os.path.abspath(root), os.path.realpath(root))
    file_of: dict[str, str] = {}
    for row in rows:
        name = row.name
        if name in file_of:
            continue
        path, fitting = _below(name, roots), [""]
        for number, (key, among, with_folder) in enumerate(tables):
            if with_folder or "/" not in name:
                if number not in made:
                    made[number] = _by(key, among)
                if path in made[number]:
                    fitting = made[number][path]
                    break
        if len(fitting) > 1:
            raise DatasetError(
                f"{row.where} ({name}): may be {_first(fitting)}",
                hint=f"name the file by its path below {root}",
            )
        file_of[name] = fitting[0]
    return file_of


def _by(key: Callable[[str], str], files: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in files:
        found.setdefault(key(file), []).append(file)
    return found


def _below(name: str, roots: Iterable[str]) -> str:
    """Returns a name as path below the folder of videos, also for `./a` and absolute paths."""
    normal = os.path.normpath(name)
    if not os.path.isabs(normal):
        return normal
    path = PurePath(normal)
    root = next((root for root in roots if path.is_relative_to(root)), None)
    return (path.relative_to(root) if root else path).as_posix()


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _without_ending(path: str) -> str:
    return os.path.splitext(path)[0]


def _bare(path: str) -> str:
    return _without_ending(os.path.basename(path))


def _first(names: Collection[str], most: int = 5) -> str:
    shown = ", ".join(list(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
