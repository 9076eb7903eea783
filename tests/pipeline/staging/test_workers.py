"""Decoding processes pass from clip to clip, and no clip is called staged before the disk has it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from avel.errors import AvelError, StoreError
from avel.pipeline.config import ExtractConfig
from avel.pipeline.staging import workers
from avel.pipeline.staging.child import ALIVE, Sign
from avel.pipeline.staging.workers import Decoders, stage_all
from avel.stores.manifest import Entry, failed, pending

CLIPS = [Entry(f"clip{row}", row) for row in range(4)]


class Staging:
    """Stands in for `Isolated`: notes which clips it had; clip 3 fails."""

    def __init__(self, *_: Any) -> None:
        self.closed = False

    def launch(self) -> None:
        pass

    def stage(self, entry: Entry) -> Entry:
        had.append(entry.row)
        return failed(entry, "no-video", "") if entry.row == 3 else replace(entry, state="staged")

    def close(self) -> None:
        self.closed = True


had: list[int] = []


@pytest.fixture
def decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decoders:
    """One decoding process that is none, over a store whose attributes nobody asks for."""
    had.clear()
    monkeypatch.setattr(workers, "Isolated", Staging)
    monkeypatch.setattr(Decoders, "_attributes", None)
    return Decoders(str(tmp_path), ExtractConfig(), "run", most=1)


def test_the_next_clip_is_decoded_while_the_disk_takes_the_last_one(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushing, disk = threading.Event(), threading.Event()

    def flush(location: Any, attributes: Any, row: int, run: str) -> None:
        if row == 0:
            flushing.set()
            assert disk.wait(30)

    monkeypatch.setattr(workers, "flush", flush)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(decoders.stage, CLIPS[0])
        assert flushing.wait(30)
        assert decoders.stage(CLIPS[1]).state == "staged"  # by the one process that there is
        assert not first.done()
        disk.set()
        assert first.result(30).write_seconds > 0
    assert had == [0, 1]


def test_a_clip_that_the_disk_does_not_take_is_not_staged(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flush(*_: Any) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(workers, "flush", flush)
    with pytest.raises(StoreError, match="full"):
        decoders.stage(CLIPS[0])
    assert decoders.stage(CLIPS[3]).state == "failed"  # nothing to flush, and the process is free again


def test_clips_that_wait_for_a_process_end_with_the_run(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    with decoders._one() as child, ThreadPoolExecutor(1) as other:
        waiting = other.submit(decoders.stage, CLIPS[2])
        decoders.close()
        with pytest.raises(AvelError, match="has ended"):
            waiting.result(30)
    assert child.closed
    assert not had


def test_signs_of_life_are_given_no_more_often_than_the_parent_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    now = 100.0
    monkeypatch.setattr("avel.pipeline.staging.child.time.monotonic", lambda: now)
    connection: Any = type("Connection", (), {"send": staticmethod(sent.append)})
    sign = Sign(connection, ALIVE)
    for step in range(100):
        now = 100.0 + step / 100  # a second of steps, 10 ms each
        sign()
    assert 15 <= len(sent) <= 20
    assert set(sent) == {ALIVE}


def test_dask_has_few_tasks_of_many_clips_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million tasks given at once take 13 GiB, and minutes before the first clip."""
    monkeypatch.setattr(workers, "Isolated", Staging)
    monkeypatch.setattr(Decoders, "_attributes", None)
    monkeypatch.setattr(workers, "flush", lambda *_: None)
    for name, value in {"WINDOW": 3, "LEAST_TASKS": 4, "TASK_CLIPS": 8}.items():
        monkeypatch.setattr(workers, name, value)
    given: list[int] = []
    real = Client.map
    monkeypatch.setattr(
        Client,
        "map",
        lambda self, task, blocks, **more: given.append(len(blocks)) or real(self, task, blocks, **more),
    )
    had.clear()
    rows = list(range(80))
    todo = pending([f"clip{row}" for row in rows], rows, ["new"] * 80, [""] * 80)
    config = ExtractConfig()
    batches = stage_all(todo, "many", str(tmp_path), config, workers=1, scheduler=None)
    done = [entry for batch in batches for entry in batch]
    assert sorted(entry.row for entry in done) == sorted(had) == rows
    assert sum(given) == 10, "tasks of 8 clips"
    assert max(given) <= 3


def test_a_task_gives_back_what_it_had_no_time_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "Isolated", Staging)
    monkeypatch.setattr(Decoders, "_attributes", None)
    monkeypatch.setattr(workers, "flush", lambda *_: None)
    for name, value in {"TASK_SECONDS": -1.0, "LEAST_TASKS": 1}.items():
        monkeypatch.setattr(workers, name, value)
    had.clear()
    rows = list(range(5))
    todo = pending([f"clip{row}" for row in rows], rows, ["new"] * 5, [""] * 5)
    config = ExtractConfig()
    batches = list(stage_all(todo, "slow", str(tmp_path), config, workers=1, scheduler=None))
    assert [len(batch) for batch in batches] == [1] * 5
    assert had == rows
