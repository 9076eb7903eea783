"""A folder of videos: a row's name is a path first, and what is left out is named."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from avel.errors import DatasetError
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.formats import read_dataset


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def named(root: Path, *names: str) -> Dataset:
    """The dataset whose rows name videos so."""
    table = root.parent / "events.csv"
    table.write_text("file,label,start,end\n" + "".join(f"{name},Dog,0,1\n" for name in names))
    return read_dataset(root, table)


def files(dataset: Dataset) -> list[str]:
    """The file of each row, relative to the dataset; "" where it is missing."""
    path_of = {video.video_id: video.path for video in dataset.videos}
    found = [path_of[row.video_id] for row in dataset.rows]
    return [os.path.relpath(path, os.path.abspath(dataset.root)) if path else "" for path in found]


def test_a_row_that_names_a_folder_means_that_folders_file(tmp_path: Path) -> None:
    root = folder(tmp_path / "v", "dog/001.mp4", "cat/001.mp4", "002.mp4")
    dataset = named(root, "dog/001.mp4", "cat/001.mp4", "./cat/001", "cat//001.mp4", "dog/../cat/001", "002")
    assert files(dataset) == ["dog/001.mp4", *["cat/001.mp4"] * 4, "002.mp4"]
    assert [row.video_id for row in dataset.rows] == ["dog/001", *["cat/001"] * 4, "002"]


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
    assert [row.video_id for row in dataset.rows] == names


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
    assert "c.mp4 (1: no file, or a link that leads nowhere)" in left_out


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
