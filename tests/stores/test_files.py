"""Files are whole or absent, and one process at a time holds a folder."""

import multiprocessing
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from avel.errors import BusyError, ConfigError
from avel.stores.files import (
    atomic_path,
    check_own,
    disk_bytes,
    only_one,
    partial_folder,
    sha256_file,
    write_text,
)


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


def test_what_a_killed_writer_left_goes_when_the_file_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.[1].txt"
    code = """
import sys, time
from pathlib import Path
from avel.stores.files import atomic_path
with atomic_path(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    print(partial, flush=True)
    time.sleep(600)
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    left, in_work = (Path(writer.stdout.readline().strip()) for writer in writers if writer.stdout)
    try:
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        elsewhere = tmp_path / f".{path.name}.not-{socket.gethostname()}.{writers[0].pid}.partial"
        other_file = tmp_path / f".b.txt.{socket.gethostname()}.{writers[0].pid}.partial"
        elsewhere.touch()
        other_file.touch()
        assert left.exists()
        write_text(path, "whole")
        assert set(tmp_path.iterdir()) == {path, in_work, elsewhere, other_file}
        assert path.read_text() == "whole"
    finally:
        writers[1].kill()
        writers[1].wait()


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


def test_a_file_without_our_sign_beside_it_is_not_ours(tmp_path: Path) -> None:
    check_own(tmp_path / "absent", "heads", ["demo.png"])
    (tmp_path / "demo.png").touch()
    with pytest.raises(ConfigError, match=r"demo\.png: was not made by avel, and would be overwritten"):
        check_own(tmp_path, "heads", ["other.png", "demo.png"])
    (tmp_path / "heads").mkdir()
    check_own(tmp_path, "heads", ["demo.png"])


@pytest.mark.parametrize("kill", [True, False])
def test_a_partial_folder_goes_also_after_a_kill(tmp_path: Path, kill: bool) -> None:
    code = """
import os, sys
from pathlib import Path
from avel.stores.files import partial_folder
with partial_folder(Path(sys.argv[1])) as partial:
    (partial / "data").mkdir()
    (partial / "data" / "half").touch()
    print(partial, flush=True)
    if sys.argv[2] == "True":
        os.kill(os.getpid(), 9)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "page"), str(kill)]
    left = Path(subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip())
    assert left.parent == tmp_path
    assert left.exists() == kill
    with partial_folder(tmp_path / "page") as partial:
        assert not left.exists()
        assert list(tmp_path.iterdir()) == [partial]
    assert not list(tmp_path.iterdir())
