"""Reads features of any source, one file per clip or one of all: numpy's, torch's, HDF5 or Parquet.

A clip's features are (n, D), or maps (n, H, W, C). An array with one more dimension holds a row for each
clip. Nothing is unpickled.
"""

from __future__ import annotations

import glob
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from avel.errors import AvelError, ConfigError, DatasetError, MissingPathError, StoreError
from avel.stores.arrow import read_parquet
from avel.stores.files import path_text
from avel.stores.hdf5 import array_of, open_hdf5, read_foreign_texts

HDF5_ENDINGS = (".h5", ".hdf5")
ENDINGS = (".npy", ".npz", ".pt", ".pth", *HDF5_ENDINGS, ".parquet")
ID_NAMES = ("video_id", "video_ids", "videoid", "id", "ids", "name", "names", "video", "videos")
"""Names of the array or column of clip ids; the first of them that a file has is read."""
OF_A_CLIP, OF_ALL = (2, 4), (3, 5)
"""Dimensions of one clip's vectors or maps, and of an array with a row for each clip."""
WRITE_AGAIN = "write the file again"
Entries = Mapping[str, Any]
"""Name -> array, list of texts, or, for an HDF5 group or an inner dict, its own entries."""


@dataclass(frozen=True)
class FeatureFiles:
    """Features of clips, read when they are asked for.

    Attributes:
        where: the path that was given, for messages.
        ids: clips in the order of the file; None where its rows are those of the dataset's samples.
        count: number of clips, or of rows.
        read: place of a clip -> its features (n, D) or (n, H, W, C), numbers of any type.
        files: the files that hold them.
    """

    where: str
    ids: tuple[str, ...] | None
    count: int
    read: Callable[[int], NDArray[Any]]
    files: tuple[Path, ...]


@contextmanager
def open_features(path: Path, key: str | None = None) -> Iterator[FeatureFiles]:
    """Opens a folder or pattern of files, one for each clip, or one file of all clips.

    In a folder a file's path below it, without ending, is the clip's id; in a pattern, `out/*_r21d.npy`, what
    the star stands for. One file holds an array or group named by each id, or an array of one row per clip.

    Args:
        key: name of the array to take, where a file holds several; of a Parquet file the column.

    Raises:
        ConfigError: a pattern with several stars.
        MissingPathError: nothing is there.
        StoreError: a file that cannot be read, or several arrays and no key that chooses.
    """
    files = _files_by_id(path)
    if files is not None:
        names, paths = tuple(files), tuple(files.values())
        yield FeatureFiles(str(path), names, len(names), lambda place: _clip(paths[place], key), paths)
    elif path.suffix.lower() == ".parquet":
        yield _of_table(path, key)
    else:
        with _entries(path) as entries:
            yield _of_file(path, entries, key)


def _files_by_id(path: Path) -> dict[str, Path] | None:
    """Returns id -> file of a folder or pattern; None where the path is one file."""
    if "*" in path.name:
        before, _, after = path.name.partition("*")
        if "*" in after:
            raise ConfigError(f"{path}: several stars, so it is not known which is the id", hint="keep one")
        files = {
            each.name[len(before) : len(each.name) - len(after)]: each
            for each in sorted(path.parent.glob(f"{glob.escape(before)}*{glob.escape(after)}"))
            if each.is_file()
        }
    elif path.is_dir():
        below = sorted(each for each in path.rglob("*") if each.suffix.lower() in ENDINGS and each.is_file())
        files = {}
        for each in below:
            name = path_text(each.relative_to(path).with_suffix(""))
            if name in files:
                raise StoreError(
                    f"{each}: {files[name].name} has the same id",
                    hint=f"give one kind of file, as {path}/*{each.suffix}",
                )
            files[name] = each
    elif path.is_file():
        return None
    else:
        raise MissingPathError(f"{path}: no such file or folder", hint="name a folder, a pattern or a file")
    if not files:
        raise MissingPathError(f"{path}: holds no features", hint=f"they end in {', '.join(ENDINGS)}")
    return files


