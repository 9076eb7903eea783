"""OV-AVEBench: several runs of a class, none, and classes that training never sees."""

import json
from pathlib import Path

import pytest

from avel.errors import DatasetError, MissingPathError
from avel.grid import Grid
from avel.stores.datasets.audit import audit
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.sample import Event, Sample

ROWS = (
    ("train", "arc welding", "close", "lWVnZzNB0iA", [0, 0, 1, 1, 0, 1, 0, 0, 0, 1]),
    ("train", "people burping", "close", "-_R1e0990i4", [0] * 10),
    ("val", "arc welding", "close", "526-vt3MvE8", [1] * 10),
    ("test", "people burping", "close", "EpxQKLhAP0s", [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("test", "baby laughter", "open", "G_ggrRDR0n0", [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
)


def layout(root: Path, below: str = "", rows: tuple[tuple, ...] = ROWS, name: str = "released_") -> Path:
    """The authors' table and JSON, in which a label is the text of a list."""
    folder = root / below
    folder.mkdir(parents=True, exist_ok=True)
    table = "".join(f"{','.join(row[:4])}\n" for row in rows)
    (folder / "ovave_dataset_meta.csv").write_text("split,cls_name,cls_type,vid_name\n" + table)
    labels = {row[3]: {"category": row[1], "label": str(row[4])} for row in rows}
    (folder / f"{name}ovavel_dataset_anno.json").write_text(json.dumps(labels, indent=4))
    return root


def test_runs_of_ones_are_events_and_zeros_are_background(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "-_R1e0990i4.mp4").touch()
    dataset = read_dataset(layout(tmp_path))
    assert dataset.samples == (
        Sample(
            0,
            "lWVnZzNB0iA",
            tuple(Event("arc welding", *times) for times in ((2, 4), (5, 6), (9, 10))),
            split="train",
            tag="seen",
        ),
        Sample(1, "-_R1e0990i4", (), split="train", tag="seen"),
        Sample(2, "526-vt3MvE8", (Event("arc welding", 0, 10),), split="val", tag="seen"),
        Sample(3, "EpxQKLhAP0s", (Event("people burping", 0, 2),), split="test", tag="seen"),
        Sample(4, "G_ggrRDR0n0", (Event("baby laughter", 1, 2),), split="test", tag="unseen"),
    )
    assert dataset.labels(Grid())[0].tolist() == [3, 3, 0, 0, 3, 0, 3, 3, 3, 0]
    found = audit(dataset)
    assert found.samples_of_events == {0: 1, 1: 3, 3: 1}
    assert (found.samples_of_tag, found.empty_samples) == ({"seen": 4, "unseen": 1}, (1,))
    assert len(found.missing_files) == 4


def test_tags_are_kept_with_the_dataset(tmp_path: Path) -> None:
    dataset = read_dataset(layout(tmp_path))
    assert [each.tag for each in Dataset.from_tables(dataset.tables()).samples] == [*["seen"] * 4, "unseen"]


def test_the_released_labels_are_preferred_and_others_can_be_named(tmp_path: Path) -> None:
    changed = tuple((*row[:4], [0] * 10) for row in ROWS)
    layout(tmp_path, "meta_anno_files", changed, name="")
    assert audit(read_dataset(tmp_path)).samples_of_events == {0: 5}
    layout(tmp_path, "meta_anno_files")
    assert audit(read_dataset(tmp_path)).samples_of_events == {0: 1, 1: 3, 3: 1}
    old = tmp_path / "meta_anno_files" / "ovavel_dataset_anno.json"
    assert audit(read_dataset(tmp_path, labels=str(old))).samples_of_events == {0: 5}
    part = tmp_path / "ovave_trainratio0.25_meta.csv"
    part.write_text("split,cls_name,cls_type,vid_name\ntrain,arc welding,close,lWVnZzNB0iA\n")
    assert len(read_dataset(tmp_path, table=str(part)).samples) == 1


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("train", "x", "closed", "a", [0] * 10), r"line 2 \(a\): cls_type 'closed' is none of close, open"),
        (("dev", "x", "open", "a", [0] * 10), r"line 2 \(a\): split 'dev' is none of train, val, test"),
        (("train", "x", "open", "a", [0] * 9), r"line 2 \(a\): '\[0, .*\]' is not a list of 10 numbers"),
        (("train", "x", "open", "a", [0] * 9 + [2]), r"\(a\): .* is not a list of 10 numbers, each 0 or 1"),
        (("train", "x", "open", "a", "[0,"), r"\(a\): '\[0,' is not a list of 10 numbers"),
        (("train", "x", "open", "a", "[" * 5000), r"\(a\): '\[\[.*' is not a list of 10 numbers"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: tuple, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        read_dataset(layout(tmp_path, rows=(row,)))


def test_table_and_labels_must_agree(tmp_path: Path) -> None:
    layout(tmp_path)
    path = tmp_path / "released_ovavel_dataset_anno.json"
    labels = json.loads(path.read_text())
    labels["526-vt3MvE8"]["category"] = "arc wielding"
    path.write_text(json.dumps(labels))
    with pytest.raises(
        DatasetError, match=r"line 4 \(526-vt3MvE8\): class 'arc welding', but .* 'arc wielding'"
    ):
        read_dataset(tmp_path)
    del labels["526-vt3MvE8"]
    path.write_text(json.dumps(labels))
    with pytest.raises(DatasetError, match=r"line 4 \(526-vt3MvE8\): .* holds no category and label of it"):
        read_dataset(tmp_path)
    path.write_text('{"a": 1, "a": 2}')
    with pytest.raises(DatasetError, match="no JSON: key 'a' is there twice"):
        read_dataset(tmp_path)
    path.unlink()
    with pytest.raises(
        MissingPathError, match=r"released_ovavel_dataset_anno\.json: no such annotation file"
    ):
        read_dataset(tmp_path)
