"""Events from probabilities, and the formats they are written in, read back by other readers."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avel.heads.tasks.multi_label import MultiLabel
from avel.heads.tasks.single_label import SingleLabel
from avel.recipes.predicting.events import WRITERS, FoundEvent, VideoEvents, find_events, stamp
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.sample import Event

NAMES = ("Bell", "Dog, <b>barking</b> --> &")
TASK = SingleLabel(NAMES)


def probabilities(classes: list[int], sure: float = 0.8) -> np.ndarray:
    """(L, 3) with `sure` on the given class."""
    table = np.full((len(classes), 3), (1 - sure) / 2)
    table[np.arange(len(classes)), classes] = sure
    return table


def found(*events: FoundEvent) -> VideoEvents:
    return VideoEvents("-a b.mp4", 4.5, 1.0, events, (("Bell", 0.8),) * 4)


def test_runs_of_a_class_become_events_that_end_with_the_video() -> None:
    table = probabilities([2, 0, 0, 1, 1])
    table[2] = (0.6, 0.2, 0.2)
    events = find_events(table, TASK, 0.5, valid_seconds=2.3)
    assert events == (FoundEvent(0.5, 1.5, "Bell", 0.7), FoundEvent(1.5, 2.3, NAMES[1], 0.8))


def test_background_alone_is_no_event() -> None:
    assert find_events(probabilities([2, 2]), TASK, 1.0, 2.0) == ()
    assert "no event" in WRITERS["table"]([found()])


def test_several_events_at_once_are_found_in_each_track() -> None:
    task = MultiLabel(("Bell", "Dog"), ("audio", "visual"))
    table = np.array([[0.9, 0.1, 0.2, 0.0], [0.7, 0.6, 0.2, 0.5], [0.4, 0.8, 0.2, 0.9]])
    events = find_events(table, task, 1.0, valid_seconds=2.5)
    assert events == (
        FoundEvent(0.0, 2.0, "Bell", 0.8, "audio"),
        FoundEvent(1.0, 2.5, "Dog", 0.7, "audio"),
        FoundEvent(1.0, 2.5, "Dog", 0.7, "visual"),
    )
    assert "Dog (visual)" in WRITERS["table"]([found(*events)])
    assert WRITERS["audacity"]([found(*events)]).splitlines()[0].endswith("Bell (audio)")
    assert [line["track"] for line in csv.DictReader(io.StringIO(WRITERS["csv"]([found(*events)])))] == [
        "audio",
        "audio",
        "visual",
    ]


def test_json_and_csv_hold_what_was_found() -> None:
    video = found(FoundEvent(0.5, 2.0, NAMES[1], 0.75))
    (read,) = json.loads(WRITERS["json"]([video]))
    assert read["events"] == [
        {"start_seconds": 0.5, "end_seconds": 2.0, "category": NAMES[1], "probability": 0.75, "track": ""}
    ]
    (line,) = csv.DictReader(io.StringIO(WRITERS["csv"]([video])))
    assert line == {
        "video": "'-a b.mp4",  # which no spreadsheet takes for a formula
        "start_seconds": "0.5",
        "end_seconds": "2.0",
        "category": NAMES[1],
        "probability": "0.75",
        "track": "",
    }


def test_subtitles_follow_the_format_and_hold_no_markup() -> None:
    text = WRITERS["vtt"](
        [found(FoundEvent(0.5, 2.0, NAMES[1], 0.75), FoundEvent(2.0, 4.5, "Bell\n\nx", 1.0))]
    )
    header, first, second = text.rstrip("\n").split("\n\n")
    assert header == "WEBVTT"
    assert first.split("\n") == [
        "00:00:00.500 --> 00:00:02.000",
        "Dog, &lt;b&gt;barking&lt;/b&gt; --&gt; &amp; 75%",
    ]
    assert second.split("\n") == ["00:00:02.000 --> 00:00:04.500", "Bell x 100%"]


def test_a_label_track_holds_a_line_for_each_event() -> None:
    text = WRITERS["audacity"]([found(FoundEvent(0.5, 2.0, "Bell\tx", 0.75), FoundEvent(2, 4.5, "Dog", 1))])
    assert text == "0.500000\t2.000000\tBell x\n2.000000\t4.500000\tDog\n"
    assert WRITERS["audacity"]([found()]) == ""


def test_annotations_of_the_field_read_back_as_events(tmp_path: Path) -> None:
    events = FoundEvent(0.5, 2.0, NAMES[1], 0.75), FoundEvent(2.0, 4.5, "Bell", 1.0)
    videos = [found(*events), replace(found(), video="x/b.mp4")]
    for kind, name in (("activitynet", "annotations.json"), ("desed", "test.tsv")):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / name).write_text(WRITERS[kind](videos))
        dataset = read_dataset(folder, format=kind)
        assert [(each.video_id, each.events) for each in dataset.samples] == [
            ("-a b", (Event(NAMES[1], 0.5, 2.0), Event("Bell", 2.0, 4.5))),
            ("b", ()),
        ]
    database = json.loads(WRITERS["activitynet"](videos))["database"]
    assert [each["score"] for each in database["-a b"]["annotations"]] == [0.75, 1.0]
    assert database["-a b"]["duration"] == 4.5


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00:00.000"), (59.9996, "00:01:00.000"), (7325.25, "02:02:05.250")]
)
def test_stamp(seconds: float, text: str) -> None:
    assert stamp(seconds) == text
