"""A dask cluster of separate processes: shared work, and a worker that is killed in the middle of it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from avel.errors import ConfigError
from avel.pipeline.staging.extract import extract
from avel.stores.clips import ClipStore
from avel.stores.location import locate
from avel.stores.manifest import read_manifest
from tests.pipeline.staging.small_clips import SMALL, contents, make_folder

CLIPS = 40
START_SECONDS = 90


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler's address, and its two workers with one thread each."""
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    plain = ["--scheduler-file", str(file), "--no-dashboard"]
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *plain]
    processes = [subprocess.Popen(scheduler, **quiet)]
    deadline = time.monotonic() + START_SECONDS
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = [*dask, "worker", "--nthreads", "1", "--no-nanny", *plain]
    processes += [subprocess.Popen(worker, **quiet) for _ in range(2)]
    try:
        yield json.loads(file.read_text())["address"], processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def staged(store: Path) -> int:
    """How many clips the manifest calls staged."""
    if not (store / "manifest").exists():
        return 0
    return sum(entry.state == "staged" for entry in read_manifest(locate(store)).values())


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, workers = cluster
    clips, store = make_folder(tmp_path / "clips", CLIPS), tmp_path / "clips.zarr"
    _wait_for_workers(address, 2)
    killed_at: list[int] = []

    def kill() -> None:
        while staged(store) < CLIPS // 5:
            time.sleep(0.01)
        os.kill(workers[0].pid, signal.SIGKILL)
        killed_at.append(staged(store))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    summary = extract(clips, store, SMALL, scheduler=address)
    killer.join()
    assert killed_at[0] < CLIPS
    assert (summary.staged, summary.failed) == (CLIPS, 0)
    assert ClipStore.open(store).verify() == ()
    extract(clips, tmp_path / "local.zarr", SMALL, workers=2)
    assert contents(store) == contents(tmp_path / "local.zarr")
    assert "dask dashboard: http://" in capsys.readouterr().err
    assert not _children_of(workers[1].pid)  # the other worker's decoder ended with the run


def test_no_scheduler_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avel.pipeline.staging.cluster.CONNECT_SECONDS", 1)
    clips = make_folder(tmp_path / "clips", 1)
    with pytest.raises(ConfigError, match="--scheduler tcp://"):
        extract(clips, tmp_path / "s.zarr", SMALL, scheduler="tcp://127.0.0.1:9")


def _wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, timeout=START_SECONDS) as client:
        client.wait_for_workers(count, timeout=START_SECONDS)


def _children_of(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()
