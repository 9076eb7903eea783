"""Creates HDF5 files, whole or not at all, and reads them without following links to other files.

The vectors and maps of avel's own files carry a checksum for every row.
"""

import errno
import math
import os
import shlex
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import google_crc32c
import h5py
import numpy as np
from h5py import h5t, h5z
from numpy.typing import NDArray

from avel.errors import AvelError, BusyError, StoreError
from avel.stores.fence import read_elsewhere_first, same_modules
from avel.stores.files import atomic_path

OVERHEAD = 1 << 20
"""Bytes that HDF5 needs for itself at the most, in addition to 1 % of the data."""
BLOCK_ROWS = 64
"""Rows of an array that are read or written at once."""
CHECKSUMS = "_crc32c"
"""Suffix of the name of an array's checksums."""
HDF5_RELEASES = ("v108", "v108")
"""Oldest and newest file format to write: HDF5 1.8's. Without its checksums damage can make HDF5 loop."""
MOST_PACKED = 1100
"""Largest ratio of an array's bytes to its bytes in the file; that of deflate is 1032."""
FILTERS = {h5z.FILTER_SHUFFLE: "shuffle", h5z.FILTER_DEFLATE: "gzip", h5z.FILTER_FLETCHER32: "fletcher32"}
"""Filters of chunks that are read, in the order in which h5py applies them."""
FLETCHER32_BYTES = 4
INFLATE_BYTES = 1 << 20
READ_TEXTS = """
import sys, h5py
with h5py.File(sys.argv[1], "r") as file:
    for text in file[sys.argv[2]].asstr()[()]:
        sys.stdout.write(text + "\\0")
"""
"""Program that prints the texts of an array of a file, each ended by a NUL."""
READ_SECONDS = 60


class ArrayLike(Protocol):
    """An array to write: numpy, an HDF5 dataset, anything with a shape whose slices are numpy arrays."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, key: slice, /) -> Any: ...


@contextmanager
def new_hdf5(path: Path, room: int) -> Iterator[h5py.File]:
    """Yields an HDF5 file to fill, which is at `path` when the block has ended.

    Allocates `room` bytes on the disk first: when a write fails, HDF5 ends the process in a segmentation
    fault, then or later.

    Args:
        room: at least the bytes that will be written; what is not used is freed.

    Raises:
        WriteError: the place has not that much room, or cannot be written.
    """
    with atomic_path(path) as partial, partial.open("r+b", buffering=0) as raw:
        room += room // 100 + OVERHEAD
        os.posix_fallocate(raw.fileno(), 0, room)
        os.ftruncate(raw.fileno(), 0)  # HDF5 starts only in an empty file, and truncates it when it closes
        with h5py.File(raw, "w", libver=HDF5_RELEASES) as file:
            os.posix_fallocate(raw.fileno(), 0, room)
            yield file


@contextmanager
def open_hdf5(path: Path, hint: str) -> Iterator[h5py.File]:
    """Opens a file for reading, after another process has read it without a crash (see `fence`).

    Raises:
        BusyError: another program has it open for writing.
        StoreError: it is not an HDF5 file, or what the block reads of it is damaged or missing.
    """
    read_elsewhere_first(path, hint)
    with open_hdf5_here(path, hint) as file:
        yield file


@contextmanager
def open_hdf5_here(path: Path, hint: str) -> Iterator[h5py.File]:
    """Opens a file as `open_hdf5` does, without that other process: a damaged file may crash this one."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except AvelError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        if "unable to lock file" in str(error) or "h5clear" in str(error):
            raise BusyError(
                f"{path}: is open elsewhere: another program writes it, or ended without closing it",
                hint=f"close it there; if that program has ended: h5clear -s {shlex.quote(str(path))}; "
                "then give this command again",
            ) from None
        if isinstance(error, PermissionError):
            raise StoreError(f"{path}: {os.strerror(errno.EACCES)}", hint="check its access rights") from None
        raise StoreError(f"{path}: not a readable HDF5 file: {error}", hint=hint) from None


