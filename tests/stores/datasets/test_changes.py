"""Differences between the samples of a store and those of a dataset, in words."""

from dataclasses import replace

from avel.stores.datasets.changes import changes
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.sample import Event, Sample, Video

BARK, BELL = Event("bark", 0, 2), Event("bell", 1, 3)
SAMPLES = (Sample(0, "a", (BARK,), split="train"), Sample(1, "b", (BELL,), split="test"))


def dataset(*samples: Sample, format: str = "ave", settings: tuple[str, ...] = ()) -> Dataset:
    made = make_dataset("d", "d", samples, [Video(name, f"{name}.mp4") for name in "abc"])
    return replace(made, format=format, format_settings=settings)


def test_samples_that_stay_are_no_change_however_they_were_read() -> None:
    before = dataset(*SAMPLES).tables()
    assert changes(before, dataset(*SAMPLES)) == []
    assert changes(before, dataset(*SAMPLES, format="tracks", settings=("val_every=2",))) == []


def test_what_changes_is_named_with_the_format_that_changes_it() -> None:
    before = dataset(*SAMPLES, settings=("val_every=2",)).tables()
    fewer = dataset(replace(SAMPLES[0], split="val"), settings=("val_every=3",))
    assert changes(before, fewer) == [
        "format ave val_every=2 before, format ave val_every=3 now",
        "samples: 2 before, 1 now",
        "events: 2 before, 1 now",
        "classes: 2 before, 1 now",
        "splits: test 1, train 1 before, val 1 now",
    ]
    later = dataset(replace(SAMPLES[0], events=(Event("bark", 1, 2),)), SAMPLES[1], settings=("val_every=2",))
    assert changes(before, later) == ["events: 2 as before, but not the same"]
    howl = dataset(replace(SAMPLES[0], events=(Event("howl", 0, 2),)), SAMPLES[1], settings=("val_every=2",))
    same_count = [f"{name}: 2 as before, but not the same" for name in ("events", "classes")]
    assert changes(before, howl) == same_count


def test_the_format_of_a_dataset_that_names_none_is_unknown() -> None:
    found = changes(dataset(*SAMPLES, format="").tables(), dataset(SAMPLES[0]))
    assert found[0] == "format unknown before, format ave now"
