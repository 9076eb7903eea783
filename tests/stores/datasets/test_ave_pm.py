"""AVE-PM's tables: a sample a row, named classes, fractional seconds, clips by number."""

from pathlib import Path

import pytest

from avel.errors import DatasetError, MissingPathError
from avel.grid import Grid
from avel.stores.datasets.audit import audit
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.sample import Event, Sample

CLASSES = "class_id,class_name\n0,meowing\n29,playing suona\n"
TABLES = {
    "train": "0,0.0,10.0,29\n4,0.04,9.3,0\n",
    "val": "10,0.42,10.0,29\n",
    "test": "3,1.98,8.98,0\n8,4.5,5.49,29\n",
}


def layout(root: Path, **tables: str) -> Path:
    """The authors' folder with empty clips but for sample 8, and one clip too many."""
    (root / "videos").mkdir(parents=True)
    (root / "class_name_mapping.csv").write_text(CLASSES)
    for split, rows in (TABLES | tables).items():
        (root / f"{split}.csv").write_text("sample_id,onset,offset,label\n" + rows)
    for name in ("0", "4", "10", "3", "99"):
        (root / "videos" / f"{name}.mp4").touch()
    return root


def test_rows_are_samples_of_named_classes(tmp_path: Path) -> None:
    dataset = read_dataset(layout(tmp_path / "AVE-PM"))
    assert dataset.samples == (
        Sample(0, "0", (Event("playing suona", 0, 10),), split="train"),
        Sample(1, "4", (Event("meowing", 0.04, 9.3),), split="train"),
        Sample(2, "10", (Event("playing suona", 0.42, 10),), split="val"),
        Sample(3, "3", (Event("meowing", 1.98, 8.98),), split="test"),
        Sample(4, "8", (Event("playing suona", 4.5, 5.49),), split="test"),
    )
    assert {video.video_id: Path(video.path).name for video in dataset.videos}["8"] == ""
    assert dataset.samples[4].where.endswith("test.csv: line 3")
    suona, meow, none = 0, 1, dataset.background
    assert dataset.labels(Grid()).tolist() == [
        [suona] * 10,
        [meow] * 9 + [none],  # 0.3 s of the last second
        [suona] * 10,
        [none, none, *[meow] * 7, none],
        [none] * 4 + [suona] + [none] * 5,  # half of second 4 is enough, 0.49 s of second 5 are not
    ]


def test_the_audit_counts_it_through(tmp_path: Path) -> None:
    found = audit(read_dataset(layout(tmp_path, val="3,0,1,0\n")))
    assert (found.samples, found.videos, found.classes) == (5, 4, 2)
    assert found.samples_of_split == {"train": 2, "val": 1, "test": 2}
    assert (found.event_segments, found.background_segments) == (10 + 9 + 1 + 7 + 1, 22)
    assert found.videos_in_both == {"train and val": 0, "train and test": 0, "val and test": 1}
    assert found.missing_files == ("8",)
    assert [Path(path).name for path in found.extra_files] == ["10.mp4", "99.mp4"]
    assert found.trivial_baselines["test"].always_background == 60


def test_the_repository_itself_is_found_and_videos_may_lie_elsewhere(tmp_path: Path) -> None:
    layout(tmp_path / "repository" / "dataset" / "AVE-PM")
    (tmp_path / "clips" / "part").mkdir(parents=True)
    (tmp_path / "clips" / "part" / "8.mp4").touch()
    dataset = read_dataset(tmp_path / "repository", videos=str(tmp_path / "clips"))
    assert [video.video_id for video in dataset.videos if video.path] == ["8"]
    with pytest.raises(MissingPathError, match="nowhere: no such folder"):
        read_dataset(tmp_path / "repository", videos=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("0,0,1,7\n", r"train.csv: line 2 \(0\): class '7' is not in class_name_mapping.csv"),
        ("0,0,x,0\n", r"train.csv: line 2 \(0\): 'x' is not a number of seconds"),
        ("0,0,1\n", "train.csv: line 2: 3 fields, the header has 4"),
        ("0,3,1,0\n", r"train.csv: line 2 \(0\): event from 3.0 s to 1.0 s"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, rows: str, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        read_dataset(layout(tmp_path, train=rows))


def test_what_is_absent_or_there_twice_is_named(tmp_path: Path) -> None:
    root = layout(tmp_path)
    for row, words in (("0,purring", "class_id 0"), ("7,meowing", "class_name 'meowing'")):
        (root / "class_name_mapping.csv").write_text(f"{CLASSES}{row}\n")
        with pytest.raises(DatasetError, match=f"line 4: {words} is there twice"):
            read_dataset(root)
    (root / "class_name_mapping.csv").write_text("id,class_name\n")
    with pytest.raises(DatasetError, match="no column class_id; it has id, class_name"):
        read_dataset(root)
    for split in TABLES:
        (root / f"{split}.csv").unlink()
    with pytest.raises(MissingPathError, match=r"holds no train\.csv"):
        read_dataset(root)
    with pytest.raises(MissingPathError, match=r"holds no class_name_mapping\.csv"):
        read_dataset(tmp_path / "videos", format="ave-pm")
