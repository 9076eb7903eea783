"""Staging one clip: the store holds what the reader saw, in chunks, at any length."""

import os
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest

from avel.pipeline.config import ExtractConfig
from avel.pipeline.media.log_mel import log_mel
from avel.pipeline.media.reading import open_media
from avel.pipeline.staging.plan import RestageOptions, make_plan
from avel.pipeline.staging.stage import PIECE_BYTES, Stager, Stopwatch, fingerprint, peak_mib
from avel.stores.clip_check import verify_clips
from avel.stores.clip_writer import ClipWriter, prepare_store, write_dataset
from avel.stores.clips import ClipStore
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.sample import Samples, Video, Videos
from avel.stores.jpeg import encode_jpeg
from avel.stores.location import RemoteLocation, locate
from avel.stores.manifest import Entry, Manifest, ManifestWriter, to_table
from tests.media import Film, compose, steady
from tests.pipeline.staging.small_clips import SMALL, make_clip

NONE = Manifest(to_table(()))
NO_ROWS = pa.array([], pa.string())


def stage(file: Path, store: Path, config: ExtractConfig) -> tuple[Entry, ClipStore]:
    """One clip staged in this process."""
    plan = make_plan(
        Dataset("t", "", (), Samples.of(()), Videos.of((Video("clip", str(file)),))),
        config,
        None,
        NO_ROWS,
        NONE,
        RestageOptions(),
    )
    prepare_store(locate(store), plan.attributes, plan.video_ids)
    entry = Stager(str(store), config).stage(plan.todo["clip"])
    ManifestWriter(locate(store)).append([entry])
    return entry, ClipStore.open(store)


@pytest.mark.parametrize("segments", [2, 10, 23])
def test_raw_frames_and_log_mel_are_the_readers(tmp_path: Path, segments: int) -> None:
    config = replace(SMALL, segments=segments, frame_codec="raw")
    file = make_clip(tmp_path / "clip.mp4", seconds=segments - 0.5)
    entry, store = stage(file, tmp_path / "store.zarr", config)
    with open_media(file, config.grid()) as media:
        frames = np.concatenate(list(media.frames()))
        samples = np.concatenate(list(media.samples()))
    assert (entry.state, entry.audio) == ("staged", "stream")
    assert np.array_equal(store.frames("clip", range(config.grid().frames)), frames)
    assert np.array_equal(store.log_mel("clip"), log_mel(samples.reshape(segments, -1)))
    assert np.array_equal(store.waveform("clip") / 32768, samples)
    assert entry.valid_seconds == pytest.approx(segments - 0.5, abs=0.15)
    assert verify_clips(store) == ()


@pytest.mark.parametrize("missing_audio", ["silence", "fail"])
def test_the_waveform_has_its_own_sample_rate_and_the_log_mel_stays(
    tmp_path: Path, missing_audio: Literal["silence", "fail"]
) -> None:
    file = make_clip(tmp_path / "clip.mp4", seconds=11.5)
    config = replace(SMALL, segments=12, missing_audio=missing_audio)
    _, plain = stage(file, tmp_path / "plain.zarr", config)
    entry, store = stage(file, tmp_path / "48.zarr", replace(config, sample_rate=48000))
    _, bare = stage(file, tmp_path / "bare.zarr", replace(config, waveform=False))
    with open_media(file, store.grid) as media:
        samples = np.concatenate(list(media.samples()))
    assert samples.shape == (12 * 48000,)
    assert np.array_equal(store.waveform("clip") / 32768, samples)
    assert np.array_equal(store.log_mel("clip"), plain.log_mel("clip"))
    assert np.array_equal(bare.log_mel("clip"), plain.log_mel("clip"))
    assert (entry.state, entry.audio, entry.detail) == ("staged", "stream", plain.entries["clip"].detail)
    assert not (tmp_path / "bare.zarr/waveform").exists()


def test_jpeg_frames_are_close_to_raw_ones(tmp_path: Path) -> None:
    file = make_clip(tmp_path / "clip.mp4")
    _, jpeg = stage(file, tmp_path / "jpeg.zarr", SMALL)
    _, raw = stage(file, tmp_path / "raw.zarr", replace(SMALL, frame_codec="raw"))
    frames = range(SMALL.grid().frames)
    error = jpeg.frames("clip", frames).astype(float) - raw.frames("clip", frames)
    luma = error @ np.array(
        [0.299, 0.587, 0.114]
    )  # the clip's colours change every 4 pixels, 4:2:0 halves them
    assert 0 < np.mean(luma**2) < 20
    quality = {len(jpeg.jpegs("clip", [0])[0])}
    _, coarse = stage(file, tmp_path / "coarse.zarr", replace(SMALL, jpeg_quality=30))
    assert len(coarse.jpegs("clip", [0])[0]) < min(quality)


def test_a_failed_clip_leaves_no_chunk(tmp_path: Path) -> None:
    file = make_clip(tmp_path / "clip.mp4", sound=False)
    entry, _ = stage(file, tmp_path / "store.zarr", SMALL)
    assert (entry.state, entry.audio) == ("staged", "silence")
    assert len(list(tmp_path.glob("store.zarr/*/c/0/**/0"))) > 0
    entry = Stager(str(tmp_path / "store.zarr"), replace(SMALL, missing_audio="fail")).stage(entry)
    assert (entry.state, entry.reason, entry.detail) == (
        "failed",
        "no-audio",
        "no audio stream, or an empty one",
    )
    assert not [path for path in tmp_path.glob("store.zarr/*/c/**/*") if path.is_file()]


def test_a_missing_file_is_a_reason(tmp_path: Path) -> None:
    entry, _ = stage(tmp_path / "nowhere.mp4", tmp_path / "store.zarr", SMALL)
    assert (entry.state, entry.reason, entry.source_bytes) == ("failed", "missing", 0)


