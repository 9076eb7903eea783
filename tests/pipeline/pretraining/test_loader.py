"""The loader: every clip once, the right frames, one order for one seed, errors that arrive."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avel.errors import StoreError
from avel.pipeline.pretraining.loader import ClipLoader, batches_of, random_choices
from avel.stores.clips import ClipStore
from tests.pipeline.pretraining.clip_store import GRID, make_store


@pytest.mark.parametrize(
    ("clips", "batch", "sizes"), [(8, 4, {4}), (10, 4, {5}), (7, 4, {3, 4}), (3, 128, {3})]
)
def test_an_epoch_holds_every_clip_once(clips: int, batch: int, sizes: set[int]) -> None:
    parts = batches_of(clips, batch, 0, 0)
    assert sorted(clip for part in parts for clip in part) == list(range(clips))
    assert {len(part) for part in parts} == sizes


def test_processes_share_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, module = batches_of(10, 4, 5, 2), "avel.pipeline.pretraining.loader"
    monkeypatch.setattr(f"{module}.world_size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(f"{module}.rank", lambda rank=rank: rank)
        parts.append(batches_of(10, 4, 5, 2))
    for step, clips in enumerate(whole):
        assert sorted(parts[0][step] + parts[1][step]) == sorted(clips)


def test_the_order_follows_seed_and_epoch() -> None:
    assert batches_of(20, 4, 0, 0) == batches_of(20, 4, 0, 0)
    assert batches_of(20, 4, 0, 0) != batches_of(20, 4, 0, 1)
    assert batches_of(20, 4, 0, 0) != batches_of(20, 4, 1, 0)


def test_random_frames_reach_every_frame_of_a_segment() -> None:
    chosen = np.array([random_choices(0, epoch, 3, 10, 16) for epoch in range(200)])
    assert set(chosen.ravel()) == set(range(16))
    assert len({tuple(row) for row in chosen}) == 200, "a new draw in each epoch"
    assert any(len(set(row)) > 1 for row in chosen), "segments are drawn apart"


def test_a_batch_holds_what_the_store_holds(store: ClipStore) -> None:
    loader = ClipLoader(store, store.staged, batch_size=3, seed=1)
    clips = []
    for batch in loader.epoch(2):
        for place, clip in enumerate(batch.clips):
            inside = random_choices(1, 2, clip, GRID.segments, GRID.frames_per_segment)
            wanted = [segment * GRID.frames_per_segment + frame for segment, frame in enumerate(inside)]
            expected = torch.from_numpy(store.frames(store.staged[clip], wanted)).permute(0, 3, 1, 2)
            difference = (batch.visual[place].int() - expected.int()).abs()
            assert difference.max() <= 1, "two JPEG decoders may round differently"
            assert np.array_equal(batch.audio[place], store.log_mel(store.staged[clip]))
            clips.append(clip)
    assert sorted(clips) == list(range(8))
    assert loader.steps == 3


def test_buffers_are_used_again(store: ClipStore) -> None:
    loader = ClipLoader(store, store.staged, batch_size=2)
    places = [batch.visual.data_ptr() for epoch in range(3) for batch in loader.epoch(epoch)]
    assert len(places) == 12
    assert len(set(places)) <= 4


def test_the_next_epoch_is_read_while_the_last_one_ends(
    store: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[int] = []
    original = ClipLoader._read

    def noting(self: ClipLoader, clip: int, epoch: int, *more: Any) -> list[torch.Tensor]:
        epochs.append(epoch)
        return original(self, clip, epoch, *more)

    monkeypatch.setattr(ClipLoader, "_read", noting)
    loader = ClipLoader(store, store.staged, batch_size=2, epochs=2)
    list(loader.epoch(0))
    for _ in range(1000):
        if 1 in epochs:
            break
        time.sleep(0.01)
    assert 1 in epochs
    second = [batch.visual.clone() for batch in loader.epoch(1)]
    fresh = [batch.visual.clone() for batch in ClipLoader(store, store.staged, batch_size=2).epoch(1)]
    assert all(torch.equal(a, b) for a, b in zip(second, fresh, strict=True))
    assert epochs.count(1) == 16, "eight clips, twice: none is read again"
    assert 2 not in epochs, "no third epoch was announced"


def test_raw_frames_are_read_as_they_are(tmp_path: Path) -> None:
    store = make_store(tmp_path / "raw.zarr", clips=2, frame_codec="raw")
    batch = next(ClipLoader(store, store.staged, batch_size=2).epoch(0))
    clip = batch.clips[0]
    inside = random_choices(0, 0, clip, GRID.segments, GRID.frames_per_segment)
    wanted = [segment * GRID.frames_per_segment + frame for segment, frame in enumerate(inside)]
    expected = torch.from_numpy(store.frames(store.staged[clip], wanted)).permute(0, 3, 1, 2)
    assert torch.equal(batch.visual[0], expected)


def test_the_number_of_threads_changes_nothing(store: ClipStore) -> None:
    one, four = (list_of(ClipLoader(store, store.staged, batch_size=3, workers=n)) for n in (1, 4))
    assert all(torch.equal(a, b) for a, b in zip(one, four, strict=True))


def list_of(loader: ClipLoader) -> list[torch.Tensor]:
    return [batch.visual.clone() for batch in loader.epoch(0)]


def test_an_error_of_a_reader_reaches_the_caller(store: ClipStore) -> None:
    class Damaged:
        grid, attributes = store.grid, store.attributes
        frames = staticmethod(store.frames)
        log_mel = staticmethod(store.log_mel)

        @staticmethod
        def jpegs(video_id: str, frames: list[int]) -> list[bytes]:
            if video_id == "c5":
                raise StoreError("c5 is damaged")
            return store.jpegs(video_id, frames)

    with pytest.raises(StoreError, match="c5"):
        list(ClipLoader(Damaged(), store.staged, batch_size=2).epoch(0))


def test_a_reader_that_stops_halfway_waits_for_no_batch_that_nobody_wants(
    store: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    original = ClipLoader._read

    def slow(self: ClipLoader, clip: int, *more: Any) -> list[torch.Tensor]:
        read.append(clip)
        if len(read) > 2:
            time.sleep(0.2)
        return original(self, clip, *more)

    monkeypatch.setattr(ClipLoader, "_read", slow)
    epoch = ClipLoader(store, store.staged, batch_size=2, workers=1).epoch(0)
    next(epoch)
    epoch.close()
    assert len(read) < 6, "three batches of two clips were asked for"