def array_of(file: h5py.Group, name: str, hint: str, *, dimensions: int | None = None) -> h5py.Dataset:
    """Returns an array of numbers, or of texts of one length, whose values lie in the file itself.

    Refuses types that HDF5 would have to convert, and chunks of another length than the array says: in a
    forged file, reading them may crash the process or copy other parts of its memory.

    Args:
        name: name in `file`, or a path, "features/clip".

    Raises:
        StoreError: it is missing or not such an array; its values lie in other files, or some are missing.
    """
    where, group = f"{file.file.filename}: {name}", name.rpartition("/")[0]
    if group and not isinstance(file.get(group, getlink=True), h5py.HardLink):
        raise StoreError(
            f"{file.file.filename}: {group} is missing, or a link, which is not followed", hint=hint
        )
    link = file.get(name, getlink=True)
    if link is None:
        raise StoreError(f"{where} is missing", hint=hint)
    if not isinstance(link, h5py.HardLink):
        raise StoreError(
            f"{where} is a link to {getattr(link, 'filename', '')}{link.path}, which is not followed",
            hint="take a file that holds the values itself",
        )
    array = file[name]
    if not isinstance(array, h5py.Dataset) or array.shape is None:
        raise StoreError(f"{where} is not an array", hint=hint)
    if array.external or array.is_virtual:
        outside = array.external[0][0] if array.external else "other files"
        raise StoreError(
            f"{where}: its values lie in {outside}, which is not read",
            hint="take a file that holds the values itself",
        )
    if dimensions is not None and array.ndim != dimensions:
        raise StoreError(f"{where} has {array.ndim} dimensions, not {dimensions}", hint=hint)
    if array.nbytes > MOST_PACKED * array.id.get_storage_size():
        raise StoreError(
            f"{where} says it is {array.shape}, but the file holds {array.id.get_storage_size()} bytes of it",
            hint=hint,
        )
    if not _is_plain(array.id.get_type(), array.dtype):
        raise StoreError(f"{where} is {array.dtype} in a form that avel does not read", hint=hint)
    if array.chunks is not None:
        _check_chunks(array, where, hint)
    elif array.id.get_storage_size() != array.nbytes:
        raise StoreError(
            f"{where} says it has {array.nbytes} bytes, the file holds {array.id.get_storage_size()}",
            hint=hint,
        )
    return array


def attribute(file: h5py.File, name: str) -> Any:
    """Returns an attribute as JSON would hold it; None unless it is one number or one text."""
    if name not in file.attrs:
        return None
    entry = file.attrs.get_id(name)
    text = isinstance(entry.get_type(), h5t.TypeStringID)
    if entry.shape != () or not (text or _is_plain(entry.get_type(), entry.dtype)):
        return None
    value = file.attrs[name]
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _is_plain(kind: h5t.TypeID, dtype: np.dtype[Any]) -> bool:
    """Returns whether values are numbers as numpy has them, or texts of one length."""
    if isinstance(kind, h5t.TypeStringID):
        return not kind.is_variable_str()
    return dtype.kind in "biuf" and bool(h5t.py_create(dtype, logical=True).equal(kind))


