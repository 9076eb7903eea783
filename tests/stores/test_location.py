"""Folders and object stores behave alike; two runs never hold one of them at once."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from avel.errors import BusyError, ConfigError, MissingPathError, StoreError
from avel.stores import lease
from avel.stores import location as module
from avel.stores.clip_layout import read_attributes
from avel.stores.clips import ClipStore
from avel.stores.lease import boot_seconds
from avel.stores.location import (
    RETRY_VARIABLE,
    LocalLocation,
    Location,
    RemoteLocation,
    locate,
    retry_seconds,
)


@pytest.fixture(params=["folder", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "folder":
        return locate(tmp_path / "store")
    bucket: str = request.getfixturevalue("bucket")
    return locate(f"{bucket}/{tmp_path.name}")


def test_files_come_back(location: Location) -> None:
    assert location.read("a/b") is None
    assert location.names("a") == []
    assert location.top_names() == set()
    location.write("a/b", b"one")
    location.write("a/b", b"two")
    location.write("a/c/d", b"")
    location.write("ab", b"beside")
    assert location.read("a/b") == b"two"
    assert location.read("a/c/d") == b""
    assert location.names("a") == ["a/b", "a/c/d"]
    assert location.top_names() == {"a", "ab"}
    assert location.bytes() == 9
    location.sync(["a/b"])
    location.remove_partials()
    location.delete(["a/b", "never/there"])
    assert location.names("") == ["a/c/d", "ab"]


def test_pieces_come_back_by_what_the_end_of_the_file_says(location: Location) -> None:
    assert location.read_piece("deep/a/file", 2, lambda *_: (0, 1)) is None
    location.write_pieces("deep/a/file", iter([b"first", b"second", b"<>"]))
    asked: list[tuple[bytes, int]] = []

    def place(tail: bytes, size: int) -> tuple[int, int] | None:
        asked.append((tail, size))
        return (5, 6) if len(asked) == 1 else None

    assert location.read_piece("deep/a/file", 2, place) == b"second"
    assert location.read_piece("deep/a/file", 2, place) is None
    assert location.read_piece("deep/a/file", 99, place) is None
    assert asked == [(b"<>", 13), (b"<>", 13), (b"firstsecond<>", 13)]


def test_a_piece_is_of_the_file_whose_end_was_read(location: Location) -> None:
    """A file that is replaced in between is read as it was, or once more."""
    location.write("file", b"one 1")
    whole = {b"1": b"one", b"2": b"two"}
    given: list[bytes] = []

    def place(tail: bytes, _: int) -> tuple[int, int]:
        given.append(tail)
        location.write("file", b"two 2")
        return 0, 3

    assert location.read_piece("file", 1, place) == whole[given[-1]]
    assert location.read("file") == b"two 2"


@pytest.mark.slow
def test_a_large_object_is_put_in_one_request(bucket: str) -> None:
    RemoteLocation(bucket).write("large", bytes(12 << 20))
    store = pytest.importorskip("obstore.store").from_url(bucket, client_options={"allow_http": True})
    assert "-" not in store.head("large")["e_tag"], "that of an object put in parts ends with their number"


def test_folders_without_files_are_removed(tmp_path: Path) -> None:
    location = locate(tmp_path)
    (tmp_path / "a/b/c").mkdir(parents=True)
    location.write("d/e/file", b"")
    location.prune(["a/b", "d", "nowhere"])
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["a", "d", "e", "file"]


def test_a_url_of_no_object_store_is_a_wrong_value() -> None:
    with pytest.raises(ConfigError, match=r"ftp://host/store: .*recognise"):
        locate("ftp://host/store").read("zarr.json")


def test_a_store_that_does_not_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "c"}
    keys |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", RETRY_VARIABLE: "0"}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match="s3://bucket/store: cannot be read"):
        read_attributes(locate("s3://bucket/store"))


def test_a_bucket_without_a_store_holds_none(bucket: str) -> None:
    with pytest.raises(MissingPathError, match="nowhere: no clip store") as missing:
        ClipStore.open(f"{bucket}/nowhere")
    assert missing.value.hint == f"avel extract DATASET {bucket}/nowhere"


class Flaky:
    """In the place of an obstore store that does not answer the first two calls."""

    def __init__(self) -> None:
        self.calls, self.written = 0, b""

    def put(self, name: str, data: bytes, *, use_multipart: bool) -> None:
        assert not use_multipart
        from obstore.exceptions import GenericError

        self.calls += 1
        if self.calls <= 2:
            raise GenericError("connection refused\nand pages more")
        self.written = data


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Flaky:
    pytest.importorskip("obstore")
    store = Flaky()
    monkeypatch.setattr(RemoteLocation, "_open", lambda self, **options: store)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    return store


def test_a_store_that_does_not_answer_is_asked_again_as_long_as_the_user_says(
    flaky: Flaky, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(RETRY_VARIABLE, "500")
    locate("s3://bucket/store").write("a", b"data")
    assert (flaky.calls, flaky.written) == (3, b"data")
    said = capsys.readouterr().err
    assert said == "s3://bucket/store does not answer, trying for 500 s: connection refused\n"


def test_a_store_is_asked_once_where_the_user_says_so(flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RETRY_VARIABLE, "0")
    with pytest.raises(RemoteLocation("s3://bucket/store").errors, match="refused"):
        locate("s3://bucket/store").write("a", b"data")
    assert flaky.calls == 1


@pytest.mark.parametrize("text", ["soon", "-1", "601", "nan"])
def test_a_time_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RETRY_VARIABLE, text)
    with pytest.raises(ConfigError, match=f"{RETRY_VARIABLE}={text}: not 0 to 600 seconds"):
        retry_seconds()


def test_one_at_a_time(location: Location) -> None:
    with location.lock(), pytest.raises(BusyError, match="at work on"), location.lock():
        pass
    with location.lock():
        pass


def test_what_a_killed_run_holds_is_taken_over(bucket: str) -> None:
    location = RemoteLocation(f"{bucket}/killed")
    killed = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine = {
        "host": socket.gethostname(),
        "pids": lease._pid_space(),
        "pid": killed.pid,
        "seconds": time.time(),
    }
    location.write(".lock", json.dumps(mine).encode())
    with pytest.raises(BusyError, match=f"process {killed.pid}"), location.lock():
        pass
    killed.kill()
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    with location.lock():
        assert json.loads(location.read(".lock") or b"")["pid"] == os.getpid()
    killed.communicate()
    later = mine | {"pid": os.getpid(), "seconds": psutil.Process().create_time() - 10}
    location.write(".lock", json.dumps(later).encode())
    with location.lock():  # its id is another process's now
        pass


def test_a_lock_that_is_not_renewed_while_it_is_watched_lapses(
    bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the clocks say: one is read here alone."""
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.05)
    location = RemoteLocation(f"{bucket}/watched")
    other = {"host": "elsewhere", "pid": 1, "pids": "of another machine", "seconds": 10.0**12}
    location.write(".lock", json.dumps(other).encode())
    monkeypatch.setattr(lease, "LAPSE_SECONDS", 0.5)
    with location.lock():
        assert json.loads(location.read(".lock") or b"")["pid"] == os.getpid()
    said = f"{bucket}/watched: locked by process 1 on elsewhere; watching for 0 s whether it is alive\n"
    assert capsys.readouterr().err == said


