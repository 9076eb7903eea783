"""The local cluster begins with nothing that is not needed, and ends with nothing left behind."""

import gc
import logging
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from distributed import CancelledError
from distributed.deploy.spec import SpecCluster
from tornado import gen, locks

from avel.config import resolve
from avel.pipeline.config import ExtractConfig
from avel.pipeline.staging.cluster import (
    MixedVersionsError,
    SchedulerLostError,
    Versions,
    cluster,
    dashboard,
    quiet,
    versions,
    watching,
)
from avel.pipeline.staging.extract import extract
from avel.stores.clip_check import verify_clips
from avel.stores.clips import ClipStore
from tests.pipeline.staging.small_clips import SMALL, make_clip, make_folder

CYCLES = 3
BATCH_SECONDS = 0.01


def test_a_closed_cluster_leaves_no_time_out_unheard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """dask's senders wait up to 10 ms for more to send, and some still do when the cluster has closed.

    If the loop ends under them, Python says "Future exception was never retrieved", whenever it next collects
    garbage. Here one such sender starts at the very end of each closing.
    """
    arrived: list[float] = []
    close = SpecCluster._close

    @gen.coroutine
    def sender() -> Generator[Any, Any, None]:
        try:
            yield locks.Event().wait(time.time() + BATCH_SECONDS)
        except gen.TimeoutError:
            arrived.append(time.time())

    async def close_while_sending(self: SpecCluster) -> None:
        await close(self)
        sender()

    monkeypatch.setattr(SpecCluster, "_close", close_while_sending)
    for _ in range(CYCLES):
        with cluster(2, None) as client:
            assert sum(client.gather(client.map(abs, range(20)))) == sum(range(20))
    assert len(arrived) == CYCLES
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_process_that_forks_after_a_run_can_run_again_in_the_fork(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from avel.pipeline.staging.extract import extract\n"
        "from tests.pipeline.staging.small_clips import SMALL\n"
        "extract(sys.argv[1], sys.argv[2], SMALL, workers=1)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    signal.alarm(100)\n"
        "    extract(sys.argv[1], sys.argv[3], SMALL, workers=1)\n"
        "    os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    paths = [make_folder(tmp_path / "clips", 1), tmp_path / "before.zarr", tmp_path / "in-the-fork.zarr"]
    assert subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=False).returncode == 0
    assert ClipStore.open(paths[2]).staged == ("clip00",)


def test_the_dashboard_is_there_when_it_is_asked_for() -> None:
    with cluster(1, None) as client:
        for page in ("status", "tasks", "individual-workers"):
            with urlopen(dashboard(client).replace("status", page), timeout=60) as answer:
                assert answer.status == 200
                assert b"bokeh" in answer.read()


def test_the_dashboards_pages_are_loaded_for_nobody() -> None:
    code = (
        "import sys\n"
        "from avel.pipeline.staging.cluster import cluster\n"
        "with cluster(1, None) as client:\n"
        "    client.submit(abs, -1).result()\n"
        "print('bokeh' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_server_of_a_local_cluster_listens_on_loopback_only() -> None:
    before = {(each.laddr.ip, each.laddr.port) for each in listening()}
    with cluster(1, None):
        opened = {(each.laddr.ip, each.laddr.port) for each in listening()} - before
        assert opened
        assert {address for address, _ in opened} == {"127.0.0.1"}


def listening() -> list[Any]:
    """The sockets of this process that wait for connections."""
    return [each for each in psutil.Process().net_connections("tcp") if each.status == psutil.CONN_LISTEN]


def test_dask_logs_nothing_within_a_run(caplog: pytest.LogCaptureFixture) -> None:
    import distributed  # noqa: F401 - sets a level of their own for some loggers

    names = ["distributed", "distributed.client", "distributed.worker", "tornado.application", "asyncio"]
    for name in names:
        logging.getLogger(name).addHandler(caplog.handler)
    before = [logging.getLogger(name).level for name in names]
    try:
        with quiet():
            for name in names:
                logging.getLogger(name).critical("within")
        logging.getLogger("distributed.client").error("after")
    finally:
        for name in names:
            logging.getLogger(name).removeHandler(caplog.handler)
    assert set(caplog.messages) == {"after"}
    assert [logging.getLogger(name).level for name in names] == before


OTHER = Versions("0.0.1", "1.0", "2.0")


def test_workers_of_other_versions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = make_folder(tmp_path / "clips", 2)
    monkeypatch.setattr(
        "avel.pipeline.staging.workers.versions", lambda: OTHER
    )  # of the run, not its workers
    with pytest.raises(MixedVersionsError) as refused:
        extract(clips, tmp_path / "s.zarr", SMALL, workers=1)
    assert str(versions()) in refused.value.message
    assert "avel 0.0.1, PyAV 1.0, FFmpeg 2.0" in refused.value.message


def staged_with(store: Path) -> list[str]:
    return [line for line in (store / "config.toml").read_text().splitlines() if "staged with" in line]


def test_clips_of_other_versions_are_not_mixed_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, store = make_folder(tmp_path / "clips", 1), tmp_path / "s.zarr"
    extract(clips, store, SMALL, workers=1)
    here = versions()
    monkeypatch.setattr("avel.pipeline.staging.extract.versions", lambda: OTHER)
    extract(clips, store, SMALL, workers=1)  # nothing to stage
    assert staged_with(store) == [f"# staged with {here}"]
    make_clip(clips / "new.mp4", seed=5)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    for dry_run in (True, False):
        with pytest.raises(
            MixedVersionsError, match=rf"s\.zarr: clips of it were staged with {here}"
        ) as refused:
            extract(clips, store, SMALL, workers=1, dry_run=dry_run)
        assert f"this run has {OTHER}" in refused.value.message
        assert "--mixed-versions goes on" in refused.value.hint
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    extract(clips, store, SMALL, workers=1, mixed_versions=True)
    assert staged_with(store) == [f"# staged with {here}", f"# staged with {OTHER}"]
    assert resolve(ExtractConfig, "extract", file=store / "config.toml") == SMALL
    assert verify_clips(ClipStore.open(store)) == ()


def test_a_store_whose_clips_are_all_staged_again_has_one_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, store = make_folder(tmp_path / "clips", 1), tmp_path / "s.zarr"
    extract(clips, store, SMALL, workers=1)
    monkeypatch.setattr("avel.pipeline.staging.extract.versions", lambda: OTHER)
    extract(clips, store, SMALL, workers=1, overwrite=True)
    assert staged_with(store) == [f"# staged with {OTHER}"]


def test_a_loss_about_which_dask_says_nothing_is_named() -> None:
    client = SimpleNamespace(scheduler=SimpleNamespace(address="tcp://there:8786"))
    with (
        pytest.raises(SchedulerLostError, match="tcp://there:8786 is gone: CancelledError"),
        watching(client),
    ):
        raise CancelledError
