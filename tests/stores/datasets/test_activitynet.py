"""ActivityNet's JSON, and UnAV-100's: any number of events, also at once, read and written."""

import json
from pathlib import Path
from typing import Any

import pytest

from avel.errors import DatasetError, MissingPathError
from avel.grid import Grid
from avel.stores.datasets.activitynet import activitynet_text
from avel.stores.datasets.audit import audit
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.labels import PADDED
from avel.stores.datasets.sample import Annotated, Event, Sample


def entry(subset: str, *events: tuple[str, float, float], **more: Any) -> dict[str, Any]:
    annotations = [{"segment": [onset, offset], "label": label, **more} for label, onset, offset in events]
    return {"subset": subset, "duration": 42.5, "annotations": annotations}


DATABASE = {
    "__2MwJ2uHu0": entry("train", *[("man speaking", 0.0, 4.25)] * 2, ("dog barking", 3.5, 9.9), label_id=1),
    "-1XDDTlnBdc": entry("validation", ("dog barking", 30.0, 41.0), label_id=0),
    "0012y1s1bJI": entry("test"),
    "00dadPtnWZI": entry("Testing", ("man speaking", 1, 2)),
}


def layout(root: Path, database: Any = DATABASE, name: str = "annotations/unav100_annotations.json") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"database": database}))
    (root / "raw_videos").mkdir(exist_ok=True)
    for clip in ("__2MwJ2uHu0", "v_-1XDDTlnBdc", "other"):
        (root / "raw_videos" / f"{clip}.mp4").touch()
    return root


def test_clips_have_lengths_of_their_own_up_to_the_longest_duration(tmp_path: Path) -> None:
    database = {
        "a": {"subset": "train", "duration": 12.4, "annotations": [{"segment": [1, 3], "label": "bell"}]},
        "b": {"subset": "test", "duration": 2.6, "annotations": [{"segment": [0, 9], "label": "bell"}]},
    }
    dataset = read_dataset(layout(tmp_path, database))
    assert dataset.longest_seconds == 12.4
    assert [dataset.segments(seconds) for seconds in (1.0, 0.5)] == [13, 25]
    labels = dataset.labels(Grid(dataset.segments(1.0)))
    assert labels.tolist() == [
        [1, 0, 0, *[1] * 9, PADDED],  # 0.4 of the last second is less than half
        [0, 0, 0, *[PADDED] * 10],
    ]
    capped = read_dataset(tmp_path, longest_seconds=5)
    assert (capped.segments(1.0), capped.labels(Grid(5)).tolist()) == (
        5,
        [[1, 0, 0, 1, 1], [0, 0, 0, PADDED, PADDED]],
    )
    padded = read_dataset(tmp_path, longest_seconds=0)
    assert (padded.longest_seconds, padded.segments(1.0)) == (None, 10)
    found = audit(dataset)
    assert (found.longest_seconds, found.event_segments, found.background_segments) == (12.4, 5, 10)
    assert (found.whole_clip_samples, found.trivial_baselines["test"].always_background) == (1, 0)
    del database["b"]["duration"]
    without = read_dataset(layout(tmp_path, database))
    with pytest.raises(DatasetError, match=r"b.*: the annotations do not say how long the video is"):
        without.labels(Grid(13))


@pytest.mark.parametrize("duration", [0, -1, "long", True, 10**400])
def test_a_duration_that_is_no_length_is_named(tmp_path: Path, duration: Any) -> None:
    database = {"a": {"subset": "train", "duration": duration, "annotations": []}}
    with pytest.raises(DatasetError, match=f"json: a: duration {duration!r} is not a length"):
        read_dataset(layout(tmp_path, database))


def test_each_video_is_a_sample_with_its_events(tmp_path: Path) -> None:
    dataset = read_dataset(layout(tmp_path))
    speaking = Event("man speaking", 0, 4.25)
    assert dataset.samples == (
        Sample(0, "__2MwJ2uHu0", (speaking, Event("dog barking", 3.5, 9.9)), split="train"),
        Sample(1, "-1XDDTlnBdc", (Event("dog barking", 30, 41),), split="val"),
        Sample(2, "0012y1s1bJI", (), split="test"),
        Sample(3, "00dadPtnWZI", (Event("man speaking", 1, 2),), split="test"),
    )
    assert [Path(video.path).name for video in dataset.videos] == [
        *("__2MwJ2uHu0.mp4", "v_-1XDDTlnBdc.mp4", "", "")
    ]
    found = audit(dataset)
    assert (found.overlapping_samples, found.empty_samples) == ((0,), (2,))
    assert [Path(path).name for path in found.extra_files] == ["other.mp4"]
    assert found.missing_files == ("0012y1s1bJI", "00dadPtnWZI")
    with pytest.raises(
        DatasetError, match=r"'man speaking' and 'dog barking' overlap from 3\.5 s to 4\.25 s"
    ):
        dataset.labels(Grid(segments=43))
    with pytest.raises(DatasetError, match=r"-1XDDTlnBdc: annotation 1 .* lies beyond the grid of 10 s"):
        dataset.check_grid(Grid())


