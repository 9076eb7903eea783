"""VGGSound-AVEL: ids without start time, which several clips may have, and vectors of ten seconds."""

import json
from pathlib import Path
from typing import Any

import pytest

from avel.cli import cli
from avel.console import DONE, ERROR, run
from avel.errors import DatasetError, MissingPathError
from avel.stores.datasets.audit import audit
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.sample import Event

ROWS = (
    ("playing harp", "0Cfc0r3l5Ww", "train", [0, 1, 1, 1, 1, 1, 0, 1, 1, 1]),
    ("dog howling", "--0PQM4_123", "val", [0] * 10),
    ("playing harp", "zzzzzzzzzzz", "test", [1] * 10),
)
LABELS: dict[str, Any] = {video_id: {"label": vector} for _, video_id, _, vector in ROWS}


def layout(root: Path, labels: Any = LABELS, name: str = "vggsound-avel100k_annos.json") -> Path:
    """The authors' table with the JSON beside it, and two clips of VGGSound in a folder below."""
    (root / "video").mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{','.join(row[:3])}\n" for row in ROWS)
    (root / "vggsound-avel100k.csv").write_text("category,video_id,split\n" + rows)
    (root / name).write_text(json.dumps(labels))
    for clip in ("0Cfc0r3l5Ww_000017", "--0PQM4_123_000030"):
        (root / "video" / f"{clip}.mp4").touch()
    return root


def clips(root: Path, **settings: object) -> dict[str, str]:
    """Id -> the name of its file."""
    return {
        video.video_id: Path(video.path).name for video in read_dataset(root, **settings).videos if video.path
    }


def test_clips_are_found_by_id_and_vectors_become_events(tmp_path: Path) -> None:
    dataset = read_dataset(layout(tmp_path))
    assert [(each.video_id, each.split, each.events) for each in dataset.samples] == [
        ("0Cfc0r3l5Ww", "train", (Event("playing harp", 1, 6), Event("playing harp", 7, 10))),
        ("--0PQM4_123", "val", ()),
        ("zzzzzzzzzzz", "test", (Event("playing harp", 0, 10),)),
    ]
    assert clips(tmp_path) == {
        "0Cfc0r3l5Ww": "0Cfc0r3l5Ww_000017.mp4",
        "--0PQM4_123": "--0PQM4_123_000030.mp4",
    }
    found = audit(dataset)
    assert (found.missing_files, found.extra_files, found.dash_samples) == (("zzzzzzzzzzz",), (), 1)
    assert found.samples_of_events == {0: 1, 1: 1, 2: 1}


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ([{key: value} for key, value in LABELS.items()], "vggsound-avel100k_labels.json"),  # as of 50k
        ({key: {"label": [value["label"]]} for key, value in LABELS.items()}, "vggsound-avel100k_annos.json"),
    ],
)
def test_the_forms_of_vectors_say_the_same(tmp_path: Path, labels: Any, name: str) -> None:
    assert (
        read_dataset(layout(tmp_path / "a", labels, name)).samples
        == read_dataset(layout(tmp_path / "b")).samples
    )


def test_vectors_may_stand_in_the_table(tmp_path: Path) -> None:
    expected = read_dataset(layout(tmp_path)).samples
    rows = "".join(f'{",".join(row[:3])},"{row[3]}"\n' for row in ROWS)
    (tmp_path / "vggsound-avel100k.csv").write_text("category,video_id,split,label\n" + rows)
    (tmp_path / "vggsound-avel100k_annos.json").unlink()
    assert read_dataset(tmp_path).samples == expected


def test_several_clips_of_one_id_are_refused_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = layout(tmp_path)
    for clip in ("0Cfc0r3l5Ww_000046", "0Cfc0r3l5Ww_000009", "--0PQM4_123_000031", "unnamed_1", "unnamed_2"):
        (root / "video" / f"{clip}.mp4").touch()
    assert run(cli, ["inspect", str(root)]) == ERROR
    said = capsys.readouterr().err
    assert "2 ids with several clips" in said
    assert "0Cfc0r3l5Ww: 0Cfc0r3l5Ww_000009.mp4, 0Cfc0r3l5Ww_000017.mp4, 0Cfc0r3l5Ww_000046.mp4" in said
    assert "--0PQM4_123: --0PQM4_123_000030.mp4, --0PQM4_123_000031.mp4" in said
    assert "--format-set ambiguous=later" in said
    assert run(cli, ["extract", str(root), str(tmp_path / "s.zarr"), "--dry-run"]) == ERROR
    later = ["--format-set", "ambiguous=later", "--json"]
    assert run(cli, ["extract", str(root), str(tmp_path / "s.zarr"), "--dry-run", *later]) == DONE
    assert "2 ids with several clips; the one that starts last is taken" in capsys.readouterr().err
    assert clips(root, ambiguous="later") == {
        "0Cfc0r3l5Ww": "0Cfc0r3l5Ww_000046.mp4",
        "--0PQM4_123": "--0PQM4_123_000031.mp4",
    }
    assert [Path(path).stem for path in audit(read_dataset(root, ambiguous="later")).extra_files] == [
        *("--0PQM4_123_000030", "0Cfc0r3l5Ww_000009", "0Cfc0r3l5Ww_000017", "unnamed_1", "unnamed_2")
    ]


def test_the_later_clip_is_not_guessed(tmp_path: Path) -> None:
    root = layout(tmp_path)
    (root / "video" / "0Cfc0r3l5Ww.mp4").touch()
    with pytest.raises(DatasetError, match=r"\(0Cfc0r3l5Ww\): may be .*Ww.mp4, .*_000017.mp4"):
        read_dataset(root, ambiguous="later")


def test_a_clip_without_vector_has_unknown_events(tmp_path: Path) -> None:
    root = layout(tmp_path, {"0Cfc0r3l5Ww": LABELS["0Cfc0r3l5Ww"]})
    assert [each.events is None for each in read_dataset(root).samples] == [False, True, True]


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    root = layout(tmp_path, LABELS | {"0Cfc0r3l5Ww": {"label": [0, 1]}})
    with pytest.raises(DatasetError, match=r"line 2 \(0Cfc0r3l5Ww\): \[0, 1\] is not a list of 10 numbers"):
        read_dataset(root)
    layout(tmp_path, [LABELS, {"0Cfc0r3l5Ww": {"label": [0] * 10}}])
    with pytest.raises(DatasetError, match=r"\(0Cfc0r3l5Ww\): two vectors that differ"):
        read_dataset(root)
    layout(tmp_path, {"0Cfc0r3l5Ww": [1] * 10})
    with pytest.raises(DatasetError, match=r"_annos.json \(0Cfc0r3l5Ww\): \[1, .* is not"):
        read_dataset(root)
    (root / "vggsound-avel100k_annos.json").unlink()
    with pytest.raises(MissingPathError, match="no column 'label', and beside it neither"):
        read_dataset(root)
    (root / "vggsound-avel50k.csv").touch()
    with pytest.raises(DatasetError, match=r"holds several: vggsound-avel100k\.csv, vggsound-avel50k\.csv"):
        read_dataset(root)
