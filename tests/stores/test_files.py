"""Files are whole or absent, and one process at a time holds a folder."""

import multiprocessing
from pathlib import Path

import pytest

from avel.errors import BusyError
from avel.stores.files import atomic_path, disk_bytes, only_one, sha256_file, write_text


def test_an_error_leaves_the_old_file_and_no_partial(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail_half_way() -> None:
        with atomic_path(path) as partial:
            partial.write_text("new, but not who")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_digest_and_size(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    write_text(tmp_path / "b" / "c", "de")
    assert disk_bytes(tmp_path) == 5


def _hold(folder: Path, outcome: "multiprocessing.Queue[str]") -> None:
    try:
        with only_one(folder, "store"):
            outcome.put("held")
    except BusyError as error:
        outcome.put(str(error))


def test_a_second_process_is_told_who_is_at_work(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    outcome: multiprocessing.Queue[str] = context.Queue()
    with only_one(tmp_path, "store"):
        process = context.Process(target=_hold, args=(tmp_path, outcome))
        process.start()
        message = outcome.get(timeout=60)
        process.join()
    assert "another process (pid" in message
    assert "next:" in message
    _hold(tmp_path, outcome)
    assert outcome.get(timeout=60) == "held"
