"""Any folder of videos as a dataset: annotations in a CSV or Parquet file, or none."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable
from operator import attrgetter
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from avel.config import option
from avel.errors import DatasetError
from avel.progress import note
from avel.stores.columns import as_bools, is_one_of, places_in
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.event_table import TABLE_ENDINGS, TableRows, read_events, samples_of_rows
from avel.stores.datasets.formats import FORMATS, PLAIN, DatasetFormat, LengthConfig
from avel.stores.datasets.sample import Videos
from avel.stores.files import path_text
from avel.stores.kinds import VIDEO_SUFFIXES
from avel.text import first_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

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
        return "; ".join(f"{first_of(names)} ({len(names)}: {why})" for why, names in groups if names)


def list_files(root: Path, *, below: bool = True) -> Files:
    """Lists the files in `root` and, where `below`, in every folder below it, by their `path_text`."""
    found: dict[str, list[str]] = {field.name: [] for field in dataclasses.fields(Files)}
    # No recursion: folders may lie deeper than Python's limit
    waiting = _entries_backwards(root, "", found)
    while waiting:
        entry, path = waiting.pop()
        is_video = _ending(path) in VIDEO_SUFFIXES and not entry.name.startswith("._")
        if _holds(entry.is_file):
            found["videos" if is_video else "others"].append(path)
        elif not _holds(entry.is_dir):
            if is_video:
                found["broken"].append(path)
        elif below and entry.is_symlink():
            found["linked"].append(path)
        elif below:
            waiting += _entries_backwards(entry, f"{path}/", found)  # a folder's files come in its place
    return Files(**{kind: tuple(paths) for kind, paths in found.items()})


def _entries_backwards(
    folder: os.PathLike[str], prefix: str, found: dict[str, list[str]]
) -> list[tuple[os.DirEntry[str], str]]:
    """Returns all that is in a folder with its path, the last name first; nothing if it is closed."""
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=attrgetter("name"), reverse=True)
    except OSError:
        found["closed"].append(prefix.rstrip("/") or ".")
        return []
    return [(entry, path_text(prefix + entry.name)) for entry in entries]


def _holds(question: Callable[[], bool]) -> bool:
    """Returns False where the system cannot say whether an entry is a file or a folder."""
    try:
        return question()
    except OSError:
        return False


@FORMATS.register(PLAIN)
class Folder(DatasetFormat["Folder.Config"]):
    """Any folder of videos. The rows of one video and split are the events of one sample.

    If each row were a sample of its own, its labels would call the other events of the video background.
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

        A video's id is its path below the folder, without ending unless another file then has the same.
        A row names a video by that path, with or without ending, or by its absolute path. A name without
        folder also matches a file in any folder, if there is only one. A name that matches no file belongs to
        a missing video; a video without any row has no sample.

        Raises:
            MissingPathError: no such annotation file.
            DatasetError: no videos, a table or a value that cannot be read, a name that fits several files,
                rows that contradict each other.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        files, table = list_files(folder), self.config.annotations
        rows = TableRows.of(()) if table is None else read_events(table)
        names = rows.table["name"].combine_chunks().dictionary_encode()
        videos, others = pa.array(files.videos, pa.string()), pa.array(files.others, pa.string())
        stems = _without_ending(videos)
        in_videos, in_others = _files_of(names, rows, folder, videos, stems, others)
        is_other, absent = in_others >= 0, (in_videos < 0) & (in_others < 0)
        places_named = pa.array(in_others[is_other]).unique()
        named, no_file = others.take(places_named), names.dictionary.filter(pa.array(absent))
        left_out = files.left_out(set(named.to_pylist()))
        if not files.videos and not len(named):
            raise DatasetError(
                f"{folder}: holds no video file" + (f"; left out: {left_out}" if left_out else ""),
                hint=f"endings that are looked for: {' '.join(sorted(VIDEO_SUFFIXES))}",
            )
        if left_out:
            note(f"{folder}: left out: {left_out}")
        if table is None and (tables := [name for name in files.others if _ending(name) in TABLE_ENDINGS]):
            note(f"{folder}: no annotations are read; --annotations takes a table: {first_of(tables)}")
        before = path_text(os.path.abspath(folder)).rstrip("/")
        paths = pc.binary_join_element_wise(before, pa.concat_arrays([videos, named]), "/")
        no_paths = pa.repeat(pa.scalar("", pa.string()), len(no_file))
        columns = {
            "video_id": pa.concat_arrays([_ids(videos, stems), named, no_file]),
            "path": pa.concat_arrays([paths, no_paths]),
        }
        place = in_videos  # becomes the place of each name's video in `columns`: videos, named, no_file
        place[is_other] = len(videos) + places_in(pa.array(in_others[is_other]), places_named)
        place[absent] = np.arange(len(paths), len(paths) + len(no_file))
        of_rows = pa.DictionaryArray.from_arrays(pa.array(place).take(names.indices), columns["video_id"])
        return make_dataset(
            folder.resolve().name, folder, samples_of_rows(rows, of_rows), Videos(pa.table(columns))
        )