def test_the_source_is_on_record(tmp_path: Path) -> None:
    import hashlib

    file = make_clip(tmp_path / "clip.mp4")
    entry, _ = stage(file, tmp_path / "store.zarr", SMALL)
    assert entry.source_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert entry.source_bytes == file.stat().st_size
    assert entry.source_mtime_ns == file.stat().st_mtime_ns


def test_long_clips_show_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make_clip(tmp_path / "clip.mp4", seconds=24)
    config, signs = replace(SMALL, segments=25), []
    stage(file, tmp_path / "store.zarr", config)
    stager = Stager(str(tmp_path / "store.zarr"), config, alive=lambda: signs.append(1))
    stager.stage(Entry("clip", 0, source_path=str(file)))
    assert len(signs) >= 6  # three chunks of sound, three of picture
    signs.clear()
    fingerprint(Entry("clip", 0, source_path=str(file)), after_mib=lambda: signs.append(1))
    assert len(signs) == -(-file.stat().st_size // PIECE_BYTES)
    signs.clear()
    monkeypatch.setattr("avel.pipeline.media.scan.ALIVE_EVERY_PACKETS", 100)
    with open_media(file, config.grid(), alive=lambda: signs.append(1)):
        assert len(signs) >= 5  # 288 pictures and 375 packets of sound


def test_a_system_that_does_not_tell_the_peak_memory_stages_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert peak_mib() > 10
    monkeypatch.setattr(Path, "read_text", lambda path: "Name:\tpython\nVmRSS:\t  900 kB\n")
    assert peak_mib() == 0


def test_the_stopwatch_splits_what_happens_inside() -> None:
    watch = Stopwatch(decode=3.0)
    watch.move("scale", 1.0)
    assert watch.columns()["decode_seconds"] == 2.0
    assert watch.columns()["scale_seconds"] == 1.0


def test_a_picture_is_encoded_once_for_all_slots_that_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[bytes] = []

    def encode(*picture: Any) -> bytes:
        encoded.append(encode_jpeg(*picture))
        return encoded[-1]

    monkeypatch.setattr("avel.pipeline.staging.stage.encode_jpeg", encode)
    film = Film(steady(Fraction(2, 3), 12), clicks=None)  # one picture lies across the two chunks
    config = replace(SMALL, segments=12)
    _, store = stage(compose(tmp_path / "slow.mp4", film), tmp_path / "store.zarr", config)
    per_picture = 3 * config.grid().frames_per_segment // 2
    shown = [encoded[slot // per_picture] for slot in range(config.grid().frames)]
    assert len(encoded) == 8
    assert store.jpegs("clip", range(config.grid().frames)) == shown


def test_a_file_whose_name_is_not_utf8_is_staged_beside_others(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    make_clip(videos / "good.mp4")
    make_clip(videos / "bad.mp4").rename(videos / os.fsdecode(b"caf\xe9.mp4"))
    dataset, place = read_dataset(videos), locate(tmp_path / "store.zarr")
    plan = make_plan(dataset, SMALL, None, NO_ROWS, NONE, RestageOptions())
    prepare_store(place, plan.attributes, plan.video_ids)
    write_dataset(place, dataset)
    stager = Stager(str(tmp_path / "store.zarr"), SMALL)
    ManifestWriter(place).append([stager.stage(entry) for entry in plan.todo.values()])
    store = ClipStore.open(tmp_path / "store.zarr")
    assert {name: entry.state for name, entry in store.entries.items()} == {
        "caf\\xe9": "staged",
        "good": "staged",
    }
    again = make_plan(dataset, SMALL, plan.attributes, plan.video_ids, store.entries, RestageOptions())
    assert (len(again.todo), len(again.unchanged), again.unreadable) == (0, 2, 0)


@pytest.mark.parametrize(("tell_seconds", "time_limit"), [(0.01, 60.0), (600.0, 0.1)])
def test_waiting_for_an_object_store_is_no_time_of_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell_seconds: float, time_limit: float
) -> None:
    stage(make_clip(tmp_path / "clip.mp4"), tmp_path / "store.zarr", SMALL)
    told = threading.Event()
    hasty = replace(SMALL, time_limit=time_limit)
    stager = Stager(str(tmp_path / "store.zarr"), hasty, uncounted=told.set)

    def wait(row: int) -> None:
        assert told.wait(60)

    stager.writer = SimpleNamespace(location=RemoteLocation("s3://bucket/store"), erase=wait)
    monkeypatch.setattr("avel.pipeline.staging.stage.TELL_SECONDS", tell_seconds)
    entry = stager.stage(Entry("clip", 0, source_path=str(tmp_path / "none.mp4")))
    assert entry.reason == "missing"


def test_only_a_clip_that_was_staged_before_is_erased_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erasing is a request to an object store, and of a new clip there is nothing to erase."""
    stage(make_clip(tmp_path / "clip.mp4"), tmp_path / "store.zarr", SMALL)
    erased: list[int] = []
    monkeypatch.setattr(ClipWriter, "erase", lambda self, row: erased.append(row))
    stager = Stager(str(tmp_path / "store.zarr"), SMALL)
    entry = Entry("clip", 0, source_path=str(tmp_path / "clip.mp4"))
    made = stager.stage(entry)
    assert (made.state, erased) == ("staged", [])
    files = [file for file in (tmp_path / "store.zarr").glob("*/c/**/*") if file.is_file()]
    assert made.stored_bytes == sum(file.stat().st_size for file in files)
    assert stager.stage(replace(entry, cause="overwrite")).state == "staged"
    assert stager.stage(replace(entry, source_path="/none")).reason == "missing"
    assert erased == [0, 0]
