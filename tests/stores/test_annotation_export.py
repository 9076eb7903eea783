"""Events of a store written as annotations of other datasets: what is written reads back, or is refused."""

import json
from pathlib import Path

import pytest

from avel.cli import cli
from avel.console import DONE, ERROR, USAGE, run
from avel.errors import ConfigError, StoreError, UnknownNameError
from avel.grid import Grid
from avel.stores.annotation_export import export_annotations
from avel.stores.clip_layout import StoreAttributes
from avel.stores.clip_writer import prepare_store, write_dataset
from avel.stores.datasets.dataset import make_dataset
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.sample import Event, Sample, Video
from avel.stores.location import locate
from avel.stores.manifest import Entry, ManifestWriter

SAMPLES = (
    Sample(0, "-a", (Event("Bark", 0.5, 3),), split="train"),
    Sample(1, "-a", (Event("Bell", 2, 4),), split="train"),
    Sample(2, "b", (), split="train"),
    Sample(3, "c", None, split="test"),
    Sample(4, "d", (Event("Bell", 1, 2),), split="test"),
    Sample(5, "gone", (Event("Bell", 1, 2),), split="test"),
)


def store(path: Path, *more: Sample) -> Path:
    """A store without chunks: what it says of its samples is enough."""
    location = locate(path)
    names = ("-a", "b", "c", "d", *{each.video_id for each in more} - {"b"}, "gone")
    attributes = StoreAttributes(Grid(fps=2, size=16), {"size": 16}, "digest0", "jpeg", len(names))
    prepare_store(location, attributes, names)
    write_dataset(
        location, make_dataset("made", "made", (*SAMPLES, *more), tuple(Video(n, "") for n in names))
    )
    entries = [
        Entry(n, row, "staged", settings="digest0", valid_seconds=9.5) for row, n in enumerate(names[:-1])
    ]
    gone = Entry("gone", len(entries), "failed", reason="missing", settings="digest0")
    ManifestWriter(location).append([*entries, gone])
    return path


def test_what_is_written_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export-annotations", str(store(tmp_path / "s.zarr")), str(tmp_path / "annotations.json")]
    assert run(cli, [*words, "--json"]) == DONE
    shown = json.loads(capsys.readouterr().out)
    assert (shown["clips"], shown["events"], shown["unknown"], shown["missing"]) == (4, 3, 1, ["gone"])
    database = json.loads((tmp_path / "annotations.json").read_text())["database"]
    assert [entry["duration"] for entry in database.values()] == [9.5] * 4
    assert [(each.video_id, each.split, each.events) for each in read_dataset(tmp_path).samples] == [
        ("-a", "train", (Event("Bark", 0.5, 3), Event("Bell", 2, 4))),
        ("b", "train", ()),
        ("c", "test", None),
        ("d", "test", (Event("Bell", 1, 2),)),
    ]
    assert run(cli, words) == ERROR
    assert "exists" in capsys.readouterr().err
    assert run(cli, [*words, "--overwrite", "--split", "test"]) == DONE
    assert [each.video_id for each in read_dataset(tmp_path).samples] == ["c", "d"]
    assert run(cli, [*words, "--split", "dev"]) == USAGE


def test_a_modality_that_is_lost_is_counted(tmp_path: Path) -> None:
    audible = Sample(6, "e", (Event("Bell", 1, 2, modality="audio"), Event("Bark", 3, 4)), split="val")
    written = export_annotations(store(tmp_path / "s.zarr", audible), tmp_path / "a.json", split="val")
    assert (written.events, written.of_one_modality) == (2, 1)
    told = "2 events of 1 clip; 1 event only visible or only audible, which the file does not say"
    assert written.headline().endswith(told)


def test_a_table_holds_one_split(tmp_path: Path) -> None:
    made = store(tmp_path / "s.zarr")
    with pytest.raises(ConfigError, match="samples of test, train, and DESED has a table for each split"):
        export_annotations(made, tmp_path / "train.tsv")
    for split in ("train", "test"):
        export_annotations(made, tmp_path / f"{split}.tsv", split=split)
    samples = sorted(read_dataset(tmp_path).samples, key=lambda sample: sample.video_id)
    assert [(each.video_id, each.split, len(each.events or ())) for each in samples] == [
        *(("-a", "train", 2), ("b", "train", 0), ("d", "test", 1))
    ]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    leaking = store(tmp_path / "s.zarr", Sample(6, "b", (), split="val"))
    with pytest.raises(ConfigError, match="video b is in train and in val"):
        export_annotations(leaking, tmp_path / "a.json")
    assert export_annotations(leaking, tmp_path / "a.json", split="val").clips == 1
    with pytest.raises(ConfigError, match=r"a\.txt: ends in none of \.json, \.tsv"):
        export_annotations(leaking, tmp_path / "a.txt")
    with pytest.raises(UnknownNameError, match="no format named 'ave'"):
        export_annotations(leaking, tmp_path / "b.json", format="ave")
    with pytest.raises(StoreError, match="no staged sample of val"):
        export_annotations(store(tmp_path / "t.zarr"), tmp_path / "b.json", split="val")
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("name", ["x/e", "e.mp4", " e"])
def test_desed_refuses_ids_that_would_not_read_back(tmp_path: Path, name: str) -> None:
    made = store(tmp_path / "s.zarr", Sample(6, name, (), split="val"))
    with pytest.raises(ConfigError, match=rf"'{name}' would read back as 'e'\n.*\.json"):
        export_annotations(made, tmp_path / "val.tsv", split="val")
    export_annotations(made, tmp_path / "annotations.json", split="val")
    assert read_dataset(tmp_path, format="activitynet").samples[0].video_id == name
