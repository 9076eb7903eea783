"""Replaces the files of an older report and no others; a list in its folder names them."""

import contextlib
import json
import os
from pathlib import Path

from avel.errors import ConfigError
from avel.stores.files import write_json

LIST = "report-files.json"
"""Name of the list of the files that a report wrote, itself included."""
INDEX = "index.html"


def own_files(folder: Path) -> set[str]:
    """Returns the relative paths of the files that an earlier report wrote into `folder`, if there is one.

    Raises:
        ConfigError: it holds anything else, or is not a folder.
    """
    if not os.path.lexists(folder):
        return set()
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder", hint="name a new folder with --out")
    listed = _listed(folder / LIST)
    inside = list(folder.rglob("*"))
    files = {path.relative_to(folder).as_posix() for path in inside if not _is_folder(path)}
    folders = {path.relative_to(folder).as_posix() for path in inside if _is_folder(path)}
    foreign = sorted(files - listed) or sorted(folders - _folders(listed))
    if foreign:
        raise ConfigError(
            f"{folder / foreign[0]}: was not written by avel report, which replaces its own files only",
            hint="name another folder with --out, or move this away",
        )
    return files


def put_in_place(source: Path, folder: Path, old: set[str]) -> None:
    """Moves the files below `source` into `folder`, where they replace the `old` ones.

    A process killed meanwhile leaves a folder without index.html. The list there still names every file, so
    the next report may replace them.
    """
    new = {path.relative_to(source).as_posix() for path in source.rglob("*") if not _is_folder(path)} | {LIST}
    folder.mkdir(exist_ok=True)
    _write_list(source, folder, old | new)
    (folder / INDEX).unlink(missing_ok=True)
    for name in old - new:
        (folder / name).unlink(missing_ok=True)
    for name in sorted(_folders(old) - _folders(new), reverse=True):  # inner folders first
        with contextlib.suppress(OSError):  # another program put a file there meanwhile
            (folder / name).rmdir()
    for name in [*sorted(new - {LIST, INDEX}), INDEX]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(source / name, folder / name)
    _write_list(source, folder, new)


def _listed(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    try:
        return set(json.loads(path.read_text())["files"])
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        raise ConfigError(
            f"{path}: is not a list of a report's files ({error})", hint="name another folder with --out"
        ) from None


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _folders(names: set[str]) -> set[str]:
    return {parent.as_posix() for name in names for parent in Path(name).parents} - {"."}


def _write_list(source: Path, folder: Path, names: set[str]) -> None:
    """Writes the list in `source`, then moves it, so that a kill leaves no partial file in the folder."""
    write_json(source / LIST, {"files": sorted(names)})
    os.replace(source / LIST, folder / LIST)
