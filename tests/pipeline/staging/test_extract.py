"""`extract`: every clip is accounted for, and only what has to be done is done again."""

import json
import os
import re
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from distributed import KilledWorker

from avel.cli import cli
from avel.console import DONE, SOME_FAILED, run
from avel.errors import BusyError, ConfigError, DatasetError, MissingPathError, StoreError, WriteError
from avel.pipeline.staging import extract as module
from avel.pipeline.staging import workers
from avel.pipeline.staging.extract import extract
from avel.pipeline.staging.summary import ExtractSummary
from avel.stores.clip_check import verify_clips
from avel.stores.clips import ClipStore
from avel.stores.datasets.formats import read_dataset
from avel.stores.files import only_one
from avel.stores.inspection import inspect
from avel.stores.location import locate
from avel.stores.manifest import Entry, ManifestWriter, failed
from avel.text import as_plain
from tests.media import Film, compose, spoil_sound, steady
from tests.pipeline.staging.small_clips import SMALL, contents, make_clip, make_folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good clips, one of them without sound, and one file that is no video."""
    folder = make_folder(tmp_path_factory.mktemp("clips"), 3)
    make_clip(folder / "mute.mp4", seed=9, sound=False)
    (folder / "broken.mp4").write_bytes(b"no video at all" * 100)
    return folder


@pytest.fixture(scope="module")
def first(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExtractSummary]:
    """A finished store and its run's summary."""
    store = tmp_path_factory.mktemp("store") / "clips.zarr"
    return store, extract(clips, store, SMALL, workers=2)


