"""Files are whole or absent, and one process at a time holds a folder."""

import errno
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from avel.errors import BusyError, ConfigError, WriteError
from avel.stores.files import (
    as_write_error,
    atomic_path,
    check_own,
    disk_bytes,
    file_at,
    only_one,
    partial_folder,
    path_text,
    process_runs,
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


HOLD = """
import sys, time
from pathlib import Path
from avel.stores.files import only_one
with only_one(Path(sys.argv[1]), "store"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = rf"another process \(pid {holder.pid}\)"
        for _ in range(2):  # the first one to be refused leaves the holder's name in the file
            with pytest.raises(BusyError, match=message), only_one(tmp_path, "run"):
                pass
    finally:
        holder.kill()
        holder.wait()
    with only_one(tmp_path, "run"):
        assert (tmp_path / ".lock").exists()


FORK = """
import os, signal, sys
from pathlib import Path
from avel.stores.files import only_one
with only_one(Path(sys.argv[1]), "store"):
    if os.fork() == 0:
        print("forked", flush=True)
        sys.stdin.read()  # until the test closes its end
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORK, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "forked\n"
        with pytest.raises(BusyError), only_one(tmp_path, "run"):
            pass
        parent.kill()
        parent.wait()
        with only_one(tmp_path, "run"):
            pass


def test_an_error_under_the_lock_goes_through_and_lets_go(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), only_one(tmp_path, "run"):
            _ = 1 // 0


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


def test_a_path_that_is_not_utf8_goes_into_text_and_back(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9 \xff.mp4")
    path.touch()
    text = path_text(path)
    assert text == f"{tmp_path}/caf\\xe9 \\xff.mp4"
    assert text.encode()
    assert file_at(text) == path
    literal = tmp_path / "caf\\xe9 \\xff.mp4"
    literal.touch()
    assert file_at(text) == literal  # of that very name
    assert file_at(path_text(tmp_path / "düne.mp4")) == tmp_path / "düne.mp4"


def test_the_next_step_fits_what_the_place_lacks(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a", tmp_path / ("a" * 250)):
        with pytest.raises(WriteError) as refused:
            write_text(path, "")
        assert refused.value.hint == "choose another place, or check its access rights"
    with pytest.raises(WriteError) as refused, as_write_error(tmp_path):
        raise OSError(errno.ENOSPC, "")
    assert refused.value.hint.startswith("free some space")


def test_files_that_go_while_they_are_counted_take_no_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kept", "gone"):
        write_text(tmp_path / "folder" / name, "abc")
    walk = os.walk

    def going(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in walk(top):
            (tmp_path / "folder" / "gone").unlink(missing_ok=True)
            yield found

    monkeypatch.setattr(os, "walk", going)
    assert disk_bytes(tmp_path / "folder") == 3


def test_a_zombie_does_not_run() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    assert not process_runs(child.pid)
    assert process_runs(os.getpid())
    child.wait()
    assert not process_runs(child.pid)
