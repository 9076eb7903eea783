"""Datasets: AVE's layout with its traps, plain folders with or without annotations."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from avel.errors import DatasetError, MissingPathError, StoreError
from avel.grid import Grid
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.sample import Event, Sample, Video

LINES = ["Bark&-abc&good&0&10", "Male speech, man speaking&-abc&good&2&5", "Cat&_xyz&bad&3&3"]


def categories(sample: Sample) -> list[str]:
    """Classes of a sample's events."""
    return [event.category for event in sample.events or ()]


def ave_folder(root: Path, header: str = "", ending: str = "\n") -> Path:
    (root / "AVE").mkdir(parents=True)
    (root / "AVE" / "-abc.mp4").touch()
    lines = ([header] if header else []) + LINES
    (root / "Annotations.txt").write_text("\n".join(lines) + ending)
    (root / "trainSet.txt").write_text(LINES[0] + "\n")
    (root / "testSet.txt").write_text(LINES[1] + "\n" + LINES[2])
    return root


@pytest.mark.parametrize("header", ["", "Category&VideoID&Quality&StartTime&EndTime"])
@pytest.mark.parametrize("ending", ["", "\n"])
def test_header_line_and_last_newline_do_not_matter(tmp_path: Path, header: str, ending: str) -> None:
    dataset = read_dataset(ave_folder(tmp_path / "d", header, ending))
    assert [sample.number for sample in dataset.samples] == [0, 1, 2]
    assert dataset.categories == ("Bark", "Male speech, man speaking", "Cat")
    assert [sample.split for sample in dataset.samples] == ["train", "test", "test"]
    assert [video.video_id for video in dataset.videos] == ["-abc", "_xyz"]
    assert dataset.videos[1].path == ""


def test_samples_that_share_a_video_keep_their_own_labels(tmp_path: Path) -> None:
    labels = read_dataset(ave_folder(tmp_path / "d")).labels(Grid())
    assert labels[0].tolist() == [0] * 10
    assert labels[1].tolist() == [3, 3, 1, 1, 1, 3, 3, 3, 3, 3]
    assert labels[2].tolist() == [3] * 10  # an event of length none is background


def test_a_leaked_sample_is_in_another_split_than_its_video(tmp_path: Path) -> None:
    assert read_dataset(ave_folder(tmp_path / "d")).leaked() == {1}


def test_labels_follow_the_grid() -> None:
    samples = (Sample(0, "v", (Event("Bark", 0.6, 2.0),)),)
    dataset = make_dataset("d", ".", samples, (Video("v", ""),))
    assert dataset.labels(Grid(segments=3)).tolist() == [[1, 0, 1]]
    assert dataset.labels(Grid(segments=6, segment_seconds=0.5)).tolist() == [[1, 0, 0, 0, 1, 1]]


@pytest.mark.parametrize("start", ["0.5", "0", ".5", "1e0"])
def test_a_first_line_with_times_is_no_header(tmp_path: Path, start: str) -> None:
    (tmp_path / "Annotations.txt").write_text(f"Dog&abc&good&{start}&10\nCat&b&good&0&1\n")
    assert [(each.number, categories(each)) for each in read_dataset(tmp_path).samples] == [
        (0, ["Dog"]),
        (1, ["Cat"]),
    ]


def test_a_header_may_follow_empty_lines_and_stands_but_once(tmp_path: Path) -> None:
    header = "Category&VideoID&Quality&StartTime&EndTime"
    (tmp_path / "Annotations.txt").write_text(f"\n{header}\nDog&abc&good&0.5&10\n")
    assert [categories(sample) for sample in read_dataset(tmp_path).samples] == [["Dog"]]
    (tmp_path / "Annotations.txt").write_text(f"{header}\nDog&abc&good&0.5&10\n{header}\n")
    with pytest.raises(DatasetError, match=r"line 3: .* is not Category&VideoID&Quality&Start&End"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("Café&abc&good&0&10\n".encode("latin1"), "line 1, byte 4 of the file: not UTF-8: 0xe9"),
        ("Dog&a&good&0&10\nCafé&b&good&0&10".encode("latin1"), "line 2, byte 20 of the file: not UTF-8"),
        ("Dog&abc&good&0&10\n".encode("utf-16"), "line 1, byte 1 of the file: not UTF-8: 0xff"),
        ("Dog&abc&good&0&10\n".encode("utf-16-le"), "line 1, byte 2 of the file: a NUL"),
        (b"Dog&a&good&0&10\n&b&good&0&10\n", r"Annotations.txt: line 2 \(b\): the class is empty"),
        (b"Dog&a&good&0&10\nDog&&good&0&10\n", r"line 2 \(\): names no video"),
        (b"Background&a&good&0&10\n", r"line 1 \(a\): a class may not be named 'Background'"),
        (b"A\x0bB&a&good&0&10\n", r"line 1 \(a\): a line break in the class"),
    ],
)
def test_annotations_that_cannot_be_used_are_named_with_their_line(
    tmp_path: Path, data: bytes, words: str
) -> None:
    (tmp_path / "Annotations.txt").write_bytes(data)
    with pytest.raises(DatasetError, match=words):
        read_dataset(tmp_path)


