"""A folder of videos: a row's name is a path first, and what is left out is named."""

import inspect
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from avel.errors import DatasetError
from avel.grid import Grid
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.folder import list_files
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.sample import Event, Sample


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def named(root: Path, *names: str) -> Dataset:
    """The dataset whose rows name videos so."""
    table = root.parent / "events.csv"
    table.write_text(
        "file,label,start,end\n" + "".join(f"{name},Dog,{n},{n + 1}\n" for n, name in enumerate(names))
    )
    return read_dataset(root, table)


def video_ids(dataset: Dataset) -> list[str]:
    """The video of each row, in the order of rows: `named` gives row n an onset of n seconds."""
    events = [(event.onset_seconds, each.video_id) for each in dataset.samples for event in each.events or ()]
    return [video_id for _, video_id in sorted(events)]


def files(dataset: Dataset) -> list[str]:
    """The file of each row's sample, relative to the dataset; "" where it is missing."""
    path_of = {video.video_id: video.path for video in dataset.videos}
    found = [path_of[video_id] for video_id in video_ids(dataset)]
    return [os.path.relpath(path, os.path.abspath(dataset.root)) if path else "" for path in found]


def test_a_row_that_names_a_folder_means_that_folders_file(tmp_path: Path) -> None:
    root = folder(tmp_path / "v", "dog/001.mp4", "cat/001.mp4", "002.mp4")
    dataset = named(root, "dog/001.mp4", "cat/001.mp4", "./cat/001", "cat//001.mp4", "dog/../cat/001", "002")
    assert files(dataset) == ["dog/001.mp4", *["cat/001.mp4"] * 4, "002.mp4"]
    assert video_ids(dataset) == ["dog/001", *["cat/001"] * 4, "002"]


def test_another_folders_file_is_not_taken_instead(tmp_path: Path) -> None:
    root = folder(tmp_path / "v", "dog/001.mp4", "dog/002.mkv")
    names = [
        "cat/001.mp4",
        "./001.mp4",
        "dog/002.mp4",
        "../v2/dog/001.mp4",
        "/elsewhere/001.mp4",
        "v/dog/001",
    ]
    dataset = named(root, *names)
    assert files(dataset) == [""] * 6
    assert video_ids(dataset) == names


def test_a_name_without_folder_is_looked_for_in_all(tmp_path: Path) -> None:
    root = folder(tmp_path / "v", "dog/001.mp4", "cat/002.mp4", "cat/003.v2.MP4")
    assert files(named(root, "001", "002.mp4", "003.v2", "003")) == [
        "dog/001.mp4",
        "cat/002.mp4",
        "cat/003.v2.MP4",
        "",
    ]


def test_a_path_is_looked_for_before_other_folders(tmp_path: Path) -> None:
    assert files(named(folder(tmp_path / "v", "001.mp4", "dog/001.mp4"), "001", "001.mp4")) == ["001.mp4"] * 2


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("001", "may be cat/001.mp4, dog/001.mp4"),
        ("001.mp4", "may be cat/001.mp4, dog/001.mp4"),
        ("dog/002", "may be dog/002.mkv, dog/002.mp4"),
        ("002", "may be dog/002.mkv, dog/002.mp4"),
    ],
)
def test_two_files_that_could_be_meant_are_an_error(tmp_path: Path, name: str, found: str) -> None:
    root = folder(tmp_path / "v", "dog/001.mp4", "cat/001.mp4", "dog/002.mp4", "dog/002.mkv", "003.mp4")
    with pytest.raises(DatasetError, match=rf"events\.csv: line 3 \({name}\): {found}\n.*by its path below"):
        named(root, "003", name)


def test_an_absolute_path_below_the_folder_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "v", "dog/001.mp4", "cat/001.mp4")
    (tmp_path / "link").symlink_to(root)
    absolute = f"{root}/cat/001.mp4"
    assert files(named(root, absolute)) == ["cat/001.mp4"]
    assert files(named(tmp_path / "link", absolute, f"{tmp_path}/link/dog/001")) == [
        "cat/001.mp4",
        "dog/001.mp4",
    ]
    monkeypatch.chdir(tmp_path)
    assert files(named(Path("v"), absolute)) == ["cat/001.mp4"]


def test_ids_stay_apart_where_one_files_name_is_anothers_without_ending(tmp_path: Path) -> None:
    root = folder(tmp_path / "v", "a.mp4", "a.mkv", "a.mp4.mkv")
    assert [video.video_id for video in read_dataset(root).videos] == ["a.mkv", "a.mp4", "a.mp4.mkv"]
    assert files(named(root, "a.mp4", "a.mp4.mkv")) == ["a.mp4", "a.mp4.mkv"]


def test_videos_that_are_not_looked_for_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "v", "a.mp4", "anim.gif", "sub/b.MXF", "notes.txt", "._a.mp4")
    assert [video.video_id for video in read_dataset(root).videos] == ["a"]
    assert "left out: anim.gif, sub/b.MXF (2: ending not looked for)\n" in capfd.readouterr().err
    (root / "a.mp4").unlink()
    with pytest.raises(DatasetError, match=r"holds no video file; left out: anim.gif, sub/b.MXF \(2: "):
        read_dataset(root)