def test_a_subset_without_any_annotation_is_not_known(tmp_path: Path) -> None:
    hidden = {"a": entry("training", ("x", 0, 1)), "b": entry("training"), "c": entry("testing")}
    dataset = read_dataset(layout(tmp_path, hidden | {"d": {"subset": "training"}}, "activity_net.v1-3.json"))
    assert [each.events for each in dataset.samples] == [(Event("x", 0, 1),), (), None, None]


def test_the_annotations_can_be_named_and_tell_the_format(tmp_path: Path) -> None:
    layout(tmp_path, DATABASE, "mine.json")
    assert len(read_dataset(tmp_path, tmp_path / "mine.json").samples) == 4
    layout(tmp_path)
    layout(tmp_path, {"__2MwJ2uHu0": entry("test")}, "more_annotations.json")
    with pytest.raises(
        DatasetError, match=r"holds several: annotations/unav100_annotations\.json, more_annotations\.json"
    ):
        read_dataset(tmp_path)
    with pytest.raises(MissingPathError, match=r"holds no \*annotations\.json or activity_net\*\.json"):
        read_dataset(tmp_path / "raw_videos", format="activitynet")


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"a": entry("dev")}, "a: subset 'dev' is none of train, training, val"),
        ({"a": entry("train", ("x", 3, 1))}, r"a: annotation 1 \(a\): event from 3\.0 s to 1\.0 s"),
        ({"a": entry("train", ("x", 0, 1), ("", 0, 1))}, r"a: annotation 2 \(a\): the class is empty"),
        ({"a": entry("train", (3, 0, 1))}, "a: annotation 1: .* is not"),
        (
            {"a": {"subset": "train", "annotations": [{"segment": [1], "label": "x"}]}},
            "annotation 1: .* is not",
        ),
        ({"a": {"subset": "train", "annotations": [{"segment": [0, float("nan")], "label": "x"}]}}, "is not"),
        ({"a": entry("train", ("x", 0, 10**400))}, "a: annotation 1: .* is not"),
        ({"a": {"subset": "train", "annotations": 3}}, "a: .* is not"),
        ({"a": []}, r"a: \[\] is not"),
        ([], 'holds no {"database"'),
    ],
)
def test_an_entry_that_cannot_be_used_is_named(tmp_path: Path, held: Any, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        read_dataset(layout(tmp_path, held))


def test_text_that_is_no_json_is_named_with_its_line(tmp_path: Path) -> None:
    layout(tmp_path)
    (tmp_path / "annotations" / "unav100_annotations.json").write_text('{"database":\n{,}}')
    with pytest.raises(DatasetError, match=r"annotations\.json: no JSON: .* line 2 column 2"):
        read_dataset(tmp_path)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    events = (Event("dog, barking", 0.5, 2.0), Event("é", 1.25, 7.0))
    clips = (
        Annotated("a", 10.0, events, "train", (0.75, 0.5)),
        Annotated("b", 8.5, (), "val"),
        Annotated("c", 8.5, None, "test"),
        Annotated("d", 9.0, events[:1]),
    )
    text = activitynet_text(clips)
    (tmp_path / "annotations.json").write_text(text, encoding="utf-8")
    written = json.loads(text)["database"]
    assert written["a"]["annotations"][0] == {"segment": [0.5, 2.0], "label": "dog, barking", "score": 0.75}
    assert {name: each["duration"] for name, each in written.items()} == {"a": 10, "b": 8.5, "c": 8.5, "d": 9}
    assert "annotations" not in written["c"]
    assert [(each.video_id, each.events, each.split) for each in read_dataset(tmp_path).samples] == [
        *(("a", events, "train"), ("b", None, "val"), ("c", None, "test"), ("d", events[:1], ""))
    ]