@pytest.fixture
def again(clips: Path, first: tuple[Path, ExtractSummary], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the clips, dates kept, and of the store made from them."""
    return (
        Path(shutil.copytree(clips, tmp_path / "clips")),
        Path(shutil.copytree(first[0], tmp_path / "clips.zarr")),
    )


def chunks(store: Path) -> dict[str, bytes]:
    """Every chunk of a store by name; the tables would also tell where the clips lie."""
    return {name: data for name, data in contents(store).items() if "/c/" in name}


def test_every_clip_is_accounted_for(first: tuple[Path, ExtractSummary]) -> None:
    store, summary = first
    assert (summary.videos, summary.staged, summary.skipped, summary.failed) == (5, 4, 0, 1)
    assert summary.reasons == {"unreadable": 1}
    assert summary.failures[0][:2] == ("broken", "unreadable")
    assert summary.split_seconds.keys() == {"decode", "scale", "jpeg", "audio", "write"}
    assert all(seconds > 0 for seconds in summary.split_seconds.values())
    assert json.loads(json.dumps(as_plain(summary)))["store"] == str(store)


def test_the_store_says_what_it_holds(first: tuple[Path, ExtractSummary], clips: Path) -> None:
    store = ClipStore.open(first[0])
    assert store.video_ids == ("broken", "clip00", "clip01", "clip02", "mute")
    assert store.staged == ("clip00", "clip01", "clip02", "mute")
    assert store.entries["mute"].audio == "silence"
    assert store.entries["clip00"].valid_seconds == pytest.approx(2.0, abs=0.1)
    assert np.allclose(store.log_mel("mute"), np.log(0.01))
    assert not np.allclose(store.log_mel("clip00"), np.log(0.01))
    assert store.dataset.root == str(clips)


def test_the_same_command_does_nothing_twice(again: tuple[Path, Path]) -> None:
    clips, store = again
    before = contents(store)
    summary = extract(clips, store, SMALL, workers=1)
    assert (summary.staged, summary.skipped, summary.failed) == (0, 4, 1)
    assert {k: v for k, v in contents(store).items() if "dataset" not in k} == {
        k: v for k, v in before.items() if "dataset" not in k
    }


def test_the_result_names_the_store_as_it_was_given(
    again: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(again[0].parent)
    assert extract("clips", "clips.zarr", SMALL).headline().startswith("clips.zarr: 4 of 5 clips staged")


def test_a_changed_file_is_staged_again_and_a_new_date_is_not(again: tuple[Path, Path]) -> None:
    clips, store = again
    make_clip(clips / "clip00.mp4", seed=50)
    os.utime(clips / "clip01.mp4")
    make_clip(clips / "broken.mp4", seed=51)
    old = ClipStore.open(store).frames("clip00", [0])
    summary = extract(clips, store, SMALL, workers=1)
    assert (summary.staged, summary.skipped, summary.failed) == (2, 3, 0)
    assert summary.restaged == {"source-changed": 2}
    opened = ClipStore.open(store)
    assert not np.array_equal(opened.frames("clip00", [0]), old)
    assert opened.entries["clip01"].source_mtime_ns == (clips / "clip01.mp4").stat().st_mtime_ns
    assert extract(clips, store, SMALL, workers=1).staged == 0


def test_a_clip_that_vanished_is_missing_until_it_is_back(again: tuple[Path, Path]) -> None:
    clips, store = again
    (clips / "AVE").mkdir()
    for file in clips.glob("*.mp4"):
        file.rename(clips / "AVE" / file.name)
    (clips / "Annotations.txt").write_text("Bark&clip00&good&0&1\nBark&gone&good&0&1\n")
    summary = extract(clips, store, SMALL, workers=1)
    assert summary.failures == (("gone", "missing", "the dataset has no file for it"),)
    make_clip(clips / "AVE" / "gone.mp4")
    assert extract(clips, store, SMALL, workers=1).restaged == {"source-changed": 1}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("clip00,Dog,460,465", r"events\.csv: line 3 \(clip00\): event from 460 s to 465 s lies beyond"),
        ('clip00,"A\nB",0,1', r"events\.csv: line 3 \(clip00\): a line break in the class"),
        ("clip00,background,0,1", r"events\.csv: line 3 \(clip00\): a class may not be named 'background'"),
        ("clip\0,Dog,0,1", r"events\.csv: line 3, byte \d+ of the file: a NUL"),
    ],
)
def test_annotations_that_cannot_be_used_are_refused_before_anything_is_staged(
    clips: Path, tmp_path: Path, row: str, words: str
) -> None:
    table, store = tmp_path / "events.csv", tmp_path / "clips.zarr"
    table.write_text(f"file,label,start,end\nclip01,Dog,0,1\n{row}\n")
    with pytest.raises(DatasetError, match=words):
        extract(clips, store, SMALL, annotations=table)
    assert not store.exists()


def test_new_videos_get_new_rows_and_old_ones_stay(again: tuple[Path, Path]) -> None:
    clips, store = again
    before = contents(store)
    make_clip(clips / "a_new_one.mp4", seed=77)
    assert extract(clips, store, SMALL, workers=1).staged == 1
    opened = ClipStore.open(store)
    assert opened.video_ids == ("broken", "clip00", "clip01", "clip02", "mute", "a_new_one")
    assert opened.frames("a_new_one", [0, 7]).shape == (2, 32, 32, 3)
    kept = [name for name in before if "/c/" in name]
    assert all(contents(store)[name] == before[name] for name in kept)


@pytest.mark.parametrize(
    "change",
    [{"jpeg_quality": 60}, {"size": 16, "segments": 1}, {"frame_codec": "raw"}],
)
def test_changed_settings_equal_a_store_made_with_them(
    again: tuple[Path, Path], tmp_path: Path, change: dict[str, object]
) -> None:
    clips, store = again
    summary = extract(clips, store, SMALL, workers=2, overwrite=True, **change)
    assert summary.restaged == {"settings-changed": 5}
    extract(clips, tmp_path / "fresh.zarr", SMALL, workers=2, **change)
    assert contents(store) == contents(tmp_path / "fresh.zarr")
    assert verify_clips(ClipStore.open(store)) == ()


@pytest.mark.parametrize("dry_run", [False, True])
def test_settings_that_void_staged_clips_are_refused_with_what_they_cost(
    again: tuple[Path, Path], dry_run: bool
) -> None:
    clips, store = again
    manifest = ManifestWriter(locate(store))
    slow = [replace(entry, decode_seconds=90.0) for entry in manifest.entries.values()]
    manifest.append(slow)
    before = contents(store)
    with pytest.raises(
        ConfigError, match=r"size was 32, is now 16: that would delete 4 staged clips.* 6\.\d min of one core"
    ) as refused:
        extract(clips, store, SMALL, workers=1, size=16, dry_run=dry_run)
    assert "--overwrite" in refused.value.hint
    assert contents(store) == before
    planned = extract(clips, store, SMALL, workers=1, dry_run=True)
    assert planned.headline() == f"{store}: no clip would be staged"
    assert extract(clips, store, SMALL, workers=1).skipped == 4
    assert extract(clips, store, SMALL, workers=1, time_limit=30).skipped == 4  # changes nothing stored


def test_an_interrupted_change_of_settings_goes_on_without_being_asked_again(
    again: tuple[Path, Path],
) -> None:
    clips, store = again
    extract(clips, store, SMALL, workers=1, size=16, overwrite=True)
    manifest = ManifestWriter(locate(store))
    manifest.append([replace(manifest.entries[name], state="pending") for name in ("clip00", "clip01")])
    assert extract(clips, store, SMALL, workers=1, size=16).staged == 2


def test_missing_audio_concerns_clips_without_sound_only(again: tuple[Path, Path]) -> None:
    clips, store = again
    summary = extract(clips, store, SMALL, workers=1, missing_audio="fail")
    assert (summary.staged, summary.skipped) == (0, 3)
    assert summary.reasons == {"unreadable": 1, "no-audio": 1}
    assert not list(store.glob("frames/c/4/*"))
    summary = extract(clips, store, SMALL, workers=1)
    assert (summary.staged, summary.skipped) == (1, 3)


def test_sound_that_does_not_decode_is_no_sound(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    spoil_sound(make_clip(tmp_path / "whole.mp4"), tmp_path / "clips" / "clip.mp4")
    store = tmp_path / "s.zarr"
    assert extract(tmp_path / "clips", store, SMALL, workers=1).staged == 1
    entry = ClipStore.open(store).entries["clip"]
    assert entry.audio == "silence"
    assert "audio packets not decoded" in entry.detail
    for place in (store, tmp_path / "fresh.zarr"):
        assert extract(tmp_path / "clips", place, SMALL, workers=1, missing_audio="fail").reasons == {
            "no-audio": 1
        }


def test_a_disk_that_is_not_mounted_costs_no_clip(
    again: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    clips, store = again
    dataset, before = read_dataset(clips), chunks(store)
    clips.rename(clips.with_name("elsewhere"))
    for options in (dict[str, bool](), {"overwrite": True}):
        summary = extract(dataset, store, SMALL, workers=1, **options)
        assert (summary.staged, summary.skipped) == (0, 4)
        assert summary.reasons == {"missing": 1}  # the one that had failed before
        assert "kept: 4 staged clips" in capsys.readouterr().err
    with pytest.raises(MissingPathError, match=r"would delete 4 staged clips .*clip00\.mp4"):
        extract(dataset, store, SMALL, workers=1, jpeg_quality=60)
    assert chunks(store) == before
    assert len(ClipStore.open(store).staged) == 4
    clips.with_name("elsewhere").rename(clips)
    assert extract(dataset, store, SMALL, workers=1).skipped == 4


def test_overwriting_with_other_settings_gives_up_what_cannot_be_read(again: tuple[Path, Path]) -> None:
    clips, store = again
    dataset = read_dataset(clips)
    (clips / "clip00.mp4").unlink()
    summary = extract(dataset, store, SMALL, workers=1, jpeg_quality=60, overwrite=True)
    assert (summary.staged, summary.reasons) == (3, {"missing": 1, "unreadable": 1})
    assert verify_clips(ClipStore.open(store)) == ()


@pytest.mark.parametrize(
    "change",
    [{"sample_rate": 4000}, {"segment_seconds": 0.5}, {"segment_seconds": 1.03}],
)
def test_settings_without_log_mel_are_refused_before_anything_is_touched(
    again: tuple[Path, Path], tmp_path: Path, change: dict[str, object]
) -> None:
    clips, store = again
    before = {file: file.stat().st_mtime_ns for file in store.rglob("*")}
    for place in (store, tmp_path / "new.zarr"):
        with pytest.raises(ConfigError) as refused:
            extract(clips, place, SMALL, workers=1, **change)
        assert refused.value.exit_code == 2
    assert {file: file.stat().st_mtime_ns for file in store.rglob("*")} == before
    assert not (tmp_path / "new.zarr").exists()


def test_workers_that_cannot_be_are_refused(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--workers"):
        extract(clips, tmp_path / "s.zarr", SMALL, workers=1, scheduler="tcp://127.0.0.1:9")
    for count in (0, -1):
        with pytest.raises(ConfigError, match=f"workers={count}"):
            extract(clips, tmp_path / "s.zarr", SMALL, workers=count)
    assert not (tmp_path / "s.zarr").exists()


def test_another_format_is_recorded_and_what_it_changes_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips, store = make_folder(tmp_path / "clips", 2), tmp_path / "s.zarr"
    (clips / "Annotations.txt").write_text("Dog&clip00&good&0&1\n")
    (tmp_path / "e.csv").write_text("file,label,start,end\nclip00,Dog,0,1\nclip01,Cat,0,2\n")
    extract(clips, store, SMALL, workers=1)
    assert "replaces its samples" not in capsys.readouterr().err
    assert inspect(store).facts["format"] == "ave"
    assert "dataset read as  ave" in "\n".join(inspect(store).lines())
    table = {"annotations": tmp_path / "e.csv", "format": "folder"}
    said = (
        f"{store}: replaces its samples; format ave before, format folder annotations={tmp_path}/e.csv now; "
        "samples: 1 before, 2 now; events: 1 before, 2 now; "
    )
    extract(clips, store, SMALL, workers=1, dry_run=True, **table)
    assert said in capsys.readouterr().err
    assert inspect(store).facts["samples"] == 1
    extract(clips, store, SMALL, workers=1, **table)
    assert said in capsys.readouterr().err
    found = inspect(store)
    assert found.facts["format_settings"] == (f"annotations={tmp_path}/e.csv",)
    assert f"dataset read as  folder annotations={tmp_path}/e.csv" in "\n".join(found.lines())
    assert ClipStore.open(store).dataset.format == "folder"
    extract(clips, store, SMALL, workers=1, **table)
    assert "replaces its samples" not in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"jpeg_quality": 60}, {"size": 16}])
def test_what_left_the_dataset_is_recorded(
    again: tuple[Path, Path], change: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    clips, store = again
    extract(clips, store, SMALL, workers=1)  # takes the copies for the sources
    (clips / "clip00.mp4").rename(clips.with_name("clip00.mp4"))
    manifest = ManifestWriter(locate(store))
    manifest.append([replace(manifest.entries["clip00"], state="pending")])  # as after a kill
    (clips / "clip01.mp4").rename(clips.with_name("clip01.mp4"))
    assert extract(clips, store, SMALL, workers=1).skipped == 2
    opened = ClipStore.open(store)
    assert (opened.entries["clip00"].state, opened.entries["clip00"].reason) == ("failed", "missing")
    assert "clip01" in opened.staged  # a whole clip is not deleted
    assert inspect(store, verify=True).whole
    with pytest.raises(MissingPathError, match=r"would delete 1 staged clip .*clip01\.mp4"):
        extract(clips, store, SMALL, workers=1, **change)
    assert "clip01" in ClipStore.open(store).staged
    extract(clips, store, SMALL, workers=1, overwrite=True, **change)
    assert "deleted: 1 staged clip of other settings" in capsys.readouterr().err
    assert inspect(store, verify=True).whole
    extract(clips, store, SMALL, workers=1, overwrite=True)
    for name in ("clip00.mp4", "clip01.mp4"):
        clips.with_name(name).rename(clips / name)
    assert extract(clips, store, SMALL, workers=1).staged == 2
    assert inspect(store, verify=True).whole


def test_a_subfolder_that_is_not_mounted_costs_no_clip(again: tuple[Path, Path]) -> None:
    clips, store = again
    (clips / "more").mkdir()
    make_clip(clips / "more" / "far.mp4", seed=60)
    extract(clips, store, SMALL, workers=1)
    (clips / "more").rename(clips.with_name("elsewhere"))
    before = chunks(store)
    with pytest.raises(MissingPathError, match=r"would delete 1 staged clip .*far\.mp4"):
        extract(clips, store, SMALL, workers=1, jpeg_quality=60)
    assert chunks(store) == before
    assert "more/far" in ClipStore.open(store).staged
    clips.with_name("elsewhere").rename(clips / "more")
    assert extract(clips, store, SMALL, workers=1, jpeg_quality=60, overwrite=True).staged == 5


def test_a_video_that_left_before_it_got_its_row_is_recorded(again: tuple[Path, Path]) -> None:
    clips, store = again
    ManifestWriter(locate(store)).append([Entry("zebra", 5)])  # a run was killed before it made the row
    assert extract(clips, store, SMALL, workers=1).skipped == 4
    assert ClipStore.open(store).entries["zebra"].reason == "missing"
    assert inspect(store, verify=True).whole


def test_a_store_that_lost_its_head_is_staged_again(again: tuple[Path, Path]) -> None:
    clips, store = again
    before = chunks(store)
    (store / "zarr.json").unlink()
    assert extract(clips, store, SMALL, workers=1).staged == 4
    assert chunks(store) == before


def test_retry_failed_and_overwrite(again: tuple[Path, Path]) -> None:
    clips, store = again
    summary = extract(clips, store, SMALL, workers=1, retry_failed=True)
    assert (summary.restaged, summary.failed) == ({"retry-failed": 1}, 1)
    before = contents(store)
    summary = extract(clips, store, SMALL, workers=2, overwrite=True)
    assert summary.restaged == {"overwrite": 5}
    assert contents(store) == before


def flip(file: Path) -> None:
    """Changes one bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_repair_stages_damaged_clips_alone(
    again: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    clips, store = again
    before = chunks(store)
    flip(store / "frames/c/1/0")
    (store / "waveform/c/4/0").unlink()
    (store / "log_mel/c/0/0/0").mkdir(parents=True)
    (store / "log_mel/c/0/0/0/0").write_bytes(b"left over of a clip that failed")
    assert extract(clips, store, SMALL, workers=1).restaged == {}, "nobody looked"
    planned = extract(clips, store, SMALL, workers=1, repair=True, dry_run=True).forecast
    assert planned is not None
    assert planned.causes == {"damaged": 3}
    assert len(verify_clips(ClipStore.open(store))) == 3
    capsys.readouterr()
    summary = extract(clips, store, SMALL, workers=2, repair=True)
    assert (summary.restaged, summary.staged, summary.failed) == ({"damaged": 3}, 2, 1)
    assert "3 of 5 clips are damaged, the first: broken: failed, but log_mel/c/0/0/0/0 is there" in (
        " ".join(capsys.readouterr().err.split())
    )
    assert chunks(store) == before
    assert extract(clips, store, SMALL, workers=1, repair=True).restaged == {}


def test_repair_leaves_what_it_cannot_stage_again(
    again: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    clips, store = again
    flip(store / "frames/c/1/0")
    flip(store / "frames/c/2/0")
    before = chunks(store)
    clip = clips / "clip00.mp4"
    dataset = read_dataset(clips)
    clip.unlink()
    summary = extract(dataset, store, SMALL, workers=1, repair=True)
    assert summary.restaged == {"damaged": 1}
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "1 damaged clip cannot be staged again (no file that can be read, or no longer in the dataset); the "
        "first: clip00" in said
    )
    assert summary.damaged == ("clip00",)
    assert ", 1 damaged; 1 staged now" in summary.headline()
    assert {name for name, data in chunks(store).items() if data != before[name]} == {"frames/c/2/0"}
    (fault,) = verify_clips(ClipStore.open(store))
    assert fault.startswith("clip00: ")
    (clips / "broken.mp4").unlink()
    words = [
        "extract",
        str(clips),
        str(store),
        *["--segments", "2", "--fps", "4", "--size", "32", "--workers", "1"],
    ]
    assert run(cli, words) == DONE
    assert run(cli, [*words, "--repair"]) == SOME_FAILED, "it has left the dataset, and is damaged still"
    settings = {"workers": 1, "repair": True, "jpeg_quality": 60}
    with pytest.raises(ConfigError, match="jpeg_quality was"):
        extract(clips, store, SMALL, **settings)


def test_repair_of_a_manifest_that_names_another_row(again: tuple[Path, Path]) -> None:
    clips, store = again
    before = chunks(store)
    manifest = ManifestWriter(locate(store))
    manifest.append([replace(manifest.entries["clip01"], row=1)])
    del manifest
    assert not inspect(store, verify=True).whole
    assert extract(clips, store, SMALL, workers=1, repair=True).restaged.keys() == {"damaged"}
    assert chunks(store) == before
    assert inspect(store, verify=True).whole


def test_repair_of_a_store_that_is_not_there(clips: Path, tmp_path: Path) -> None:
    assert extract(clips, tmp_path / "new.zarr", SMALL, workers=1, repair=True).staged == 4


def test_raised_limits_come_with_how_to_use_them(
    again: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    clips, store = again
    manifest = ManifestWriter(locate(store))
    manifest.append([failed(manifest.entries[name], "timeout", "") for name in ("clip00", "clip01")])
    assert extract(clips, store, SMALL, workers=1, time_limit=600).staged == 0
    assert "2 clips failed for timeout or memory before; --retry-failed" in capsys.readouterr().err
    assert extract(clips, store, SMALL, workers=1, time_limit=600, retry_failed=True).staged == 2
    assert "--retry-failed" not in capsys.readouterr().err


def test_a_store_without_room_is_refused_before_it_is_begun(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "FORECAST_FROM", 5)
    monkeypatch.setattr(module, "free_bytes", lambda place: 1000)
    with pytest.raises(ConfigError, match=r"5 clips take about .*B, 1\.0 kB are free on its disk") as refused:
        extract(clips, tmp_path / "full.zarr", SMALL, workers=1)
    assert "--size" in refused.value.hint
    assert not (tmp_path / "full.zarr" / "zarr.json").exists()
    monkeypatch.setattr(module, "free_bytes", lambda place: 10**9)
    assert extract(clips, tmp_path / "clips.zarr", SMALL, workers=1).staged == 4
    told = capsys.readouterr().err
    assert re.search(r"5 clips take about .*B and .* s, estimated from 4 clips", told)
    assert "dask" not in told, "how clips are shared out is no news, where nobody asked for a scheduler"


def test_clips_that_stay_make_no_room(again: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    clips, store = again
    for number in range(3):
        make_clip(clips / f"new{number}.mp4", seed=20 + number)
    make_clip(clips / "clip00.mp4", seed=30)
    monkeypatch.setattr(module, "FORECAST_FROM", 1)
    monkeypatch.setattr(module, "free_bytes", lambda place: 1000)
    with pytest.raises(ConfigError, match="4 clips take about"):
        extract(clips, store, SMALL, workers=1)


def test_a_dry_run_writes_nothing(clips: Path, tmp_path: Path) -> None:
    summary = extract(clips, tmp_path / "none.zarr", SMALL, workers=2, dry_run=True)
    assert not (tmp_path / "none.zarr").exists()
    assert summary.forecast is not None
    assert (summary.forecast.clips, summary.forecast.causes) == (5, {"new": 5})
    assert summary.forecast.bytes > 4 * 2 * 96 * 64 * 4
    assert summary.forecast.seconds >= 0


def test_a_dry_run_is_done_whatever_failed_before(
    again: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--segments", "2", "--fps", "4", "--size", "32", "--json"]
    command = ["extract", *map(str, again), *settings]
    assert run(cli, [*command, "--dry-run"]) == DONE
    assert json.loads(capsys.readouterr().out)["failed"] == 1
    assert run(cli, command) == SOME_FAILED


def test_a_forecast_is_near_what_is_written(again: tuple[Path, Path], tmp_path: Path) -> None:
    clips, store = again
    (clips / "broken.mp4").unlink()
    expected = extract(clips, tmp_path / "none.zarr", SMALL, dry_run=True).forecast
    written = sum(len(data) for name, data in contents(store).items() if "/c/" in name)
    assert expected is not None
    assert expected.bytes == pytest.approx(written, rel=0.2)


def test_two_runs_on_one_store_do_not_meet(clips: Path, tmp_path: Path) -> None:
    with only_one(tmp_path / "s.zarr", "store"), pytest.raises(BusyError, match="another process"):
        extract(clips, tmp_path / "s.zarr", SMALL)


def test_other_folders_are_not_written_into(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a clip store"):
        extract(clips, clips, SMALL)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is a file"):
        extract(clips, tmp_path / "file", SMALL)
    assert not (clips / ".lock").exists()


def test_a_run_killed_while_it_made_the_store_is_gone_on_with(clips: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    store.mkdir()
    (store / ".lock").touch()
    (store / "zarr.json").write_text('{"attributes": {}, "zarr_format": 3, "node_type": "group"}')
    (store / f"zarr.{'0af3' * 8}.partial").touch()  # as zarr names it
    assert inspect(store).kind == "store"
    extract(clips, store, SMALL)
    assert not list(store.glob("*.partial"))


def test_a_place_that_cannot_be_written_is_named(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"file/s\.zarr"):
        extract(clips, tmp_path / "file" / "s.zarr", SMALL)


@pytest.mark.slow
def test_a_large_picture_fits_into_the_memory_of_a_worker(tmp_path: Path) -> None:
    film = Film(steady(30, 3), 1920, 1080, options={"preset": "ultrafast", "bf": "3", "refs": "4"})
    (tmp_path / "clips").mkdir()
    compose(tmp_path / "clips" / "large.mp4", replace(film, clicks=(0.5,), sound_seconds=3.0))
    summary = extract(tmp_path / "clips", tmp_path / "s.zarr", workers=1)
    assert (summary.staged, summary.failed) == (1, 0)
    assert 50 < summary.peak_mib < 700


@pytest.mark.slow
def test_a_film_of_two_hours_is_staged_in_bounded_memory(tmp_path: Path) -> None:
    film = Film(steady(1, 7200), 16, 16, codec="mjpeg", pixel_format="yuvj420p", tick=Fraction(1, 1000))
    film = replace(
        film, sound_codec="pcm_s16le", sample_rate=4000, sound_seconds=7200.0, clicks=[1.5, 7198.5]
    )
    (tmp_path / "film").mkdir()
    compose(tmp_path / "film" / "film.mkv", film)
    summary = extract(tmp_path / "film", tmp_path / "s.zarr", SMALL, segments=7200, workers=1)
    assert (summary.staged, summary.failed) == (1, 0)
    assert summary.peak_mib < 400
    store = ClipStore.open(tmp_path / "s.zarr")
    assert store.entries["film"].valid_seconds == pytest.approx(7200, abs=1)
    assert store.frames("film", [0, 4 * 7199]).shape == (2, 32, 32, 3)
    sounding = np.flatnonzero(store.log_mel("film").max(axis=(1, 2)) > np.log(0.01) + 1)
    assert sounding.tolist() == [1, 7198]


def test_unknown_options_and_values_are_refused(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="frame_codec"):
        extract(clips, tmp_path / "s.zarr", frame_codec="gif")
    with pytest.raises(ConfigError, match="sise"):
        extract(clips, tmp_path / "s.zarr", sise=3)


def test_partial_files_are_looked_for_only_after_a_run_that_did_not_end_well(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going through a million clips takes minutes."""
    store = tmp_path / "s.zarr"
    extract(clips, store, SMALL)
    left = store / "frames" / "c" / "0.0af3.partial"
    left.touch()
    extract(clips, store, SMALL)
    assert left.exists(), "nothing was looked for"
    with monkeypatch.context() as cut:
        cut.setattr(ManifestWriter, "merge", None)
        with pytest.raises(TypeError):
            extract(clips, store, SMALL)
    extract(clips, store, SMALL)
    assert not left.exists()


def test_clips_of_a_task_whose_workers_died_are_tried_one_by_one(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_isolated = workers.stage_isolated

    def doomed(entries: list[Entry], **options: Any) -> list[Entry]:
        if len(entries) > 1 or entries[0].video_id == "clip01":
            raise KilledWorker("stage-1", SimpleNamespace(address="tcp://127.0.0.1:1"), 3)
        return stage_isolated(entries, **options)

    monkeypatch.setattr(workers, "stage_isolated", doomed)
    monkeypatch.setattr(workers, "LEAST_TASKS", 1)
    summary = extract(clips, tmp_path / "s.zarr", SMALL, workers=1)
    assert (summary.staged, summary.reasons) == (3, {"unreadable": 1, "crashed": 1})
    assert ("clip01", "crashed") in [failure[:2] for failure in summary.failures]


def test_a_video_without_a_file_is_no_changed_one(tmp_path: Path) -> None:
    clips, annotations = make_folder(tmp_path / "clips", 1), tmp_path / "events.csv"
    rows = ["video_id,category,start_seconds,end_seconds", "clip00,bell,0,1", "gone,bell,0,1"]
    annotations.write_text("\n".join(rows))
    for expected in ((1, 0), (0, 1)):
        summary = extract(clips, tmp_path / "s.zarr", SMALL, annotations=annotations, workers=1)
        assert (summary.staged, summary.skipped) == expected
        assert (summary.reasons, summary.restaged) == ({"missing": 1}, {})