def test_a_row_may_name_a_file_of_any_ending(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "v", "anim.gif", "sub/b.mxf", "sub/c.mxf")
    dataset = named(root, "anim.gif", "b.mxf", "anim")
    assert files(dataset) == ["anim.gif", "sub/b.mxf", ""]
    assert "left out: sub/c.mxf (1: ending not looked for)\n" in capfd.readouterr().err


def test_linked_folders_and_links_that_lead_nowhere_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "v", "a.mp4")
    folder(tmp_path / "far", "b.mp4")
    (root / "linked").symlink_to(tmp_path / "far")
    (root / "c.mp4").symlink_to(tmp_path / "nothing.mp4")
    (root / "d.mp4").symlink_to(tmp_path / "far" / "b.mp4")
    assert [video.video_id for video in read_dataset(root).videos] == ["a", "d"]
    left_out = capfd.readouterr().err
    assert "linked (1: linked folder, not followed)" in left_out
    assert "c.mp4 (1: no file, or a broken link)" in left_out


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that any user may enter; the test goes on as one who is not root."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield place
    os.seteuid(user)
    (place / "closed").chmod(0o700)
    shutil.rmtree(place)


def test_folders_that_cannot_be_read_are_named(open_place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder(open_place, "a.mp4", "closed/b.mp4")
    (open_place / "closed").chmod(0)
    assert [video.video_id for video in read_dataset(open_place).videos] == ["a"]
    assert "left out: closed (1: folder cannot be read)" in capfd.readouterr().err


def samples_of(root: Path, *rows: str) -> Dataset:
    """The dataset of a table with these rows."""
    table = root.parent / "events.csv"
    table.write_text("\n".join(["file,label,start,end,split", *rows]) + "\n")
    return read_dataset(root, table)


def test_rows_of_one_video_and_split_are_one_sample(tmp_path: Path) -> None:
    root = folder(tmp_path / "v", "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    dataset = samples_of(
        root, "a,Dog,0.25,2,train", "b,Cat,0,1,test", "a.mp4,Dog,4,5.5,train", "./a,Cat,6,7,val", "c,,,,train"
    )
    assert dataset.samples == (
        Sample(0, "a", (Event("Dog", 0.25, 2), Event("Dog", 4, 5.5)), split="train"),
        Sample(1, "b", (Event("Cat", 0, 1),), split="test"),
        Sample(2, "a", (Event("Cat", 6, 7),), split="val"),
        Sample(3, "c", (), split="train"),
    )
    assert [video.video_id for video in dataset.videos] == ["a", "b", "c", "d"]
    assert dataset.labels(Grid())[0].tolist() == [0, 0, 2, 2, 0, 0, 2, 2, 2, 2]
    assert dataset.leaked() == {2}


def test_a_question_mark_says_that_the_events_are_not_known(tmp_path: Path) -> None:
    root = folder(tmp_path / "v", "a.mp4", "b.mp4")
    dataset = samples_of(root, "a,Dog,0,2,train", "b,?,,,test")
    assert dataset.samples[1] == Sample(1, "b", None, split="test")
    assert dataset.categories == ("Dog",)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("a,Dog,0,1,", "a,,,,"), r"line 3 \(a\): no event, and .*line 2 says of the same .*: an event"),
        (("a,,,,", "a,Dog,0,1,"), r"line 3 \(a\): an event, and .*line 2 says of the same .*: no event"),
        (("a,?,,,", "a,,,,"), r"line 3 \(a\): no event, and .*line 2 says .*: its events are not known"),
    ],
)
def test_rows_that_contradict_each_other_are_named(tmp_path: Path, rows: tuple[str, ...], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        samples_of(folder(tmp_path / "v", "a.mp4"), *rows)
    assert len(samples_of(tmp_path / "v", "a,,,,", "a,,,,", "a,Dog,0,1,train").samples) == 2


def test_clips_keep_lengths_of_their_own_where_a_longest_is_given(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    padded, own = read_dataset(tmp_path), read_dataset(tmp_path, longest_seconds=20)
    assert (padded.longest_seconds, padded.segments(1.0)) == (None, 10)
    assert (own.longest_seconds, own.segments(0.5)) == (20, 40)
    again = Dataset.from_tables(own.tables())
    assert again.longest_seconds == 20
    tables = own.tables()
    metadata = {**tables["samples"].schema.metadata, b"longest_seconds": b"-3"}
    tables["samples"] = tables["samples"].replace_schema_metadata(metadata)
    with pytest.raises(DatasetError, match="longest_seconds in the schema is '-3'"):
        Dataset.from_tables(tables)


def test_files_in_deep_folders_are_found_in_the_place_of_their_folder(tmp_path: Path) -> None:
    deep = "d/" * 150
    folder(tmp_path, "a.mp4", "c.mp4", f"{deep}b.mp4", "d.mp4")
    most, now = sys.getrecursionlimit(), len(inspect.stack())
    sys.setrecursionlimit(now + 60)  # stands for folders deeper than Python lets a function call itself
    try:
        found = list_files(tmp_path)
    finally:
        sys.setrecursionlimit(most)
    assert found.videos == ("a.mp4", "c.mp4", f"{deep}b.mp4", "d.mp4")
    assert list_files(tmp_path, below=False).videos == ("a.mp4", "c.mp4", "d.mp4")