def test_a_lock_that_is_renewed_while_it_is_watched_is_left_alone(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = RemoteLocation(f"{bucket}/renewed")
    other = {"host": "elsewhere", "pid": 1, "seconds": 0.0}
    location.write(".lock", json.dumps(other).encode())
    renewed = json.dumps(other | {"seconds": 1.0}).encode()
    monkeypatch.setattr(lease.time, "sleep", lambda _: location.write(".lock", renewed))
    with pytest.raises(BusyError, match="process 1 on elsewhere is at work on it"), location.lock():
        pass
    assert location.read(".lock") == renewed
    location.write(".lock", json.dumps(other).encode())
    monkeypatch.setattr(lease.time, "sleep", lambda _: location.delete([".lock"]))
    with location.lock():  # the other has given it back
        pass


def test_a_lease_is_renewed(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    location = RemoteLocation(f"{bucket}/renewed")
    with location.lock():
        first, deadline = location.read(".lock"), time.monotonic() + 10
        while location.read(".lock") == first and time.monotonic() < deadline:
            time.sleep(0.05)
        assert location.read(".lock") != first
    assert location.read(".lock") is None


def test_a_lease_that_was_taken_over_is_noticed_and_left_alone(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    location = RemoteLocation(f"{bucket}/taken")
    other = b'{"host": "elsewhere", "pid": 7}'
    with location.lock() as check_lock:
        check_lock()
        location.write(".lock", other)
        with pytest.raises(BusyError, match="process 7 on elsewhere took the store over"):
            _until_it_raises(check_lock)
    assert location.read(".lock") == other


def test_a_run_that_slept_makes_sure_of_its_lease_before_it_writes(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = RemoteLocation(f"{bucket}/slept")
    with location.lock() as check_lock:
        first = location.read(".lock")
        check_lock()
        assert location.read(".lock") == first
        monkeypatch.setattr(lease, "boot_seconds", lambda: boot_seconds() + 60)
        check_lock()
        assert location.read(".lock") != first
        location.write(".lock", b'{"host": "elsewhere", "pid": 7}')
        check_lock()  # it was renewed a moment ago
        monkeypatch.setattr(lease, "boot_seconds", lambda: boot_seconds() + 600)
        with pytest.raises(BusyError, match="process 7 on elsewhere took the store over"):
            check_lock()


def test_a_lease_that_was_taken_over_and_given_back_is_lost(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    location = RemoteLocation(f"{bucket}/returned")
    with location.lock() as check_lock:
        location.delete([".lock"])
        with pytest.raises(BusyError, match="took the store over"):
            _until_it_raises(check_lock)
    assert location.read(".lock") is None


def test_a_renewal_whose_answer_was_lost_is_no_loss(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    location = RemoteLocation(f"{bucket}/answer")
    with location.lock() as check_lock:
        mine = json.loads(location.read(".lock") or b"")
        location.write(".lock", json.dumps(mine | {"seconds": 0}).encode())  # a new version, of this very run
        deadline = time.monotonic() + 10
        while json.loads(location.read(".lock") or b"")["seconds"] == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert json.loads(location.read(".lock") or b"")["seconds"] > 0
        check_lock()


def _until_it_raises(check_lock: Callable[[], None]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        check_lock()
        time.sleep(0.05)


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("-store") == LocalLocation(str(tmp_path / "-store"))
