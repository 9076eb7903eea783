"""Inspect says what lies at a path and whether it is whole, in values that JSON holds."""

import json
import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from avel.cli import cli
from avel.errors import DatasetError, MissingPathError
from avel.heads.train import train_head
from avel.pipeline.config import CacheConfig
from avel.stores.cached_samples import Missing
from avel.stores.files import disk_bytes
from avel.stores.inspection import Inspection, inspect
from avel.stores.location import locate
from avel.stores.manifest import ManifestWriter
from avel.stores.packing import pack
from avel.stores.runs import Run
from tests.pipeline.caching.small_stores import write_store
from tests.stores.test_features import write as write_cache


def looked(path: Path, verify: bool = False) -> Inspection:
    found = inspect(path, verify)
    assert json.loads(json.dumps(found.facts)) is not None
    assert found.whole == (not found.problems)
    assert found.fix == "" or not found.whole
    return found


def test_a_store_with_failures_is_whole_and_says_why(tmp_path: Path) -> None:
    found = looked(write_store(tmp_path / "s.zarr", ("-a", "b", "c"), failed=("b",)), verify=True)
    assert (found.kind, found.whole) == ("store", True)
    assert (found.facts["videos"], found.facts["staged"]) == (3, 2)
    assert found.facts["failures"] == {"b": "no-video no stream"}
    assert found.facts["settings"]["size"] == 32


