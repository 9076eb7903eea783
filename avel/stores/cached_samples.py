"""Holds the samples of a feature cache: columns in memory and in the file, and what must be true of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.errors import StoreError
from avel.stores.datasets.labels import ClassTable, EventTable, take, video_classes, video_labels
from avel.stores.datasets.sample import MODALITIES, SPLITS

SAMPLE_COLUMNS: dict[str, type[np.generic]] = {
    "sample": np.int64,
    "video": np.int64,
    "split": np.bytes_,
    "tag": np.bytes_,
    "leaked": np.bool_,
    "events_known": np.bool_,
    "event_sample": np.int64,
    "event_category": np.int64,
    "event_onset_seconds": np.float64,
    "event_offset_seconds": np.float64,
    "event_modality": np.int64,
    "classes_known": np.bool_,
    "class_sample": np.int64,
    "class_category": np.int64,
}
"""Columns of samples in the file -> their type."""


@dataclass(frozen=True)
class CachedSamples:
    """R samples whose video is cached.

    Attributes:
        number: (R,) int64, the sample's number in its dataset.
        video: (R,) int64, index into the cache's V videos; two samples may share one.
        split: (R,) "train", "val", "test" or "".
        leaked: (R,) bool, a val or test sample whose video is also in train.
        known: (R,) bool, whether its events are known; a known sample without any is all background.
        events: the events of all samples; background is class K-1 and never an event.
        tag: (R,) a word; samples of each tag are evaluated separately, too. "" for none.
        classes: classes of samples whose events are not known.
    """

    number: NDArray[np.int64]
    video: NDArray[np.int64]
    split: NDArray[np.object_]
    leaked: NDArray[np.bool_]
    known: NDArray[np.bool_]
    events: EventTable
    tag: NDArray[np.object_]
    classes: ClassTable

    def __len__(self) -> int:
        return len(self.number)

    def take(self, chosen: NDArray[np.int64]) -> "CachedSamples":
        """Returns the samples with these indices, (n,), with their events."""
        place = np.full(len(self), -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        events, classes = take(self.events, place[self.events.sample] >= 0), self.classes
        kept = place[classes.sample] >= 0
        return CachedSamples(
            self.number[chosen],
            self.video[chosen],
            self.split[chosen],
            self.leaked[chosen],
            self.known[chosen],
            replace(events, sample=place[events.sample]),
            self.tag[chosen],
            ClassTable(classes.known[chosen], place[classes.sample[kept]], classes.category[kept]),
        )

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Returns True for samples whose classes are known, with or without their times: (R,)."""
        return self.known | self.classes.known

    def video_labels(self) -> NDArray[np.int64]:
        """Returns the class that each sample holds, NO_CLASS where it holds none or several: (R,)."""
        by_events, by_classes = (video_labels(held, len(self)) for held in (self.events, self.classes))
        return np.where(self.known, by_events, by_classes)

    def video_classes(self, categories: int) -> NDArray[np.int8]:
        """Returns 1 for each class that a sample holds, else 0; all 0 where they are not known: (R, C)."""
        return video_classes(self.events, self.classes, categories)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Returns name in the file -> column."""
        return {
            "sample": self.number,
            "video": self.video,
            "split": self.split,
            "tag": self.tag,
            "leaked": self.leaked,
            "events_known": self.known,
            **{f"event_{name}": column for name, column in vars(self.events).items()},
            "classes_known": self.classes.known,
            "class_sample": self.classes.sample,
            "class_category": self.classes.category,
        }


@dataclass(frozen=True)
class Missing:
    """A sample without features, or a video without samples (`sample` is -1), and why."""

    sample: int
    video_id: str
    reason: str


def check_samples(samples: CachedSamples, videos: int, categories: int) -> None:
    """Checks that samples, events and classes fit each other and the cache; raises StoreError."""
    lengths = {name: len(values) for name, values in samples.columns().items()}
    for name, length in lengths.items():
        of_event, of_class = name.startswith("event_"), name.startswith("class_")
        wanted = len(samples.events if of_event else samples.classes.sample if of_class else samples)
        if length != wanted:
            raise StoreError(f"{name} has {length} values, not {wanted}")
    if repeats(samples.number):
        raise StoreError("sample: two samples have one number")
    if strange := set(samples.split.tolist()) - {*SPLITS, ""}:
        raise StoreError(f"split: {sorted(strange)[0]!r} is none of {', '.join(SPLITS)}")
    events, classes = samples.events, samples.classes
    for of, what, numbers, count in (
        ("a sample", "video", samples.video, videos),
        ("an event", "sample", events.sample, len(samples)),
        ("an event", "class", events.category, categories),
        ("an event", "modality", events.modality, len(MODALITIES)),
        ("a sample's class", "sample", classes.sample, len(samples)),
        ("a sample's class", "class", classes.category, categories),
    ):
        if len(wrong := numbers[(numbers < 0) | (numbers >= count)]):
            raise StoreError(f"{of} is of {what} {wrong[0]}, there are {count}")
    if (samples.known & classes.known).any() or not classes.known[classes.sample].all():
        raise StoreError("a class is of a sample whose events are known, or whose classes are not known")
    if not samples.known[events.sample].all():
        raise StoreError("an event is of a sample whose events are not known")
    if not (np.isfinite(events.onset_seconds + events.offset_seconds) & (events.onset_seconds >= 0)).all():
        raise StoreError("an event's onset or offset is not a time")


def repeats(values: NDArray[Any]) -> bool:
    """Returns whether a value stands twice in a column; quick where the column is in order."""
    ordered = np.sort(values, kind="stable")
    return bool((ordered[1:] == ordered[:-1]).any())


def samples_of(columns: Mapping[str, NDArray[Any]]) -> CachedSamples:
    """Returns the samples that the columns of a file hold, which are those of SAMPLE_COLUMNS."""
    return CachedSamples(
        columns["sample"],
        columns["video"],
        _words(columns["split"]),
        columns["leaked"],
        columns["events_known"],
        EventTable(*(columns[name] for name in SAMPLE_COLUMNS if name.startswith("event_"))),
        _words(columns["tag"]),
        ClassTable(columns["classes_known"], columns["class_sample"], columns["class_category"]),
    )


def _words(column: NDArray[np.bytes_]) -> NDArray[np.object_]:
    """Returns a column with few different words as texts; equal ones share one object in memory."""
    words = np.unique(column)
    texts = np.array([word.decode() for word in words.tolist()], object)
    return np.asarray(texts[np.searchsorted(words, column)])
