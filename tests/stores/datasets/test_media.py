"""Media of datasets that name videos by id: found by name in any folder, never guessed among several."""

from pathlib import Path

import pytest

from avel.errors import DatasetError
from avel.stores.datasets.media import match_media, media_files, without_ending
from avel.stores.datasets.sample import Sample, Video


def test_files_are_found_below_and_matched_by_name(tmp_path: Path) -> None:
    for name in ("a.mp4", "x/b.webm", "x/y/c.MKV", "x/a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    samples = (Sample(0, "b"), Sample(1, "b", split="test"), Sample(2, "z"))
    videos, extra = match_media(samples, media_files(tmp_path))
    assert videos == (Video("b", str(tmp_path / "x" / "b.webm")), Video("z", ""))
    assert extra == (tmp_path / "a.mp4", tmp_path / "x" / "y" / "c.MKV")
    assert list(media_files(tmp_path, below=False)) == ["a"]


def test_two_files_of_one_id_are_refused(tmp_path: Path) -> None:
    for name in ("train/a.mp4", "test/a.mp4", "b.mp4", "b.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    samples = (Sample(0, "a", where="t.csv: line 2"), Sample(1, "b"))
    with pytest.raises(
        DatasetError,
        match=r"t\.csv: line 2 \(a\): may be .*test/a\.mp4, .*; and 1 id more with several files",
    ):
        match_media(samples, media_files(tmp_path))


@pytest.mark.parametrize(
    ("name", "video_id"),
    [
        ("x/a.wav", "a"),
        ("a.MP4", "a"),
        ("a_1.5", "a_1.5"),
        ("a.b.flac", "a.b"),
        ("-a", "-a"),
        (".wav", ".wav"),
    ],
)
def test_an_id_is_a_name_without_media_ending(name: str, video_id: str) -> None:
    assert without_ending(name) == video_id
