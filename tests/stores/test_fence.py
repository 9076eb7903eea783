"""A file on which HDF5 ends the process is refused, and ends no process of the user's."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest

from avel.errors import StoreError
from avel.stores.hdf5 import array_of, open_hdf5
from tests.stores.hdf5_checksums import reseal, sealed_parts

NAMES = 20
"""More than HDF5 keeps in the header of a group: it makes a tree of them."""
TYPE_OF_TREE = 5
"""Place in a tree's header of the number that says what it holds."""


def write_whole(path: Path) -> Path:
    with h5py.File(path, "w", libver=("v108", "v108")) as file:
        for number in range(NAMES):
            file[f"array {number}"] = np.arange(3)
    return path


def write_crashing(path: Path) -> Path:
    """Writes a file that says its names are a tree of HDF5's own tests, with right checksums."""
    whole = write_whole(path).read_bytes()
    at = whole.index(b"BTHD") + TYPE_OF_TREE
    path.write_bytes(reseal(whole[:at] + b"\0" + whole[at + 1 :], sealed_parts(whole)))
    return path


def read(path: Path) -> list[int]:
    with open_hdf5(path, "fetch it again") as file:
        values: list[int] = array_of(file, "array 7", "")[()].tolist()
        return values


def others() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "avel.stores.fenced" in child.cmdline()]


def test_a_file_that_ends_the_process_is_refused(tmp_path: Path) -> None:
    crashing = write_crashing(tmp_path / "a.h5")
    lines = "import h5py, sys; 'x' in h5py.File(sys.argv[1])"
    assert subprocess.run([sys.executable, "-c", lines, crashing]).returncode < 0  # a signal
    for _ in range(2):
        with pytest.raises(StoreError, match=r"a\.h5: is damaged: HDF5 crashed on it \(SIG\w+\)") as raised:
            read(crashing)
        assert raised.value.hint == "fetch it again"
    assert read(write_whole(tmp_path / "b.h5")) == [0, 1, 2]


def test_the_command_line_ends_with_one_line(tmp_path: Path) -> None:
    crashing = write_crashing(tmp_path / "a.h5")
    done = subprocess.run([sys.executable, "-m", "avel", "inspect", crashing], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"avel: error: {crashing}: is damaged: HDF5 crashed on it")


def test_a_file_that_has_changed_is_tried_again(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "a.h5")
    assert read(path) == [0, 1, 2]
    os.replace(write_crashing(tmp_path / "b.h5"), path)
    with pytest.raises(StoreError, match="HDF5 crashed"):
        read(path)


def test_a_process_that_was_killed_is_replaced(tmp_path: Path) -> None:
    assert read(write_whole(tmp_path / "a.h5")) == [0, 1, 2]
    (before,) = others()
    before.kill()
    assert read(write_whole(tmp_path / "b.h5")) == [0, 1, 2]
    (after,) = others()
    assert after.pid != before.pid


def test_a_forked_process_has_another_of_its_own(tmp_path: Path) -> None:
    assert read(write_whole(tmp_path / "a.h5")) == [0, 1, 2]
    write_whole(tmp_path / "b.h5")
    if (forked := os.fork()) == 0:
        os._exit(int(read(tmp_path / "b.h5") != [0, 1, 2] or len(others()) != 1))
    assert os.waitpid(forked, 0)[1] == 0
    assert read(write_whole(tmp_path / "c.h5")) == [0, 1, 2]


def test_the_process_finds_the_modules_that_this_one_finds(tmp_path: Path) -> None:
    """Import leaves out what is no text in sys.path, such as a Path that a notebook added."""
    lines = (
        "import sys; from pathlib import Path; sys.path.append(Path('x')); "
        "from tests.stores.test_fence import read; print(read(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", lines, write_whole(tmp_path / "a.h5")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[0, 1, 2]\n", "")


@pytest.mark.timeout(60)
def test_an_interrupted_check_says_nothing_of_the_next_file(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # behind a shell's & it is ignored
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    assert read(write_whole(tmp_path / "a.h5")) == [0, 1, 2]
    os.mkfifo(tmp_path / "endless.h5")
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path / "endless.h5")
    with pytest.raises(StoreError, match="HDF5 crashed"):
        read(write_crashing(tmp_path / "b.h5"))


@pytest.mark.timeout(60)
def test_a_file_that_takes_too_long_is_said_to(tmp_path: Path) -> None:
    assert read(write_whole(tmp_path / "a.h5")) == [0, 1, 2]
    (child,) = others()
    os.mkfifo(tmp_path / "endless.h5")
    threading.Timer(0.3, child.send_signal, (signal.SIGPROF,)).start()  # as its timer of CPU time does
    with pytest.raises(StoreError, match=r"endless\.h5: is damaged: HDF5 took too long to read it"):
        read(tmp_path / "endless.h5")
