"""The audit counts what annotations hold; on AVE's own files it gives AVE's known figures."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from avel.stores.datasets.audit import audit
from avel.stores.datasets.dataset import make_dataset
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.sample import Event, Sample, Video


def small() -> tuple[Sample, ...]:
    return (
        Sample(0, "-a", (Event("bark", 0, 10),), "good", "train"),
        Sample(1, "-a", (Event("bell", 2, 5),), "good", "test"),
        Sample(2, "b", (Event("bark", 0, 0),), "good", "val"),
        Sample(3, "c", (Event("bark", 9, 10),), "good", "test"),
    )


def test_counts_a_small_dataset(tmp_path: Path) -> None:
    videos = (Video("-a", "-a.mp4"), Video("b", ""), Video("c", "c.mp4"), Video("d", "/d.mp4"))
    found = audit(make_dataset("small", tmp_path, small(), videos))
    assert (found.samples, found.videos, found.classes) == (4, 4, 2)
    assert found.samples_of_shared_videos == {"-a": (0, 1)}
    assert (found.shared_with_other_bounds, found.shared_with_one_class) == (("-a",), ())
    assert (found.dash_samples, found.underscore_samples) == (2, 0)
    assert (found.categories_with_spaces, found.categories_with_commas) == ((), ())
    assert found.events_of_class == {"bark": 3, "bell": 1}
    assert found.samples_of_length == {0: 1, 1: 1, 3: 1, 10: 1}
    assert (found.event_segments, found.background_segments, found.background_fraction) == (14, 26, 0.65)
    assert (found.whole_clip_samples, found.empty_samples) == (1, (2,))
    assert found.videos_in_both == {"train and val": 0, "train and test": 1, "val and test": 0}
    assert found.leaked_samples == {"val": (), "test": (1,)}
    assert (
        found.trivial_baselines["test"].always_background,
        found.trivial_baselines["test"].never_background,
    ) == (80, 20)
    assert (found.missing_files, found.extra_files) == (("b",), ("/d.mp4",))
    assert len(found.remarks()) == 5
    assert json.loads(json.dumps(found.facts()))["samples_of_length"]["10"] == 1


def test_samples_of_any_number_of_events_are_counted(tmp_path: Path) -> None:
    samples = (
        Sample(0, "a", (Event("bark", 0, 2), Event("bark", 4.5, 5.5), Event("bell", 7, 8)), split="train"),
        Sample(1, "b", (), split="train"),
        Sample(2, "c", None, split="train"),
        Sample(3, "d", (Event("bark", 0, 5), Event("bell", 4, 8)), split="val"),
        Sample(4, "e", None, split="test"),
    )
    found = audit(
        make_dataset("made", tmp_path, samples, tuple(Video(each.video_id, "x") for each in samples))
    )
    assert found.samples_of_events == {0: 1, 2: 1, 3: 1}
    assert found.events_of_class == {"bark": 3, "bell": 2}
    assert (found.empty_samples, found.unknown_samples, found.overlapping_samples) == ((1,), (2, 4), (3,))
    assert found.samples_of_length == {0: 1, 5: 1, 8: 1}
    assert (found.event_segments, found.background_segments) == (13, 17)
    assert found.trivial_baselines["train"].always_background == 75
    assert list(found.trivial_baselines) == ["train", "val"]
    text = " ".join(found.remarks())
    assert "sample numbers 2, 4: the events are not known" in text
    assert "sample number 3: events of two classes at once" in text


def test_videos_without_annotations_have_no_baselines(tmp_path: Path) -> None:
    found = audit(make_dataset("plain", tmp_path, (), (Video("a", "a.mp4"),)))
    assert (found.samples, found.trivial_baselines, found.extra_files, found.background_fraction) == (
        0,
        {},
        (),
        0,
    )
    assert found.remarks() == ()


def test_clips_that_are_padded_to_one_length_have_segments_to_its_end(tmp_path: Path) -> None:
    samples, videos = (Sample(0, "a", (Event("bark", 0, 2),)),), (Video("a", "a.mp4"),)
    dataset = make_dataset("made", tmp_path, samples, videos, stated_seconds={"a": 4})
    assert (audit(dataset).event_segments, audit(dataset).background_segments) == (2, 2)
    padded = audit(replace(dataset, longest_seconds=None))
    assert (padded.event_segments, padded.background_segments) == (2, 8)


@pytest.mark.shared
def test_reports_the_known_figures_of_ave(data: Path) -> None:
    dataset = read_dataset(data / "ave")
    found = audit(dataset)
    assert (found.samples, found.videos, found.classes) == (4143, 4097, 28)
    assert len(found.samples_of_shared_videos) == 45
    assert {len(rows) for rows in found.samples_of_shared_videos.values()} == {2, 3}
    assert sum(len(rows) - 1 for rows in found.samples_of_shared_videos.values()) == 46
    assert (found.shared_with_other_bounds, found.shared_with_one_class) == ((), ())
    assert (found.dash_samples, found.underscore_samples) == (1030, 2)
    assert (len(found.categories_with_spaces), len(found.categories_with_commas)) == (12, 7)
    assert found.background_fraction == 7078 / 41430
    assert (found.event_segments, found.background_segments) == (34352, 7078)
    assert found.whole_clip_samples == 2750
    assert {split: len(rows) for split, rows in found.leaked_samples.items()} == {"val": 10, "test": 8}
    assert found.empty_samples == (26,)
    assert dataset.samples[26].video_id == "VWi2ENBuTbw"
    assert found.samples_of_split == {"train": 3339, "val": 402, "test": 402}
    assert round(found.trivial_baselines["test"].always_background, 2) == 17.79
    assert round(found.trivial_baselines["test"].never_background, 2) == 82.21
    assert sum(found.events_of_class.values()) == sum(found.samples_of_length.values()) == 4143
    assert len(found.missing_files) == 4097
    assert found.extra_files == ()


@pytest.mark.shared
def test_baselines_of_each_split_of_ave_are_those_of_the_authors_segment_labels(data: Path) -> None:
    """Their own files: 1 where a segment holds the event, and the rows of each split."""
    found = audit(read_dataset(data / "ave"))
    with h5py.File(data / "ave" / "labels_closs.h5") as file:
        has_event = file["avadataset"][:] > 0
    for split, rows in (("train", 3339), ("val", 402), ("test", 402)):
        with h5py.File(data / "ave" / f"{split}_order.h5") as file:
            chosen = has_event[file["order"][:]]
        assert chosen.shape == (rows, 10)
        assert found.trivial_baselines[split].never_background == pytest.approx(100 * chosen.mean())
        assert found.trivial_baselines[split].always_background == pytest.approx(100 - 100 * chosen.mean())
    assert list(found.trivial_baselines) == ["train", "val", "test"]


@pytest.mark.shared
def test_a_header_line_is_no_sample(data: Path) -> None:
    found = audit(read_dataset(data / "semireal"))
    assert (found.samples, found.videos, found.classes) == (482, 480, 11)
    assert (found.missing_files, found.extra_files) == ((), ())
    assert found.trivial_baselines["test"].always_background == pytest.approx(
        100 * 152 / 810
    )  # 81 rows, 658 events