def test_the_bytes_of_a_store_are_those_of_its_files_packed_or_not(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", ("-a", "b", "c"), failed=("b",))
    assert looked(store).facts["bytes"] == disk_bytes(store)
    pack(store)
    assert looked(store).facts["bytes"] == disk_bytes(store)
    write_store(store, ("d",))
    assert looked(store).facts["bytes"] == disk_bytes(store)


def test_remarks_on_staged_clips_are_shown(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", ("a", "b", "c"), failed=("b",))
    manifest = ManifestWriter(locate(store))
    manifest.append([replace(manifest.entries["c"], detail="gaps in the audio: 1, 0.50 s of silence")])
    manifest.merge()
    assert looked(store).facts["remarks"] == {"c": "gaps in the audio: 1, 0.50 s of silence"}
    said = CliRunner().invoke(cli, ["inspect", str(store)])
    assert re.search(
        r"staged clip +remark\n(-.*\n)?c +gaps in the audio: 1, 0\.50 s of silence\n", said.stdout
    )


def test_the_next_step_after_a_dataset_reads_it_as_inspect_did(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    table = tmp_path / "events.csv"
    table.write_text("file,class,onset,offset,split\na.mp4,Bark,0,2,train\n")
    given = ["--annotations", str(table), "--format", "folder", "--format-set", "longest_seconds=20"]
    said = CliRunner().invoke(cli, ["inspect", str(tmp_path / "videos"), *given])
    expected = ["next:", "avel", "extract", str(tmp_path / "videos"), "clips.zarr", *given]
    assert said.stderr.split()[-len(expected) :] == expected


def test_a_table_in_a_folder_that_is_read_without_annotations_is_named(tmp_path: Path) -> None:
    for name in ("a.mp4", "events.csv"):
        (tmp_path / name).write_text("file,class,onset,offset\na.mp4,Bark,0,2\n")
    told = "no annotations are read; --annotations takes a table: events.csv"
    assert told in CliRunner().invoke(cli, ["inspect", str(tmp_path)]).stderr
    given = ["--annotations", str(tmp_path / "events.csv")]
    assert "no annotations" not in CliRunner().invoke(cli, ["inspect", str(tmp_path), *given]).stderr


def test_a_store_whose_making_was_cut_short_is_one(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", ("a", "b"))
    (store / "zarr.json").unlink()
    found = looked(store)
    assert (found.kind, found.whole, found.facts["videos"]) == ("store", False, 2)
    assert (found.problems, found.fix) == (("not finished",), "the same avel extract command goes on")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".run").touch()
    assert looked(tmp_path / "begun").kind == "store"


def test_a_lock_that_a_killed_command_left_is_no_work_in_progress(tmp_path: Path) -> None:
    for folder in (tmp_path / ".c.h5.parts", tmp_path / "run"):
        folder.mkdir()
        (folder / ".lock").write_text("pid 1")
    with pytest.raises(MissingPathError, match="nothing is there"):
        looked(tmp_path / "c.h5")
    (tmp_path / "run" / "config.toml").touch()
    with pytest.raises(DatasetError, match="holds no video file"):
        looked(tmp_path / "run")


def test_every_failure_is_listed(tmp_path: Path) -> None:
    names = tuple(f"clip{number:02d}" for number in range(14))
    found = looked(write_store(tmp_path / "s.zarr", names, failed=names[1:]))
    assert list(found.facts["failures"]) == list(names[1:])


def test_verify_finds_a_flipped_bit_in_a_store(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", ("a", "b"))
    chunk = store / "log_mel" / "c" / "1" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[99] ^= 4
    chunk.write_bytes(data)
    assert looked(store).whole
    found = looked(store, verify=True)
    assert found.problems[0].startswith("b: ")
    assert found.fix == "the same avel extract command with --repair stages damaged clips again"
    shown = CliRunner().invoke(cli, ["inspect", str(store), "--verify"])
    assert f"next: {found.fix}" in " ".join(shown.stderr.split())


def test_a_dataset_without_splits_shows_its_trivial_baselines(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "annotations.csv").write_text("video_id,category,start,end\na,bark,0,2\n")
    shown = (
        CliRunner()
        .invoke(cli, ["inspect", str(tmp_path), "--annotations", str(tmp_path / "annotations.csv")])
        .output
    )
    rows = [line.split() for line in shown.splitlines() if line.startswith("no split")]
    assert rows
    assert rows[0][:4] == ["no", "split", "1", "80.0"]


def test_a_cache_tells_what_made_it_and_verify_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    told = {"encoder": {"digest": "0123"}, "store": "s.zarr"}
    write_cache(path, provenance=told, sources={"-abc": "hash"})
    found = looked(path, verify=True)
    assert (found.kind, found.whole) == ("cache", True)
    assert found.facts["arrays"]["f_a"] == [2, 4, 5]
    assert found.facts["splits"] == {"train": 1, "val": 1, "test": 1}
    assert found.facts["missing"] == [{"sample": 7, "video_id": "gone", "reason": "no such file"}]
    assert found.facts["provenance"]["encoder"] == {"digest": "0123"}
    with h5py.File(path, "r+") as file:
        file["f_v"][1, 2, 3] += 1
    assert looked(path).whole
    found = looked(path, verify=True)
    assert "row 1 of f_v is damaged" in found.problems[0]
    assert "the same avel cache-features or import-features command and --overwrite" in found.fix
    write_cache(path, arrays={"f_a": np.zeros((2, 4, 5)), "f_v": np.full((2, 4, 5), np.nan)})
    assert "not finite" in looked(path, verify=True).problems[0]


def test_a_missing_video_without_samples_has_no_number(tmp_path: Path) -> None:
    write_cache(tmp_path / "f.h5", missing=(Missing(-1, "unused", "not staged"),))
    shown = [line.split() for line in looked(tmp_path / "f.h5").lines()]
    assert ["none", "unused", "not", "staged"] in shown


def test_everything_is_in_the_facts_and_people_are_shown_some(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    missing = tuple(Missing(number, f"v{number}", "gone") for number in range(30))
    orders = {"train": list(range(30))}
    write_cache(path, missing=missing, sources={"-abc": "hash"}, provenance={"orders": orders})
    result = CliRunner().invoke(cli, ["inspect", str(path), "--json"])
    facts = json.loads(result.output)["facts"]
    assert [item["video_id"] for item in facts["missing"]] == [f"v{number}" for number in range(30)]
    assert (facts["clips"], facts["provenance"]["orders"]) == ({"-abc": "hash"}, orders)
    text = CliRunner().invoke(cli, ["inspect", str(path)]).output
    assert "... 30 in all" in text
    assert "v29" not in text


def test_a_cache_that_is_not_finished_counts_its_parts(tmp_path: Path) -> None:
    folder = tmp_path / ".c.h5.parts" / "0123"
    folder.mkdir(parents=True)
    (folder / "4567.h5").write_bytes(b"12345")
    (folder / ".89ab.h5.7.partial").write_bytes(b"12")
    found = looked(tmp_path / "c.h5")
    assert (found.kind, found.whole, found.facts["finished_parts"]) == ("cache", False, 1)


def test_parts_that_calls_left_beside_a_finished_cache_are_told(tmp_path: Path) -> None:
    path, folder = tmp_path / "c.h5", tmp_path / ".c.h5.parts"
    write_cache(path)
    assert looked(path).facts["finished_parts"] == 0
    assert "unfinished calls" not in CliRunner().invoke(cli, ["inspect", str(path)]).output
    (folder / "0123").mkdir(parents=True)
    (folder / "0123" / "4567.h5").write_bytes(b"12345")
    found = looked(path)
    assert (found.whole, found.facts["finished_parts"], found.facts["parts_bytes"]) == (True, 1, 5)
    told = f"note: unfinished calls left 1 part, 5 bytes, in {folder}; the same calls go on"
    assert told in CliRunner().invoke(cli, ["inspect", str(path)]).output


def test_a_run_is_whole_when_it_is_finished(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "pretrain", CacheConfig(), inputs={"clips": list(range(40))})
    run.log(loss=1.0)
    found = looked(run.path)
    assert (found.kind, found.whole, found.facts["metrics"]) == ("run", False, 1)
    assert found.facts["inputs"]["clips"] == list(range(40))
    save_file({"w": np.zeros(3)}, run.path / "encoder.safetensors")
    run.finish({"loss": 0.5})
    found = looked(run.path, verify=True)
    assert (found.whole, found.facts["results"]) == (True, {"loss": 0.5})
    shown = CliRunner().invoke(cli, ["inspect", str(run.path)]).stderr
    assert f"next: avel cache-features STORE features.h5 --encoder {run.path}" in " ".join(shown.split())
    (run.path / "encoder.safetensors").write_bytes((run.path / "encoder.safetensors").read_bytes()[:-4])
    found = looked(run.path)
    assert found.problems == ("encoder.safetensors: has 84 bytes instead of 88",)
    assert found.fix == f"remove {run.path}, and the same avel pretrain command trains it again"


def test_a_run_of_heads_whose_weights_are_gone_is_trained_anew_as_inspect_says(tmp_path: Path) -> None:
    write_cache(tmp_path / "c.h5")
    train_head(tmp_path / "c.h5", tmp_path / "run", head="mlp", epochs=1)
    (weights,) = (tmp_path / "run").rglob("*.safetensors")
    before = weights.read_bytes()
    weights.unlink()
    assert looked(tmp_path / "run").fix == "the same avel train-head command with --overwrite trains it again"
    train_head(tmp_path / "c.h5", tmp_path / "run", head="mlp", epochs=1, overwrite=True)
    assert looked(tmp_path / "run", verify=True).whole
    assert weights.read_bytes() == before


@pytest.mark.shared
def test_a_dataset_comes_with_its_audit(data: Path) -> None:
    found = looked(data / "ave")
    assert (found.kind, found.whole) == ("dataset", False)
    assert found.problems == ("4097 of 4097 videos have no file",)
    assert (found.facts["samples"], found.facts["event_segments"]) == (4143, 34352)
    assert "8 test samples of videos that are also in train" in found.facts["remarks"]
    assert len(found.facts["missing_files"]) == 4097
    assert len(found.facts["samples_of_shared_videos"]) == 45
    shown = found.lines()
    assert sum("... 28 in all" in line for line in shown) == 1
    assert len(shown) < 40
    assert "28 classes and background; not whole: 4097 of 4097 videos have no file" in found.headline()
    assert looked(data / "semireal").whole


def test_nothing_is_no_kind(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="nothing is there"):
        inspect(tmp_path / "none")