@contextmanager
def _entries(path: Path) -> Iterator[Entries]:
    """Yields what a file holds, by name; the one array of a file without names is ""."""
    ending = path.suffix.lower()
    if ending in HDF5_ENDINGS:
        with open_hdf5(path, WRITE_AGAIN) as file:
            yield _hdf5_entries(file)
        return
    try:
        if ending == ".npy":
            entries: Entries = {"": np.lib.format.open_memmap(path, "r")}
        elif ending == ".npz":
            # ZipFile first: np.load advises to unpickle what is no zip file
            with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as archive:
                entries = {name: archive[name] for name in archive.files}
        elif ending in (".pt", ".pth"):
            entries = _torch_entries(path)
        else:
            raise StoreError(
                f"{path}: not a file of features by its ending", hint=f"they end in {', '.join(ENDINGS)}"
            )
    except AvelError:
        raise
    except Exception as error:  # whatever numpy, zip, zlib and torch raise for bytes that are not theirs
        what = " ".join(str(error).split())
        raise StoreError(f"{path}: cannot be read as {ending}: {what}", hint=WRITE_AGAIN) from None
    yield entries


def _hdf5_entries(group: h5py.Group) -> Entries:
    """Returns the arrays of a group by name, and for each group inside it that group's arrays of numbers."""
    entries: dict[str, Any] = {}
    for name in group:
        # A link may open another file, on which HDF5 may crash; `array_of` below refuses it
        array: Any = group[name] if _lies_inside(group, name) else None
        if isinstance(array, h5py.Group):
            entries[name] = {
                inner: array_of(array, inner, WRITE_AGAIN)
                for inner in array
                if not _lies_inside(array, inner)
                or (isinstance(array[inner], h5py.Dataset) and array[inner].dtype.kind in "fiu")
            }
            continue
        of_text = isinstance(array, h5py.Dataset) and h5py.check_string_dtype(array.dtype)
        if of_text and name in ID_NAMES and array.ndim == 1:
            entries[name] = read_foreign_texts(group, name, WRITE_AGAIN)
        elif not of_text:
            entries[name] = array_of(group, name, WRITE_AGAIN)
    return entries


def _lies_inside(group: h5py.Group, name: str) -> bool:
    """Returns whether a name of a group stands for something in the file itself, and is no link."""
    return isinstance(group.get(name, getlink=True), h5py.HardLink)


