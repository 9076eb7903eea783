"""A dask cluster of separate processes: shared work, and a worker that is killed in the middle of it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from distributed import KilledWorker

from avel.errors import ConfigError
from avel.pipeline.staging.cluster import SchedulerLostError
from avel.pipeline.staging.extract import extract
from avel.pipeline.staging.isolate import LostChild, fail_lost_clip
from avel.stores.clip_check import verify_clips
from avel.stores.clip_layout import RUN_TOKEN
from avel.stores.clips import ClipStore
from avel.stores.location import locate
from avel.stores.manifest import Entry, ManifestWriter, read_manifest
from tests.pipeline.staging.small_clips import SMALL, contents, make_clip, make_folder

FAULTS = Path(__file__).parent / "faults"
CLIPS = 40
START_SECONDS = 90


Cluster = tuple[str, list[subprocess.Popen[bytes]]]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that start after this have the faults that clips ask for."""
    monkeypatch.setenv("PYTHONPATH", str(FAULTS), prepend=os.pathsep)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler's address, and its process before those of two workers, of one thread or `param` each."""
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    plain = ["--scheduler-file", str(file), "--no-dashboard"]
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *plain]
    processes = [subprocess.Popen(scheduler, **quiet)]
    deadline = time.monotonic() + START_SECONDS
    while not (file.exists() and file.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    threads = getattr(request, "param", "1")
    worker = [*dask, "worker", "--nthreads", threads, "--no-nanny", *plain]
    processes += [subprocess.Popen(worker, **quiet) for _ in range(2)]
    try:
        yield json.loads(file.read_text())["address"], processes
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
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, (_, *workers) = cluster
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
    assert verify_clips(ClipStore.open(store)) == ()
    extract(clips, tmp_path / "local.zarr", SMALL, workers=2)
    assert contents(store) == contents(tmp_path / "local.zarr")
    assert "dask dashboard: http://" in capsys.readouterr().err
    assert not _children_of(workers[1].pid)  # the other worker's decoder ended with the run


@pytest.mark.slow
@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize("cluster", ["2"], indirect=True)  # the second does what is left
def test_a_killed_runs_worker_leaves_alone_what_the_next_run_staged(cluster: Cluster, tmp_path: Path) -> None:
    address = cluster[0]
    clips, store = make_folder(tmp_path / "clips", 2), tmp_path / "clips.zarr"
    make_clip(clips / "stuck-once.mp4", seed=3)
    _wait_for_workers(address, 2)
    settings = ["--segments", "2", "--fps", "4", "--size", "32", "--time-limit", "15", "--scheduler", address]
    killed = subprocess.Popen(
        [sys.executable, "-m", "avel", "-q", "extract", str(clips), str(store), *settings]
    )
    _wait_until((clips / "stuck-once.stuck").exists)
    stuck = time.monotonic()
    killed.kill()
    killed.wait()
    summary = extract(clips, store, SMALL, time_limit=15, scheduler=address)
    assert summary.staged + summary.skipped == 3
    left = stuck + 15 - time.monotonic()
    assert left > 0
    time.sleep(left + 2)  # the killed run's worker gives its clip up
    assert verify_clips(ClipStore.open(store)) == ()


@pytest.mark.slow
def test_a_scheduler_that_dies_ends_the_run_with_what_to_do(cluster: Cluster, tmp_path: Path) -> None:
    address, (scheduler, *_) = cluster
    clips, store = make_folder(tmp_path / "clips", CLIPS), tmp_path / "clips.zarr"
    _wait_for_workers(address, 2)
    assert extract(clips, store, SMALL, scheduler=address, dry_run=True).forecast

    def kill() -> None:
        while not staged(store):
            time.sleep(0.01)
        scheduler.kill()

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(SchedulerLostError, match=f"{address} is gone") as lost:
        extract(clips, store, SMALL, scheduler=address)
    assert "the same command" in lost.value.hint
    summary = extract(clips, store, SMALL, workers=2)
    assert summary.skipped >= 1
    assert summary.skipped + summary.staged == CLIPS
    assert verify_clips(ClipStore.open(store)) == ()


def test_a_scheduler_without_workers_is_named(
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, (_, *workers) = cluster
    _wait_for_workers(address, 2)
    for worker in workers:
        worker.kill()
    clips = make_folder(tmp_path / "clips", 1)
    monkeypatch.setattr("avel.pipeline.staging.cluster.WORKER_SECONDS", 1)
    late = [
        sys.executable,
        "-m",
        "dask",
        "worker",
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
        address,
    ]
    started: list[subprocess.Popen[bytes]] = []
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    starter = threading.Timer(4, lambda: started.append(subprocess.Popen(late, **quiet)))
    starter.start()
    try:
        assert extract(clips, tmp_path / "s.zarr", SMALL, scheduler=address).staged == 1
    finally:
        starter.join()
        started[0].kill()
        started[0].wait()
    assert f"{address} has no worker yet" in capsys.readouterr().err


def test_a_clip_that_takes_down_worker_after_worker_is_on_record_as_a_whole(tmp_path: Path) -> None:
    clips, store = make_folder(tmp_path / "clips", 1), tmp_path / "s.zarr"
    extract(clips, store, SMALL, workers=1)
    locate(store).write(RUN_TOKEN, b"a run that goes on")

    lost = LostChild("crashed", str(KilledWorker("stage-1", SimpleNamespace(address="tcp://127.0.0.1:1"), 3)))
    pending = Entry("clip00", 0, source_path=str(clips / "clip00.mp4"))
    fail_lost_clip(pending, lost, str(store), SMALL, "an earlier run")
    assert verify_clips(ClipStore.open(store)) == ()  # what this run staged is not another's to erase
    entry = fail_lost_clip(pending, lost, str(store), SMALL, "a run that goes on")
    assert (entry.state, entry.reason, entry.settings) == ("failed", "crashed", ClipStore.open(store).digest)
    assert entry.source_bytes == (clips / "clip00.mp4").stat().st_size
    ManifestWriter(locate(store)).append([entry])
    assert verify_clips(ClipStore.open(store)) == ()  # its chunks are gone
    assert extract(clips, store, SMALL, workers=1).failed == 1  # left alone, as any clip that failed
    assert extract(clips, store, SMALL, workers=1, retry_failed=True).restaged == {"retry-failed": 1}


def test_no_scheduler_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avel.pipeline.staging.cluster.CONNECT_SECONDS", 1)
    clips = make_folder(tmp_path / "clips", 1)
    with pytest.raises(ConfigError, match="--scheduler tcp://"):
        extract(clips, tmp_path / "s.zarr", SMALL, scheduler="tcp://127.0.0.1:9")


def _wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, timeout=START_SECONDS) as client:
        client.wait_for_workers(count, timeout=START_SECONDS)


def _wait_until(came: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not came() and time.monotonic() < deadline:
        time.sleep(0.05)


def _children_of(pid: int) -> str:
    """Ids of the processes that its threads started."""
    return "".join(file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children"))
