"""New HDF5 files are whole or absent, on a full disk too, and none ends the process."""

import errno
import fcntl
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from avel.errors import BusyError, StoreError, WriteError
from avel.stores.hdf5 import array_of, attribute, new_hdf5, open_hdf5, read_verified_rows, write_rows
from tests.small_disk import small_disk

STEPS = """
import sys
from pathlib import Path
import numpy as np
from avel.errors import WriteError
from avel.stores.hdf5 import new_hdf5

path = Path(sys.argv[1]) / "a.h5"
for size in range(40_000, 1_600_000, 40_000):
    try:
        with new_hdf5(path, room=3000 + 2 * size) as file:
            file["names"] = ["a", "b"] * 100
            file["vectors"] = np.ones(size // 4, np.float32)
            maps = file.create_dataset("maps", (4, size // 8), np.float16, chunks=(1, 5000), fletcher32=True)
            for row in range(4):
                maps[row] = row
        print("whole", flush=True)
    except WriteError as error:
        print(error.message, flush=True)
    path.unlink(missing_ok=True)
"""


def test_a_file_is_what_was_written_and_takes_no_more_room(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((5, 7)).astype(np.float32)
    with new_hdf5(tmp_path / "a.h5", 1000) as file:
        file["values"] = values
        dataset = file.create_dataset("maps", (5, 7), np.float32, chunks=(1, 7), fletcher32=True)
        for row in range(5):
            dataset[row] = values[row]
        np.testing.assert_array_equal(dataset[3], values[3])
    with h5py.File(tmp_path / "a.h5", "r") as file:
        np.testing.assert_array_equal(file["values"], values)
        np.testing.assert_array_equal(file["maps"], values)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["values"] = values
        dataset = file.create_dataset("maps", (5, 7), np.float32, chunks=(1, 7), fletcher32=True)
        dataset[:] = values
    assert (tmp_path / "a.h5").stat().st_size < (tmp_path / "b.h5").stat().st_size + 4096


def test_an_error_of_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with new_hdf5(path, 100) as file:
        file["values"] = [1]

    def fail_half_way() -> None:
        with new_hdf5(path, 100) as file:
            file["values"] = [2]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    with h5py.File(path, "r") as file:
        assert file["values"][()].tolist() == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_too_large_for_the_disk_is_named_and_ends_no_process(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=2m") as disk:
        ended = subprocess.run([sys.executable, "-c", STEPS, disk.path], capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")
        said = ended.stdout.splitlines()
        assert set(said) == {"whole", f"{disk.path / 'a.h5'}: No space left on device"}
        # small ones first, then those that are too large
        assert said == sorted(said, key=lambda line: line != "whole")
        assert list(disk.path.iterdir()) == []


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(WriteError, match=r"file/a\.h5: (Not a directory|File exists)"),
        new_hdf5(tmp_path / "file" / "a.h5", 100),
    ):
        pass


def test_a_file_that_another_program_holds_is_open_elsewhere(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["values"] = [1]
    with (tmp_path / "a.h5").open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match=r"a\.h5: is open elsewhere"), open_hdf5(tmp_path / "a.h5", ""):
            pass
    with open_hdf5(tmp_path / "a.h5", "") as file:
        assert file["values"][()].tolist() == [1]


def test_a_file_that_may_not_be_read_is_not_open_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Unable to synchronously open file (errno = 13)")

    (tmp_path / "a.h5").touch()
    monkeypatch.setattr(h5py, "File", closed)
    with (
        pytest.raises(StoreError, match=r"a\.h5: Permission denied\n.*access rights"),
        open_hdf5(tmp_path / "a.h5", ""),
    ):
        pass


def test_a_changed_row_is_found_and_named(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((130, 3)).astype(np.float32)
    with new_hdf5(tmp_path / "a.h5", 10_000) as file:
        sums = write_rows(file, "values", values, np.float32)
        assert sums.tolist() == file["values_crc32c"][()].tolist()
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["values"][129, 2] += 1e-6
    with open_hdf5(tmp_path / "a.h5", "again") as file:
        array = array_of(file, "values", "again", dimensions=2)
        np.testing.assert_array_equal(read_verified_rows(array, sums, [3, 128, 3], ""), values[[3, 128, 3]])
        for rows in (slice(None), [0, 129]):
            with pytest.raises(StoreError, match=r"a\.h5: row 129 of values is damaged") as raised:
                read_verified_rows(array, sums, rows, "again")
            assert raised.value.hint == "again"


PLAIN: dict[str, Any] = {"chunks": (2, 3)}


@pytest.mark.parametrize(
    "packing",
    [
        PLAIN,
        PLAIN | {"compression": "gzip"},
        PLAIN | {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (9, 9), "maxshape": (None, None), "compression": "gzip"},
    ],
)
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "u1", "?"])
def test_packed_arrays_are_read(tmp_path: Path, packing: dict[str, Any], dtype: str) -> None:
    values = np.arange(35).reshape(5, 7).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("values", data=values, **packing)
    with open_hdf5(tmp_path / "a.h5", "") as file:
        np.testing.assert_array_equal(array_of(file, "values", "")[()], values)


@pytest.mark.parametrize(
    ("packing", "stored"),
    [
        ({"compression": "gzip"}, zlib.compress(bytes(40))),
        ({"compression": "gzip"}, zlib.compress(bytes(30_000 + 1))),
        ({"compression": "gzip"}, zlib.compress(bytes(30_000))[:-5]),
        ({"compression": "gzip", "shuffle": True, "fletcher32": True}, zlib.compress(bytes(40)) + bytes(4)),
        ({"shuffle": True}, bytes(40)),
        ({"fletcher32": True}, bytes(30_000)),
        ({}, bytes(29_999)),
    ],
)
def test_a_chunk_that_is_shorter_than_hdf5_takes_it_to_be_is_refused(
    tmp_path: Path, packing: dict[str, Any], stored: bytes
) -> None:
    """HDF5 reads on behind it: what the process holds there, or until that ends it."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        array = file.create_dataset("values", (15_000,), np.float32, chunks=(7500,), **packing)
        array[:] = np.random.default_rng(0).random(15_000)
        array.id.write_direct_chunk((7500,), stored)
    with (
        open_hdf5(tmp_path / "a.h5", "") as file,
        pytest.raises(StoreError, match=r"values: the chunk at \(7500,\) does not hold the 30000 bytes"),
    ):
        array_of(file, "values", "")


@pytest.mark.parametrize("packing", [{"compression": "lzf"}, {"scaleoffset": 0}])
def test_filters_that_are_not_checked_are_refused(tmp_path: Path, packing: dict[str, Any]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("values", data=np.arange(90), chunks=(30,), **packing)
    with (
        open_hdf5(tmp_path / "a.h5", "") as file,
        pytest.raises(StoreError, match="packed with filters") as raised,
    ):
        array_of(file, "values", "")
    assert raised.value.hint == "unpack it: h5repack -f NONE FILE NEW_FILE"


def test_an_array_that_lacks_a_chunk_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("values", (90,), np.float32, chunks=(30,))[:30] = 1
    with open_hdf5(tmp_path / "a.h5", "") as file, pytest.raises(StoreError, match="holds 1 of its 3 chunks"):
        array_of(file, "values", "")


def test_types_of_a_foreign_form_are_refused(tmp_path: Path) -> None:
    """Numbers with bits to spare, texts of any length in a heap, references."""
    spare = h5py.h5t.NATIVE_INT32.copy()
    spare.set_precision(13)
    spare.set_offset(5)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        h5py.h5d.create(file.id, b"spare", spare, h5py.h5s.create_simple((3,)))
        file["spare"][()] = [1, 2, 3]
        file["texts"] = ["a", "bcd"]
        file.create_dataset("references", (1,), h5py.ref_dtype)[0] = file.ref
    with open_hdf5(tmp_path / "a.h5", "") as file:
        for name in ("spare", "texts", "references"):
            with pytest.raises(StoreError, match=rf"{name} is \w+ in a form that avel does not read"):
                array_of(file, name, "")


def test_attributes_are_one_number_or_text(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.update(number=3, real=0.5, text=np.bytes_("x"), heap="x", row=[1, 2], made=file.ref)
    with open_hdf5(tmp_path / "a.h5", "") as file:
        read = {
            name: attribute(file, name) for name in ("number", "real", "text", "heap", "row", "made", "no")
        }
    assert read == {
        "number": 3,
        "real": 0.5,
        "text": "x",
        "heap": "x",
        "row": None,
        "made": None,
        "no": None,
    }