def _torch_entries(path: Path) -> Entries:
    """Loads tensors, alone or in a dict with texts; what else a file holds would have to be unpickled."""
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise StoreError(
            f"{path}: holds more than tensors, and would have to be unpickled, which runs code",
            hint="save a tensor, or a dict of tensors by name: torch.save({'features': tensor}, FILE)",
        ) from None

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(name): plain(inner) for name, inner in value.items()}
        if not isinstance(value, torch.Tensor):
            return value
        # numpy has no bfloat16, and takes no tensor that autograd follows
        return (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()

    entries = plain(loaded)
    return entries if isinstance(entries, dict) else {"": entries}


def _clip(path: Path, key: str | None) -> NDArray[Any]:
    """Reads the features of one clip from its own file."""
    with _entries(path) as entries:
        return np.asarray(_only(entries, key, OF_A_CLIP, str(path))[()])


def _of_file(path: Path, entries: Entries, key: str | None) -> FeatureFiles:
    """Returns the features of all clips in one file: by id, or one row per clip."""
    where, ids = str(path), _ids(entries, str(path))
    rows = {name for name, value in entries.items() if _dimensions(value) in OF_ALL}
    if key in rows or (key is None and rows):
        array = _only(entries, key, OF_ALL, where)
        if ids is not None and len(ids) != len(array):
            raise StoreError(f"{where}: {len(array)} rows of features, and {len(ids)} ids", hint=WRITE_AGAIN)
        return FeatureFiles(where, ids, len(array), lambda place: np.asarray(array[place]), (path,))
    of_clip = {
        name: value
        for name, value in entries.items()
        if isinstance(value, Mapping) or (key is None and _dimensions(value) in OF_A_CLIP)
    }
    if not of_clip:
        raise StoreError(
            f"{where}: holds no {'features' if key is None else repr(key)}, but {_listed(entries)}",
            hint="write one array (clips, n, D), or an array (n, D) for each id",
        )
    names = tuple(of_clip)

    def read(place: int) -> NDArray[Any]:
        value = of_clip[names[place]]
        if isinstance(value, Mapping):
            value = _only(value, key, OF_A_CLIP, f"{where}: {names[place]}")
        return np.asarray(value[()])

    return FeatureFiles(where, names, len(names), read, (path,))


def _only(entries: Entries, key: str | None, dimensions: tuple[int, ...], where: str) -> Any:
    """Returns the array of that name, or the only one that has one of these numbers of dimensions.

    Raises:
        StoreError: there is none, or several and no key.
    """
    fitting = {name: value for name, value in entries.items() if _dimensions(value) in dimensions}
    if key is not None and set(fitting) != {""}:  # a file without names has one array, whatever the key
        fitting = {name: value for name, value in fitting.items() if name == key}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    wanted = (
        f"{' or '.join(map(str, dimensions))} dimensions{'' if key is None else f' and the name {key!r}'}"
    )
    raise StoreError(
        f"{where}: holds {_listed(entries)}; {len(fitting)} of these have {wanted}",
        hint="--audio-key and --visual-key name the array to take",
    )


def _listed(entries: Entries) -> str:
    """Names the first of a file's entries with their shapes, for messages."""
    shown = [
        f"{name or 'array'} {tuple(value.shape) if hasattr(value, 'shape') else ''}".strip()
        for name, value in list(entries.items())[:5]
    ]
    return ", ".join([*shown, *(["..."] if len(entries) > len(shown) else [])]) or "nothing"


def _dimensions(value: Any) -> int:
    """Returns the dimensions of an array of numbers, 0 of anything else."""
    return int(value.ndim) if getattr(getattr(value, "dtype", None), "kind", "") in ("f", "i", "u") else 0


def _ids(entries: Entries, where: str) -> tuple[str, ...] | None:
    """Returns the texts, or whole numbers as texts, that name the rows of a file."""
    for name in ID_NAMES:
        values = entries.get(name)
        if isinstance(values, np.ndarray | h5py.Dataset) and values.ndim == 1 and values.dtype.kind in "USiu":
            values = values[()].tolist()
        if isinstance(values, list) and all(type(each) in (str, bytes, int) for each in values):
            try:
                return tuple(each.decode() if isinstance(each, bytes) else str(each) for each in values)
            except UnicodeDecodeError as error:
                raise StoreError(f"{where}: {name} is not UTF-8: {error}", hint=WRITE_AGAIN) from None
    return None


def _of_table(path: Path, key: str | None) -> FeatureFiles:
    """Returns the features of a Parquet file, in which a clip is one row, or one row for each vector."""
    import pyarrow as pa

    try:
        table = read_parquet(path)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path}: cannot be read as .parquet: {error}", hint=WRITE_AGAIN) from None
    names, kinds = table.column_names, (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
    lists = [field.name for field in table.schema if isinstance(field.type, kinds)]
    named = next((name for name in ID_NAMES if name in names), None)
    for name in (named, key):
        if name is not None and names.count(name) > 1:
            raise StoreError(f"{path}: {names.count(name)} columns are named {name}", hint="leave one")
    if named is None:
        raise StoreError(
            f"{path}: no column of ids among {', '.join(names)}",
            hint=f"name it {ID_NAMES[0]}, with one text per row",
        )
    chosen = [key] if key in lists else lists if key is None else []
    if len(chosen) != 1:
        raise StoreError(
            f"{path}: {len(chosen)} columns of vectors among {', '.join(names)}",
            hint="write vectors as lists of numbers; --audio-key and --visual-key name their column",
        )
    try:
        id_of_row = table[named].cast(pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise StoreError(
            f"{path}: column {named} is {table[named].type}, not text: {error}", hint=WRITE_AGAIN
        ) from None
    if None in id_of_row:
        raise StoreError(f"{path}: column {named} is empty in row {id_of_row.index(None)}", hint=WRITE_AGAIN)
    places: dict[str, list[int]] = {}
    for place, name in enumerate(id_of_row):
        places.setdefault(name, []).append(place)
    ids, column = tuple(places), table[chosen[0]].combine_chunks()

    def read(place: int) -> NDArray[Any]:
        rows = column.take(pa.array(places[ids[place]])).to_pylist()
        try:
            values = np.array(rows, np.float64)
        except (TypeError, ValueError):
            raise DatasetError(f"{path}: the vectors of {ids[place]!r} differ in length") from None
        return values[0] if len(rows) == 1 and values.ndim in OF_ALL else values

    return FeatureFiles(str(path), ids, len(ids), read, (path,))
