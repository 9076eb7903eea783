"""Reading goes on while a batch is computed: in order, ahead of what is asked for, and never far ahead."""

import io
import threading
import time
import weakref
from typing import Any

import pytest

from avel.ahead import MOST_THREADS, read_ahead, reading_threads, usable_cores

AHEAD = 2
V1 = "/sys/fs/cgroup/cpu,cpuacct"
"""Folder of a container's quota in cgroup v1."""


def test_results_come_in_order_however_long_each_takes() -> None:
    def read(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0)
        return item * item

    assert list(read_ahead(read, range(20), threads=4, ahead=AHEAD)) == [item * item for item in range(20)]


@pytest.mark.parametrize("threads", [1, 3])
def test_reading_begins_before_it_is_asked_for_and_stops_at_its_lead(threads: int) -> None:
    begun: list[int] = []
    third = threading.Event()

    def read(item: int) -> int:
        begun.append(item)
        if item == 2:
            third.set()
        return item

    results = read_ahead(read, range(50), threads=threads, ahead=AHEAD)
    assert begun == []
    assert next(results) == 0
    assert third.wait(10), "the third item is read although only the first was asked for"
    time.sleep(0.1)
    lead = AHEAD + threads
    assert len(begun) == lead, "no more wait than there may be"
    assert next(results) == 1
    results.close()
    assert len(begun) <= lead + 1


def test_an_item_is_read_while_the_one_before_is_computed() -> None:
    begun = [threading.Event() for _ in range(6)]

    def read(item: int) -> int:
        begun[item].set()
        return item

    for item in read_ahead(read, range(6), ahead=AHEAD):
        assert begun[min(item + 1, 5)].wait(10), f"{item + 1} is not read before {item} has been computed"


def test_an_error_arrives_in_its_place() -> None:
    def read(item: int) -> int:
        if item == 3:
            raise OSError("damaged")
        return item

    results = read_ahead(read, range(10), threads=2, ahead=AHEAD)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="damaged"):
        next(results)


@pytest.mark.parametrize(
    ("asked", "cores", "threads"), [(None, 4, 4), (None, 64, MOST_THREADS), (3, 64, 3), (40, 2, 40)]
)
def test_as_many_threads_read_as_there_are_cores(
    asked: int | None, cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avel.ahead.usable_cores", lambda: cores)
    assert reading_threads(asked) == threads


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"/proc/self/cgroup": "0::/job\n", "/sys/fs/cgroup/job/cpu.max": "max 100000\n"}, 4),
        ({"/proc/self/cgroup": "0::/job\n", "/sys/fs/cgroup/job/cpu.max": "200000 100000\n"}, 2),
        ({f"{V1}/cpu.cfs_quota_us": "150000\n", f"{V1}/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_a_containers_quota_of_time_limits_the_cores(
    files: dict[str, str], cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_any = open

    def open_container(path: Any, *mode: Any, **options: Any) -> Any:
        if not str(path).startswith(("/proc/self/cgroup", "/sys/fs/cgroup")):
            return open_any(path, *mode, **options)
        if path not in files:
            raise FileNotFoundError(path)
        return io.StringIO(files[path])

    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(4)))
    monkeypatch.setattr("os.process_cpu_count", lambda: 4, raising=False)
    monkeypatch.setattr("psutil.Process.cpu_affinity", lambda process: list(range(4)))
    monkeypatch.setattr("builtins.open", open_container)
    assert usable_cores() == cores


@pytest.mark.parametrize("threads", [1, 3])
def test_what_was_handed_out_is_not_held(threads: int) -> None:
    class Block:
        """Something large."""

    handed_out = []
    for block in read_ahead(lambda item: Block(), range(8), threads=threads, ahead=AHEAD):
        handed_out.append(weakref.ref(block))
        assert [reference() for reference in handed_out[:-2]] == [None] * len(handed_out[:-2])
        del block
    assert [reference() for reference in handed_out] == [None] * 8
