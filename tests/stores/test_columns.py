"""Records that are kept as columns are a sequence of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from avel.stores import columns
from avel.stores.columns import is_one_of, places_in
from avel.stores.datasets.sample import Event, Sample, Samples, Video, Videos

VIDEOS = tuple(Video(f"clip{number}", f"/clips/{number}.mp4") for number in range(5))


def test_columns_are_a_sequence_of_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BLOCK_RECORDS", 2)
    found = Videos.of(VIDEOS)
    assert len(found) == 5
    assert tuple(found) == VIDEOS
    assert (found[0], found[-1], found[1:4]) == (VIDEOS[0], VIDEOS[4], VIDEOS[1:4])
    assert found == VIDEOS
    assert found == VIDEOS
    assert found != VIDEOS[:4]
    assert found != (*VIDEOS[:4], VIDEOS[0])
    with pytest.raises(IndexError):
        found[5]
    assert Videos.of(found) is found


def test_paths_of_videos_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = Videos.of([Video("a", "a.mp4"), Video("b", ""), Video("c", "/x/../c.mp4")]).texts("path")
    assert paths == [str(tmp_path / "a.mp4"), "", "/c.mp4"]


def test_events_stand_in_the_order_of_their_samples() -> None:
    samples = (
        Sample(7, "b", (Event("x", 0, 1), Event("y", 2, 3, modality="audio")), split="train", where="line 1"),
        Sample(3, "a", ()),
        Sample(9, "c", None, categories=("y", "z")),
        Sample(5, "b", (Event("x", 4, 5, "line 9"),), tag="seen"),
    )
    found = Samples.of(samples)
    assert found == samples
    assert found.sample_of_event.tolist() == [0, 0, 3]
    assert found.class_names() == ("x", "y", "z")
    assert found.of_event(2) == (samples[3], Event("x", 4, 5))
    assert (found[0].where, found[3].events[0].where) == ("line 1", "line 9")  # type: ignore[index]
    shuffled = Samples(found.table, found.events.take([2, 0, 1]))
    assert shuffled == samples
    only = found.filter(np.array([False, True, True, True]))
    assert only == samples[1:]
    assert only.sample_of_event.tolist() == [2]


def test_a_value_has_the_place_of_its_first_occurrence() -> None:
    values = pa.chunked_array([["a", "b"], ["a"]])
    assert places_in(pa.array(["b", None, "c", "a"]), values).tolist() == [1, -1, -1, 0]
    assert is_one_of(values, ("a",)).tolist() == [True, False, True]
