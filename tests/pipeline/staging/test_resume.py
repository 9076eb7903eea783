"""Killed at any moment and started again, a run ends in the very store that an uninterrupted one makes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avel.pipeline.staging.extract import extract
from avel.stores.clip_check import verify_clips
from avel.stores.clip_layout import chunk_names
from avel.stores.clips import ClipStore
from avel.stores.manifest import Entry
from tests.pipeline.staging.small_clips import SMALL, contents, make_folder

ROOT = Path(__file__).parents[3]
CLIPS, KILLS, WORKERS = 40, 20, 1
MEASURED = {f"{step}_seconds" for step in ("decode", "scale", "jpeg", "audio", "write")} | {"peak_mib"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("clips"), CLIPS)


@pytest.fixture(scope="module")
def uninterrupted(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("whole") / "clips.zarr"
    assert extract(clips, store, SMALL, workers=2).staged == CLIPS
    return store


def facts(store: Path) -> list[tuple[object, ...]]:
    """The manifest without the times and memory that differ from run to run."""
    return [
        tuple(value for name, value in vars(entry).items() if name not in MEASURED)
        for entry in ClipStore.open(store).entries.values()
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_kills_change_nothing(clips: Path, uninterrupted: Path, tmp_path: Path) -> None:
    driver = [
        sys.executable,
        "-m",
        "tests.pipeline.staging.killing",
        str(clips),
        str(tmp_path),
        str(KILLS),
        "7",
    ]
    done = subprocess.run(driver, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["run"] >= KILLS
    for number in range(counted["stores"]):
        store = tmp_path / f"{number:02d}.zarr"
        assert contents(store) == contents(uninterrupted)
        assert facts(store) == facts(uninterrupted)
        assert verify_clips(ClipStore.open(store)) == ()


def test_a_kill_costs_the_clips_in_flight_only(clips: Path, tmp_path: Path) -> None:
    store = tmp_path / "clips.zarr"
    run = subprocess.Popen(_command(clips, store), cwd=ROOT, stderr=subprocess.DEVNULL)
    before = _wait_for(store, staged=5)
    run.kill()
    run.wait()
    opened = ClipStore.open(store)
    recorded = {e.video_id for e in opened.entries.values() if e.state == "staged"}
    assert {entry.video_id for entry in before} <= recorded
    on_disk = {
        name
        for row, name in enumerate(opened.video_ids)
        if all((store / chunk).exists() for chunk in chunk_names(opened.attributes, row))
    }
    assert recorded <= on_disk
    assert len(on_disk - recorded) <= WORKERS + 1  # in flight, or on its way to the manifest
    summary = extract(clips, store, SMALL, workers=2)
    assert summary.skipped == len(recorded)
    assert summary.staged == CLIPS - len(recorded)


def test_ctrl_c_ends_cleanly_and_leaves_no_process(clips: Path, tmp_path: Path) -> None:
    store = tmp_path / "clips.zarr"
    slow = [*_command(clips, store), "--size", "4096"]  # half a second a clip, so that it is still at work
    heeded = signal.signal(signal.SIGINT, signal.default_int_handler)  # behind a shell's & it is ignored
    run = subprocess.Popen(slow, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    signal.signal(signal.SIGINT, heeded)
    _wait_for(store, staged=1)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)
    assert extract(clips, store, SMALL, workers=2, overwrite=True).failed == 0


def _command(clips: Path, store: Path) -> list[str]:
    settings = ["--segments", "2", "--fps", "4", "--size", "32", "--workers", str(WORKERS)]
    return [sys.executable, "-m", "avel", "extract", str(clips), str(store), *settings]


def _wait_for(store: Path, staged: int) -> list[Entry]:
    """The staged entries, as soon as there are so many."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (store / "frames" / "zarr.json").exists() and (store / "manifest").exists():
            entries = list(_entries(store))
            if len(entries) >= staged:
                return entries
        time.sleep(0.01)
    raise AssertionError(f"{staged} clips were not staged in time")


def _entries(store: Path) -> list[Entry]:
    from avel.stores.location import locate
    from avel.stores.manifest import read_manifest

    return [entry for entry in read_manifest(locate(store)).values() if entry.state == "staged"]