def test_two_files_of_one_ave_video_are_an_error(tmp_path: Path) -> None:
    root = ave_folder(tmp_path / "d")
    (root / "AVE" / "other.mp4").touch()
    (root / "AVE" / "other.mkv").touch()
    assert [video.path for video in read_dataset(root).videos] == [str(root / "AVE" / "-abc.mp4"), ""]
    (root / "AVE" / "-abc.mkv").touch()
    with pytest.raises(DatasetError, match=r"line 1 \(-abc\): may be .*-abc\.mkv, .*-abc\.mp4"):
        read_dataset(root)


def test_ave_videos_that_are_not_looked_for_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = ave_folder(tmp_path / "d")
    (root / "AVE" / "_xyz.gif").touch()
    read_dataset(root)
    assert "AVE: left out: _xyz.gif (1: ending not looked for)" in capfd.readouterr().err


def test_an_event_beyond_the_grid_is_named(tmp_path: Path) -> None:
    (tmp_path / "Annotations.txt").write_text("Dog&a&good&0&10\nDog&b&good&460&465\nDog&c&good&9.5&20\n")
    dataset = read_dataset(tmp_path)
    dataset.check_grid(Grid(segments=465))
    with pytest.raises(DatasetError, match=r"line 2 \(b\): event from 460 s to 465 s lies beyond .* 10 s\n"):
        dataset.check_grid(Grid())
    with pytest.raises(DatasetError, match=r"line 2 \(b\): .* grid of 9 s, and 1 more do"):
        dataset.check_grid(Grid(segments=9))
    samples = (Sample(0, "v", (Event("Dog", 10.0, 11.0),)),)
    with pytest.raises(DatasetError, match=r"folder: sample 0 \(v\): event from 10 s to 11 s lies beyond"):
        make_dataset("d", "folder", samples, (Video("v", ""),)).check_grid(Grid())


@pytest.mark.parametrize(
    ("line", "words"),
    [("Bark&x&good&0", "line 2"), ("Bark&x&good&a&b", "line 2"), ("Bark&x&good&5&2", "5.0 s to 2.0 s")],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "Annotations.txt").write_text(f"Cat&y&good&0&10\n{line}\n")
    with pytest.raises(DatasetError, match=words):
        read_dataset(tmp_path)


def test_a_split_line_that_is_no_annotation_is_named(tmp_path: Path) -> None:
    root = ave_folder(tmp_path / "d")
    (root / "valSet.txt").write_text("Cat&zzz&good&0&10\n")
    with pytest.raises(DatasetError, match=r"valSet\.txt: line 1 \(zzz\)"):
        read_dataset(root)


def test_a_sample_in_two_splits_is_refused(tmp_path: Path) -> None:
    root = ave_folder(tmp_path / "d")
    (root / "valSet.txt").write_text(LINES[0])
    with pytest.raises(DatasetError, match="in train and in val"):
        read_dataset(root)


def test_an_annotation_that_is_there_twice_is_in_its_split_twice(tmp_path: Path) -> None:
    root = ave_folder(tmp_path / "d")
    (root / "Annotations.txt").write_text("\n".join([*LINES, LINES[0]]))
    assert [sample.split for sample in read_dataset(root).samples] == ["train", "test", "test", "train"]