def _ids(videos: pa.Array, stems: pa.Array) -> pa.Array:
    """Returns the id of each file: its path without ending, unless another file has the same."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = stems.dictionary_encode()
    alone = np.bincount(encoded.indices, minlength=len(encoded.dictionary)) == 1
    dotted = np.flatnonzero(as_bools(pc.match_substring(encoded.dictionary, ".")))
    if len(dotted):  # the stem a.mp4 of a.mp4.mkv may be the path of another video
        alone[dotted] &= ~is_one_of(encoded.dictionary.take(pa.array(dotted)), videos)
    return pc.if_else(pa.array(alone[encoded.indices]), stems, videos)


def _files_of(
    names: pa.DictionaryArray,
    rows: TableRows,
    root: Path,
    videos: pa.Array,
    stems: pa.Array,
    others: pa.Array,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the place of each name's file among the videos, and among the other files; -1 for no file.

    Names are looked up by path first; those without a folder then also in every folder.

    Args:
        stems: paths of the videos without their endings.

    Raises:
        DatasetError: a name fits several files.
    """
    import numpy as np
    import pyarrow.compute as pc

    roots = (os.path.abspath(root), os.path.realpath(root))
    wanted = _below(names.dictionary, roots)
    has_folder = as_bools(pc.match_substring(names.dictionary, "/"))
    in_videos, in_others = np.full(len(wanted), -1), np.full(len(wanted), -1)
    lookups: tuple[tuple[Callable[[], pa.Array], bool, bool], ...] = (
        (lambda: videos, False, False),  # keys of files, are they `others`, only for names without folder
        (lambda: stems, False, False),
        (lambda: _basename(videos), False, True),
        (lambda: _basename(stems), False, True),
        (lambda: others, True, False),
        (lambda: _basename(others), True, True),
    )
    for keys_of, is_other, is_basename in lookups:
        missing = (in_videos < 0) & (in_others < 0) & ~(has_folder & is_basename)
        if not missing.any():
            continue
        keys = keys_of()
        places = np.where(missing, places_in(wanted, keys), -1)
        if not (places >= 0).any():
            continue
        counts = keys.value_counts()
        several = is_one_of(wanted, counts.field("values").filter(pc.greater(counts.field("counts"), 1)))
        several &= places >= 0
        if several.any():
            place = int(several.argmax())
            row = rows[int((np.asarray(names.indices) == place).argmax())]
            fitting = (others if is_other else videos).filter(pc.equal(keys, wanted[place])).to_pylist()
            raise DatasetError(
                f"{row.where} ({row.name}): may be {first_of(fitting)}",
                hint=f"name the file by its path below {root}",
            )
        (in_others if is_other else in_videos)[places >= 0] = places[places >= 0]
    return in_videos, in_others


def _below(names: pa.Array, roots: Iterable[str]) -> pa.Array:
    """Returns names as paths below the folder of videos, also for `./a` and absolute paths."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    odd = np.flatnonzero(as_bools(pc.match_substring_regex(names, r"^/|//|/$|^$|(^|/)\.\.?(/|$)")))
    if not len(odd):
        return names
    found = names.to_pylist()
    for place in odd.tolist():
        found[place] = _one_below(found[place], roots)
    return pa.array(found, pa.string())


def _one_below(name: str, roots: Iterable[str]) -> str:
    normal = os.path.normpath(name)
    if not os.path.isabs(normal):
        return normal
    path = PurePath(normal)
    root = next((root for root in roots if path.is_relative_to(root)), None)
    return (path.relative_to(root) if root else path).as_posix()


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _without_ending(paths: pa.Array) -> pa.Array:
    """Returns paths without their endings, which all of them have."""
    import pyarrow.compute as pc

    return pc.replace_substring_regex(paths, r"\.[^.]*$", "")


def _basename(paths: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.replace_substring_regex(paths, "(?s)^.*/", "")
