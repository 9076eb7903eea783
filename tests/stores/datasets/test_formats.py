"""Formats in a registry: found by what lies in a folder, chosen by name; docs/extending.md adds one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from avel.cli import cli
from avel.console import DONE, ERROR, USAGE, run
from avel.errors import ConfigError, DatasetError, UnknownNameError
from avel.stores.datasets.formats import read_dataset
from tests.installed import install

ROOT = Path(__file__).parents[3]
SECTION = (ROOT / "docs" / "extending.md").read_text().split("## A dataset format")[1]
TRACKS = {"a": "0.5\t2\tbark\n4.25\t5\tbark\n", "b": "", "c": "1\t3\tmeow, loud\n"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The format of the page as an installed package: a folder for PYTHONPATH."""
    return install(SECTION, "tracks", "avel.dataset_formats", tmp_path)


def avel(package: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The command line with the package installed."""
    return subprocess.run(
        [sys.executable, "-m", "avel", *map(str, words)],
        env=os.environ | {"PYTHONPATH": f"{package}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


def recordings(root: Path) -> Path:
    """Empty video files with tracks, and one without."""
    root.mkdir()
    for name in (*TRACKS, "d"):
        (root / f"{name}.mp4").touch()
    for name, text in TRACKS.items():
        (root / f"{name}.txt").write_text(text)
    return root


def test_a_format_of_another_package_is_found_and_set(package: Path, tmp_path: Path) -> None:
    root = recordings(tmp_path / "recordings")
    facts = json.loads(avel(package, "inspect", root, "--json").stdout)["facts"]
    assert (facts["samples"], facts["videos"], facts["extra_files"]) == (3, 4, [str(root / "d.mp4")])
    assert facts["events_of_class"] == {"bark": 2, "meow, loud": 1}
    assert facts["samples_of_events"] == {"0": 1, "1": 1, "2": 1}
    assert facts["samples_of_split"] == {"val": 1, "train": 2}
    chosen = ("--format", "tracks", "--format-set", "val-every=2")
    facts = json.loads(avel(package, "inspect", root, "--json", *chosen).stdout)["facts"]
    assert facts["samples_of_split"] == {"val": 2, "train": 1}
    staged = avel(package, "extract", root, tmp_path / "s.zarr", *chosen, "--dry-run", "--json")
    assert (staged.returncode, json.loads(staged.stdout)["videos"]) == (DONE, 4), staged.stderr


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("val_evry=3", "--format-set of tracks: no setting named 'val_evry'\n  next: did you mean val_every"),
        ("foo=3", "--format-set of tracks: no setting named 'foo'\n  next: choose from val_every"),
        ("val_every=1", "--format-set of tracks: val_every='1' must be at least 2"),
    ],
)
def test_settings_of_a_format_are_checked(package: Path, tmp_path: Path, setting: str, words: str) -> None:
    refused = avel(package, "inspect", recordings(tmp_path / "r"), "--format-set", setting)
    assert refused.returncode == USAGE
    assert words in refused.stderr


def test_a_file_cannot_set_a_format(package: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[extract.tracks]\nval_every = 3\n")
    given = recordings(tmp_path / "r"), tmp_path / "s.zarr", "--config", tmp_path / "c.toml"
    refused = avel(package, "extract", *given)
    assert refused.returncode == USAGE
    assert "next: settings of tracks are given by --format-set val_every=3" in refused.stderr


def test_a_line_that_a_format_cannot_read_is_named(package: Path, tmp_path: Path) -> None:
    root = recordings(tmp_path / "r")
    (root / "b.txt").write_text("1\t2\tbark\n3\t2\tbark\n")
    refused = avel(package, "extract", root, tmp_path / "s.zarr")
    assert refused.returncode == ERROR
    assert f"{root}/b.txt: line 2 (b): event from 3.0 s to 2.0 s" in refused.stderr
    assert not (tmp_path / "s.zarr").exists()


def test_two_formats_that_match_are_named_and_one_can_be_chosen(package: Path, tmp_path: Path) -> None:
    root = recordings(tmp_path / "r")
    (root / "Annotations.txt").write_text("Dog&a&good&0&10\n")
    refused = avel(package, "extract", root, tmp_path / "s.zarr")
    assert refused.returncode == ERROR
    assert f"{root}: may be read as ave or as tracks" in refused.stderr
    assert "--format ave" in refused.stderr
    assert not (tmp_path / "s.zarr").exists()
    for name, classes, extra in (
        ("ave", ["Dog"], "bcd"),
        ("tracks", ["bark", "meow, loud"], "d"),
        ("folder", [], ""),  # no sample names any video
    ):
        facts = json.loads(avel(package, "inspect", root, "--format", name, "--json").stdout)["facts"]
        assert list(facts["events_of_class"]) == classes
        assert facts["extra_files"] == [str(root / f"{stem}.mp4") for stem in extra]


def test_a_plain_folder_is_what_no_other_format_matches(tmp_path: Path) -> None:
    (tmp_path / "Annotations.txt").write_text("Dog&x&good&0&10\n")
    (tmp_path / "y.mp4").touch()
    (tmp_path / "e.csv").write_text("file,label,start,end\ny,Cat,0,1\n")
    assert [video.video_id for video in read_dataset(tmp_path).videos] == ["x"]
    assert [video.video_id for video in read_dataset(tmp_path, format="folder").videos] == ["y"]
    assert read_dataset(tmp_path, tmp_path / "e.csv").categories == ("Cat",)
    with pytest.raises(UnknownNameError, match="no dataset format named 'avee'"):
        read_dataset(tmp_path, format="avee")
    with pytest.raises(ConfigError, match="'ave' has no settings, but was given annotations"):
        read_dataset(tmp_path, "e.csv", format="ave")
    with pytest.raises(ConfigError, match="'llp' takes no --annotations"):
        read_dataset(tmp_path, "e.csv", format="llp")
    (tmp_path / "Annotations.txt").unlink()
    (tmp_path / "y.mp4").unlink()
    with pytest.raises(DatasetError, match="holds no video file"):
        read_dataset(tmp_path)


def test_the_working_folder_has_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "y.mp4").touch()
    monkeypatch.chdir(tmp_path / "recordings")
    assert read_dataset(".").name == "recordings"


def test_inspect_reads_a_table_of_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "y.mp4").touch()
    (tmp_path / "e.csv").write_text("file,label,start,end\ny,Cat,0,1\ny,Cat,3,4\n")
    assert (
        run(cli, ["inspect", str(tmp_path / "d"), "--json", "--annotations", str(tmp_path / "e.csv")]) == DONE
    )
    assert json.loads(capsys.readouterr().out)["facts"]["samples_of_events"] == {"2": 1}


@pytest.mark.parametrize("url", ["s3://bucket/videos", "gs://bucket/videos", "https://example.org/videos"])
def test_videos_in_an_object_store_are_refused_by_name(url: str) -> None:
    for path in (url, Path(url)):
        with pytest.raises(ConfigError, match=f"{re.escape(str(path))}: videos are read from a folder"):
            read_dataset(path)