def _check_chunks(array: h5py.Dataset, where: str, hint: str) -> None:
    """Refuses an array of which a chunk is missing, or is not as long as HDF5 takes it to be.

    Raises:
        StoreError: also where chunks are packed in another way than those of FILTERS.
    """
    creation = array.id.get_create_plist()
    used = [creation.get_filter(number)[0] for number in range(creation.get_nfilters())]
    if used != [code for code in FILTERS if code in used]:
        raise StoreError(
            f"{where} is packed with filters {used} of HDF5, only {', '.join(FILTERS.values())} are read",
            hint="unpack it: h5repack -f NONE FILE NEW_FILE",
        )
    chunks: list[Any] = []
    array.id.chunk_iter(chunks.append)
    count = math.prod(-(-size // chunk) for size, chunk in zip(array.shape, array.chunks, strict=True))
    if len(chunks) != count:
        raise StoreError(f"{where}: the file holds {len(chunks)} of its {count} chunks", hint=hint)
    wanted = math.prod(array.chunks) * array.dtype.itemsize
    for chunk in chunks:
        if _chunk_bytes(array, chunk, used, wanted) != wanted:
            raise StoreError(
                f"{where}: the chunk at {chunk.chunk_offset} does not hold the {wanted} bytes of a chunk",
                hint=hint,
            )


def _chunk_bytes(array: h5py.Dataset, chunk: Any, filters: list[int], most: int) -> int:
    """Returns the bytes of an unpacked chunk, counted up to `most` + 1; 0 where it cannot be unpacked."""
    applied = [code for place, code in enumerate(filters) if not chunk.filter_mask >> place & 1]
    stored = chunk.size - FLETCHER32_BYTES * (h5z.FILTER_FLETCHER32 in applied)
    if h5z.FILTER_DEFLATE not in applied or most > MOST_PACKED * stored:  # too few bytes to become `most`
        return int(stored)
    packed = array.id.read_direct_chunk(chunk.chunk_offset)[1][:stored]
    stream, unpacked = zlib.decompressobj(), 0
    try:
        while not stream.eof and unpacked <= most:
            part = stream.decompress(packed, INFLATE_BYTES)
            packed, unpacked = stream.unconsumed_tail, unpacked + len(part)
            if not part and not packed:
                break
    except zlib.error:
        return 0
    return min(unpacked, most + 1) if stream.eof else 0


def texts(values: Iterable[object]) -> NDArray[Any]:
    """Returns texts for a file, all of one length: those of any length lie in a heap without checksums."""
    encoded = [str(value).encode() for value in values]
    return np.array(encoded, h5py.string_dtype(length=max(map(len, encoded), default=0) or 1))


def read_column(
    file: h5py.Group, name: str, dtype: type[np.generic], hint: str, *, dimensions: int = 1
) -> NDArray[Any]:
    """Reads a column (n,) as it lies in the file, texts as bytes; with `dimensions=0` a single value ().

    Raises:
        StoreError: it is missing or of another type.
    """
    array = array_of(file, name, hint, dimensions=dimensions)
    wanted = "text" if dtype is np.bytes_ else np.dtype(dtype)
    if ("text" if array.dtype.kind == "S" else array.dtype) != wanted:
        raise StoreError(f"{file.file.filename}: {name} is {array.dtype}, not {wanted}", hint=hint)
    return np.asarray(array[()])


def decoded(column: NDArray[np.bytes_]) -> list[str]:
    """Returns the texts of a column that was read as bytes."""
    values = column.tolist()
    together = b"\0".join(values).decode().split("\0")  # one call is ten times as fast as one for each text
    return together if len(together) == len(values) else [value.decode() for value in values]


def read_foreign_texts(group: h5py.Group, name: str, hint: str) -> list[str]:
    """Returns the texts of an array (n,) in a file that avel did not write; they may be of any length.

    Texts of any length lie in a heap; HDF5 crashes if it is damaged, so another process reads them.

    Raises:
        StoreError: that process could not.
    """
    if group[name].dtype.kind == "S":
        return decoded(read_column(group, name, np.bytes_, hint))
    command = [sys.executable, "-P", "-c", READ_TEXTS, group.file.filename, group[name].name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=READ_SECONDS, check=True, env=same_modules()
        )
    except (subprocess.SubprocessError, UnicodeDecodeError):
        raise StoreError(f"{group.file.filename}: {name}: its texts cannot be read", hint=hint) from None
    return done.stdout.split("\0")[:-1]


def write_rows(file: h5py.File, name: str, source: ArrayLike, dtype: Any) -> NDArray[np.uint32]:
    """Writes an array, contiguous, and the CRC-32C of each of its rows, which it also returns.

    Raises:
        StoreError: a finite number is too large for `dtype`, and would become an infinity.
    """
    array = file.create_dataset(name, tuple(source.shape), dtype)
    sums = np.zeros(len(array), np.uint32)
    for start in range(0, len(array), BLOCK_ROWS):
        try:
            with np.errstate(over="raise"):  # also while the source makes its block
                block = np.ascontiguousarray(source[start : start + BLOCK_ROWS], dtype)
        except FloatingPointError:
            raise StoreError(
                f"{name}: rows {start} to {min(start + BLOCK_ROWS, len(array)) - 1} hold a number above "
                f"{np.finfo(dtype).max:g}, the largest {np.dtype(dtype)}",
                hint="import maps with --maps-dtype float32; scale other features",
            ) from None
        array[start : start + BLOCK_ROWS] = block
        sums[start : start + BLOCK_ROWS] = checksums(block)
    file[name + CHECKSUMS] = sums
    return sums


def checksums(rows: NDArray[Any]) -> list[int]:
    """Returns the CRC-32C of each row's bytes."""
    return [google_crc32c.value(row) for row in np.ascontiguousarray(rows)]


def read_verified_rows(
    array: h5py.Dataset, sums: h5py.Dataset | NDArray[np.uint32], rows: slice | Sequence[int], hint: str
) -> NDArray[Any]:
    """Reads rows of an array and compares their checksums.

    Raises:
        StoreError: a row's bytes have changed; with its number.
    """
    numbers = range(len(array))[rows] if isinstance(rows, slice) else rows
    first = numbers[0] if len(numbers) else 0
    if first >= 0 and list(numbers) == list(range(first, first + len(numbers))):  # read them at once
        values, wanted = (np.asarray(each[first : first + len(numbers)]) for each in (array, sums))
    else:
        values, wanted = np.empty((len(numbers), *array.shape[1:]), array.dtype), sums[()][list(numbers)]
        for place, row in enumerate(numbers):
            values[place] = array[int(row)]
    for number, checksum, own in zip(numbers, wanted, checksums(values), strict=True):
        if own != checksum:
            raise StoreError(
                f"{array.file.filename}: row {number} of {array.name[1:]} is damaged: "
                "its checksum does not match",
                hint=hint,
            )
    return values