def test_a_plain_folder_needs_no_annotations(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.MKV", "sub/a.mp4", "same.mp4", "same.avi", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    dataset = read_dataset(tmp_path)
    assert {video.video_id for video in dataset.videos} == {"a", "b", "sub/a", "same.mp4", "same.avi"}
    assert dataset.samples == ()
    assert dataset.labels(Grid()).shape == (0, 10)


def test_a_csv_names_videos_by_id_or_file(tmp_path: Path) -> None:
    (tmp_path / "-a.mp4").touch()
    (tmp_path / "b.mp4").touch()
    table = tmp_path / "events.csv"
    table.write_text(
        'File,Label,Start,End,Split\n-a.mp4,"Bark, loud",0,2.5,train\nb,Cat,1,2,test\ngone,Cat,1,2,\n'
    )
    dataset = read_dataset(tmp_path, table)
    assert [(each.video_id, categories(each), each.split) for each in dataset.samples] == [
        ("-a", ["Bark, loud"], "train"),
        ("b", ["Cat"], "test"),
        ("gone", ["Cat"], ""),
    ]
    assert [video.video_id for video in dataset.videos if not video.path] == ["gone"]


def test_a_csv_without_the_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "e.csv").write_text("file,label,start\na,Bark,0\n")
    with pytest.raises(DatasetError, match="no column for offset_seconds; it has file, label, start"):
        read_dataset(tmp_path, tmp_path / "e.csv")


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="no folder of videos"):
        read_dataset(tmp_path / "no")
    with pytest.raises(DatasetError, match="holds no video file"):
        read_dataset(tmp_path)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    dataset = read_dataset(ave_folder(tmp_path / "d"))
    for name, table in dataset.tables().items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    tables = {name: pq.read_table(tmp_path / f"{name}.parquet") for name in dataset.tables()}
    assert Dataset.from_tables(tables) == dataset


@pytest.mark.shared
def test_aves_own_annotations(data: Path) -> None:
    dataset = read_dataset(data / "ave")
    assert (len(dataset.samples), len(dataset.videos), len(dataset.categories)) == (4143, 4097, 28)
    assert Counter(sample.split for sample in dataset.samples) == {"train": 3339, "val": 402, "test": 402}
    labels = dataset.labels(Grid())
    assert int((labels == dataset.background).sum()) == 7078
    leaked = [each.split for each in dataset.samples if each.number in dataset.leaked()]
    assert (leaked.count("val"), leaked.count("test")) == (10, 8)


@pytest.mark.shared
def test_labels_equal_the_authors_segment_labels(data: Path) -> None:
    h5py = pytest.importorskip("h5py")
    dataset = read_dataset(data / "ave")
    with h5py.File(data / "ave" / "labels_closs.h5") as file:
        has_event = file["avadataset"][:] > 0
    ours = dataset.labels(Grid()) != dataset.background
    assert int((ours != has_event).any(1).sum()) == 0
    with h5py.File(data / "ave" / "mil_labels.h5") as file:
        category = file["avadataset"][:].argmax(1)
    assert np.array_equal(category, dataset.event_table().category)


def test_videos_are_found_from_any_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()
    monkeypatch.chdir(tmp_path)
    (video,) = read_dataset("clips").videos
    assert video.path == str(tmp_path / "clips" / "a.mp4")


def test_a_damaged_order_file_is_named(tmp_path: Path) -> None:
    import h5py

    root = ave_folder(tmp_path / "d")
    for name in ("trainSet.txt", "testSet.txt"):
        (root / name).unlink()
    order = root / "train_order.h5"
    order.write_bytes(b"half a file")
    with pytest.raises(StoreError, match=r"train_order.h5: not a readable HDF5 file.*\n.*fetch it again"):
        read_dataset(root)
    wrong = {
        "missing": ("rows", [0]),
        "0 dimensions": ("order", 3),
        "does not hold": ("order", [0.5]),
        "not read": ("order", ["a"]),
    }
    for says, (key, values) in wrong.items():
        with h5py.File(order, "w") as file:
            file[key] = values
        with pytest.raises(StoreError, match=rf"train_order.h5: order .*{says}"):
            read_dataset(root)


def test_classes_without_times_and_modalities_are_checked_and_kept(tmp_path: Path) -> None:
    videos = (Video("a", ""), Video("b", ""))
    audible = Event("bark", 0, 2, modality="audio")
    samples = (Sample(0, "a", None, categories=("bell", "bark")), Sample(1, "b", (audible,)))
    dataset = make_dataset("d", tmp_path, samples, videos)
    assert dataset.categories == ("bell", "bark")
    table = dataset.class_table()
    assert (table.known.tolist(), table.sample.tolist(), table.category.tolist()) == (
        [True, False],
        [0, 0],
        [0, 1],
    )
    assert dataset.event_table().modality.tolist() == [1]
    assert Dataset.from_tables(dataset.tables()) == dataset
    with pytest.raises(DatasetError, match=r"\(b\): has events that are only visible or only audible"):
        dataset.labels(Grid())
    for broken, says in (
        (Sample(0, "a", (), categories=("bell",)), "gives classes beside its events"),
        (Sample(0, "a", None, categories=("background",)), "may not be named 'background'"),
        (Sample(0, "a", (Event("bark", 0, 1, modality="smell"),)), "modality 'smell'"),  # type: ignore[arg-type]
    ):
        with pytest.raises(DatasetError, match=says):
            make_dataset("d", tmp_path, (broken,), videos)
