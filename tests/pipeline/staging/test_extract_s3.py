"""A store in an object store is the one in a folder, file by file."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from avel.cli import cli
from avel.console import DONE, run
from avel.errors import BusyError
from avel.pipeline.staging.extract import extract
from avel.pipeline.staging.workers import stage_all
from avel.stores.clip_check import verify_clips
from avel.stores.clips import ClipStore
from avel.stores.inspection import inspect
from avel.stores.location import RemoteLocation, locate
from avel.stores.manifest import Entry, read_manifest
from tests.pipeline.staging.small_clips import SMALL, contents, make_clip, make_folder

CLIPS = 12


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder(tmp_path_factory.mktemp("clips"), CLIPS - 1)
    (folder / "broken.mp4").write_bytes(b"nothing")
    return folder


def remote_contents(url: str) -> dict[str, bytes]:
    location = locate(url)
    parts = ("frames", "log_mel", "waveform", "dataset", "zarr.json")
    return {n: location.read(n) or b"" for n in location.names("") if n.split("/")[0] in parts}


@pytest.mark.slow
def test_the_same_store_in_a_bucket(bucket: str, clips: Path, tmp_path: Path) -> None:
    url = f"{bucket}/ave.zarr"
    summary = extract(clips, url, SMALL, workers=2)
    assert (summary.staged, summary.failed) == (CLIPS - 1, 1)
    extract(clips, tmp_path / "ave.zarr", SMALL, workers=2)
    assert remote_contents(url) == contents(tmp_path / "ave.zarr")
    store = ClipStore.open(url)
    assert verify_clips(store) == ()
    assert store.frames("clip03", [0, 7]).shape == (2, 32, 32, 3)
    assert np.isfinite(store.log_mel("clip03")).all()
    assert store.dataset.root == str(clips)
    found = inspect(url, verify=True)
    assert (found.kind, found.whole, found.facts["staged"]) == ("store", True, CLIPS - 1)
    assert list(found.facts["failures"]) == ["broken"]
    assert found.facts["bytes"] > sum(map(len, remote_contents(url).values()))  # and the manifest's
    for place in (url, tmp_path / "ave.zarr"):
        assert run(cli, ["preview", str(place), "clip03", str(tmp_path / f"{len(str(place))}.png")]) == DONE
    sheets = [matplotlib.image.imread(sheet) for sheet in tmp_path.glob("*.png")]
    assert len(sheets) == 2
    assert np.array_equal(*sheets)
    make_clip(clips / "clip03.mp4", seed=99)
    assert extract(clips, url, SMALL, workers=1).restaged == {"source-changed": 1}


@pytest.mark.slow
def test_clips_share_the_parts_of_the_manifest(
    bucket: str, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, write = list[str](), RemoteLocation.write

    def note(location: RemoteLocation, name: str, data: bytes) -> None:
        names.append(name)
        write(location, name, data)

    monkeypatch.setattr(RemoteLocation, "write", note)
    monkeypatch.setattr("avel.pipeline.staging.extract.PARTS_SECONDS", 1000.0)
    extract(clips, f"{bucket}/parts.zarr", SMALL, workers=2)
    assert len([name for name in names if name.startswith("manifest/")]) == 4, "plan, first, others, merged"
    assert len(ClipStore.open(f"{bucket}/parts.zarr").staged) == CLIPS - 1


@pytest.mark.slow
def test_ctrl_c_loses_no_clip_that_is_done(bucket: str, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any, **more: Any) -> Iterator[list[Entry]]:
        for number, batch in enumerate(stage_all(*given, **more)):
            yield batch
            if number == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr("avel.pipeline.staging.extract.stage_all", interrupted)
    monkeypatch.setattr("avel.pipeline.staging.extract.PARTS_SECONDS", 1000.0)
    with pytest.raises(KeyboardInterrupt):
        extract(clips, f"{bucket}/interrupted.zarr", SMALL, workers=1)
    entries = ClipStore.open(f"{bucket}/interrupted.zarr").entries
    assert sum(entry.state != "pending" for entry in entries.values()) >= 4


@pytest.mark.slow
def test_a_killed_run_goes_on_and_a_living_one_is_left_alone(
    bucket: str, clips: Path, tmp_path: Path
) -> None:
    url, count = f"{bucket}/killed.zarr", 30
    for number in range(count):
        shutil.copy(clips / "clip00.mp4", tmp_path / f"{number:02d}.mp4")
    settings = ["--segments", "2", "--fps", "4", "--size", "32", "--workers", "1"]
    killed = subprocess.Popen(
        [sys.executable, "-m", "avel", "extract", str(tmp_path), url, *settings], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 90
    while not len(read_manifest(locate(url)).where(state="staged")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGSTOP)
    with pytest.raises(BusyError, match=f"process {killed.pid}"):
        extract(tmp_path, url, SMALL, workers=1)
    killed.kill()
    killed.wait()
    summary = extract(tmp_path, url, SMALL, workers=1)
    assert summary.staged + summary.skipped == count
    assert summary.skipped >= 1
    assert verify_clips(ClipStore.open(url)) == ()
