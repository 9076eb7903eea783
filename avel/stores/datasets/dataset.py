"""Datasets: videos; samples, each a video in a split; and the events of each sample.

A sample is not an annotation: it may have one event, several, none (all background), or events that are not
known. Nor is it a video: AVE has 4143 samples of 4097 videos. Media and features belong to a video, events
and splits to a sample (Tian et al. 2018; the authors' annotation files).
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from avel.errors import DatasetError
from avel.grid import Grid
from avel.stores.arrow import table_of
from avel.stores.files import path_text
from avel.text import classes_and_background, html_table, plural

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from avel.stores.datasets.labels import ClassTable, EventTable

SPLITS = ("train", "val", "test")
Modality = Literal["both", "audio", "visual"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens from `onset_seconds` to `offset_seconds` of a clip; its class.

    `where` is the file and line it was read from, for messages; it is neither stored nor compared. `modality`
    says where it is: both seen and heard, as all events of AVE are, or one of them for sure.
    """

    category: str
    onset_seconds: float
    offset_seconds: float
    where: str = dataclasses.field(default="", compare=False)
    modality: Modality = "both"


@dataclass(frozen=True, slots=True)
class Sample:
    """A video in a split, with its events: one unit of training and evaluation.

    Attributes:
        number: its number in the dataset; of AVE the line of the annotation file, from 0.
        events: () where all is background, None where they are not known.
        categories: the classes of its events where that is all that is known of them; () for no event.
        quality: rating of the annotation, as the dataset has it.
        split: "train", "val", "test", or "" where the dataset names none.
        where: file and line it was read from, for messages; neither stored nor compared.
        tag: a word by which samples are judged apart, such as "seen" or "unseen" classes; "" for none.
    """

    number: int
    video_id: str
    events: tuple[Event, ...] | None = None
    quality: str = ""
    split: str = ""
    where: str = dataclasses.field(default="", compare=False)
    tag: str = ""
    categories: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Annotated:
    """A clip with what is said of it, to be written in a format of the field.

    Attributes:
        seconds: length of the clip.
        events: in any order; () where there is none, None where they are not known.
        scores: how sure each event is, in [0, 1]; () where they are annotated.
    """

    video_id: str
    seconds: float
    events: tuple[Event, ...] | None
    split: str = ""
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Video:
    """A media file; `path` is "" where the annotations name a video that is not there."""

    video_id: str
    path: str


@dataclass(frozen=True)
class Dataset:
    """Samples and videos of one dataset. Class ids are the order of `categories`; background comes last.

    Attributes:
        extra_files: video files that lie there without being in the dataset; neither stored nor compared.
        longest_seconds: None where every clip fills the grid, by padding if need be. Else clips have lengths
            of their own, up to this one.
        stated_seconds: video id -> its length by the annotations, where they say so; not stored either.
    """

    name: str
    root: str
    categories: tuple[str, ...]
    samples: tuple[Sample, ...]
    videos: tuple[Video, ...]
    extra_files: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    longest_seconds: float | None = None
    stated_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        counts = f"{plural(len(self), 'sample')} of {plural(len(self.videos), 'video')}"
        return f"<Dataset {self.name}: {counts}, {classes_and_background(len(self.categories))}>"

    def _repr_html_(self) -> str:
        facts = {
            "samples": split_sizes(sample.split for sample in self.samples),
            "videos": f"{len(self.videos):,}",
            "classes": classes_and_background(len(self.categories)),
        }
        return html_table(f"Dataset {self.name}", facts)

    def __len__(self) -> int:
        """Returns the number of samples."""
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        """Yields the samples."""
        return iter(self.samples)

    @property
    def background(self) -> int:
        """Class id of background, K - 1."""
        return len(self.categories)

    @cached_property
    def class_ids(self) -> dict[str, int]:
        """Category name -> class id."""
        return {category: number for number, category in enumerate(self.categories)}

    def segments(self, segment_seconds: float) -> int:
        """Returns T of a grid for the dataset: that of its longest clip, 10 where clips have one length."""
        if self.longest_seconds is None:
            return Grid().segments
        return max(1, math.ceil(self.longest_seconds / segment_seconds - 1e-6))

    def stated_lengths(self, grid: Grid, samples: Sequence[Sample]) -> np.ndarray | None:
        """Returns the segments of each sample's video by the annotations: int64 (R,); None where all have T.

        Raises:
            DatasetError: clips have lengths of their own, and the annotations do not say one.
        """
        if self.longest_seconds is None:
            return None
        import numpy as np

        from avel.stores.datasets.labels import whole_segments

        for sample in samples:
            if sample.video_id not in self.stated_seconds:
                raise DatasetError(
                    f"{self.place(sample)}: the annotations do not say how long the video is",
                    hint="--format-set longest_seconds=0 takes all clips to be as long as the grid",
                )
        seconds = np.array([self.stated_seconds[sample.video_id] for sample in samples], np.float64)
        return whole_segments(seconds, grid.segments, grid.segment_seconds)

    def labels(
        self, grid: Grid, samples: Sequence[Sample] | None = None, lengths: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns the class of every segment of samples, of all by default: int64 (R, T).

        `lengths` (R,) are the segments of each one's video, by default `stated_lengths`.

        Raises:
            DatasetError: a sample in which events of two classes overlap; a length that nobody knows.
        """
        import numpy as np

        from avel.stores.datasets.labels import segment_labels

        chosen = self.samples if samples is None else samples
        return segment_labels(
            np.array([sample.events is not None for sample in chosen], bool),
            self.event_table(chosen),
            self.background,
            grid.segments,
            grid.segment_seconds,
            lambda number: self.place(chosen[number]),
            self.categories,
            self.stated_lengths(grid, chosen) if lengths is None else lengths,
        )

    def segment_classes(
        self,
        grid: Grid,
        samples: Sequence[Sample],
        modalities: Sequence[int],
        lengths: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns whether segments hold classes, for each of M modalities: int8 (R, T, M, C).

        UNKNOWN is -1, PADDED is -2. `modalities` are places in `MODALITIES`; an event of both is in each.
        `lengths` (R,) are the segments of each one's video, by default `stated_lengths`.

        Raises:
            DatasetError: a length that nobody knows.
        """
        import numpy as np

        from avel.stores.datasets.labels import segment_classes

        return segment_classes(
            np.array([sample.events is not None for sample in samples], bool),
            self.event_table(samples),
            len(self.categories),
            grid.segments,
            grid.segment_seconds,
            modalities,
            self.stated_lengths(grid, samples) if lengths is None else lengths,
        )

    def event_table(self, samples: Sequence[Sample] | None = None) -> EventTable:
        """Returns the events of samples, of all by default, as columns."""
        import numpy as np

        from avel.stores.datasets.labels import EventTable

        chosen = self.samples if samples is None else samples
        found = [(place, event) for place, sample in enumerate(chosen) for event in sample.events or ()]
        return EventTable(
            np.array([place for place, _ in found], np.int64),
            np.array([self.class_ids[event.category] for _, event in found], np.int64),
            np.array([event.onset_seconds for _, event in found], np.float64),
            np.array([event.offset_seconds for _, event in found], np.float64),
            np.array([MODALITIES.index(event.modality) for _, event in found], np.int64),
        )

    def class_table(self, samples: Sequence[Sample] | None = None) -> ClassTable:
        """Returns the classes of samples of which no more is known, of all by default, as columns."""
        import numpy as np

        from avel.stores.datasets.labels import ClassTable

        chosen = self.samples if samples is None else samples
        found = [
            (place, self.class_ids[category])
            for place, sample in enumerate(chosen)
            for category in sample.categories or ()
        ]
        return ClassTable(
            np.array([sample.categories is not None for sample in chosen], bool),
            np.array([place for place, _ in found], np.int64),
            np.array([category for _, category in found], np.int64),
        )

    def check_grid(self, grid: Grid) -> None:
        """Refuses events that begin after the end of a grid, since all of their seconds would be lost.

        Raises:
            DatasetError: there is one; the first is named with its file and line.
        """
        beyond = [
            (sample, event)
            for sample in self.samples
            for event in sample.events or ()
            if event.onset_seconds >= grid.seconds
        ]
        if beyond:
            (sample, event), others = beyond[0], f", and {len(beyond) - 1} more do" if len(beyond) > 1 else ""
            raise DatasetError(
                f"{self.place(sample, event)}: event from {event.onset_seconds:g} s to "
                f"{event.offset_seconds:g} s lies beyond the grid of {grid.seconds:g} s{others}",
                hint="give times in seconds from the clip's start, or make the grid longer (--segments)",
            )

    def place(self, sample: Sample, event: Event | None = None) -> str:
        """Returns file, line and video of a sample or one of its events, for messages."""
        where = (event.where if event else "") or sample.where
        return f"{where or f'{self.root}: sample {sample.number}'} ({sample.video_id})"

    def leaked(self) -> frozenset[int]:
        """Returns the numbers of the val and test samples whose video is in train as well."""
        train = {sample.video_id for sample in self.samples if sample.split == "train"}
        held_out = (sample for sample in self.samples if sample.split in ("val", "test"))
        return frozenset(sample.number for sample in held_out if sample.video_id in train)

    def split_of_video(self) -> dict[str, frozenset[str]]:
        """Returns video id -> the splits its samples are in; empty where none of them has a split."""
        found: dict[str, set[str]] = {video.video_id: set() for video in self.videos}
        for sample in self.samples:
            if sample.split:
                found[sample.video_id].add(sample.split)
        return {video_id: frozenset(splits) for video_id, splits in found.items()}

    def tables(self) -> dict[str, pa.Table]:
        """Returns Arrow tables "samples" (name, root, categories in the schema), "events", "videos"."""
        metadata = {"name": self.name, "root": self.root, "categories": "\n".join(self.categories)}
        if self.longest_seconds is not None:
            metadata["longest_seconds"] = repr(self.longest_seconds)
        samples = self.samples
        events = [(sample.number, event) for sample in samples for event in sample.events or ()]
        columns: dict[str, list[list[Any]]] = {
            "samples": [
                [sample.number for sample in samples],
                [sample.video_id for sample in samples],
                [sample.events is not None for sample in samples],
                [sample.quality for sample in samples],
                [sample.split for sample in samples],
                [sample.tag for sample in samples],
                [sample.categories for sample in samples],
            ],
            "events": [
                [number for number, _ in events],
                [event.category for _, event in events],
                [event.onset_seconds for _, event in events],
                [event.offset_seconds for _, event in events],
                [event.modality for _, event in events],
            ],
            "videos": [
                [video.video_id for video in self.videos],
                [video.path for video in self.videos],
            ],
        }
        found = {name: table_of(columns[name], schema) for name, schema in table_schemas().items()}
        return found | {"samples": found["samples"].replace_schema_metadata(metadata)}

    @classmethod
    def from_tables(cls, tables: dict[str, pa.Table]) -> Dataset:
        """Returns the dataset that `tables` came from.

        Raises:
            DatasetError: they contradict each other, or hold what no dataset may.
        """
        about = describe(tables["samples"])
        events_of: dict[int, list[Event]] = {}
        for event in tables["events"].to_pylist():
            events_of.setdefault(event.pop("sample"), []).append(Event(**event))
        samples = tuple(
            Sample(
                sample["sample"],
                sample["video_id"],
                tuple(events_of.pop(sample["sample"], ())) if sample["events_known"] else None,
                sample["quality"],
                sample["split"],
                tag=sample["tag"],
                categories=None if sample["categories"] is None else tuple(sample["categories"]),
            )
            for sample in tables["samples"].to_pylist()
        )
        if events_of:
            raise DatasetError(f"events: of sample {next(iter(events_of))}, which has none")
        dataset = cls(
            name=about.name,
            root=about.root,
            categories=about.categories,
            samples=samples,
            videos=tuple(Video(**video) for video in tables["videos"].to_pylist()),
            longest_seconds=about.longest_seconds,
        )
        _check(dataset)
        return dataset


@dataclass(frozen=True)
class Description:
    """Facts that the table "samples" holds of the whole dataset; the fields are those of `Dataset`."""

    name: str
    root: str
    categories: tuple[str, ...]
    longest_seconds: float | None


def describe(samples: pa.Table) -> Description:
    """Reads what the table "samples" says of the whole dataset.

    Raises:
        DatasetError: something is missing or of the wrong form.
    """
    found = samples.schema.metadata or {}
    try:
        metadata = {key.decode(): value.decode() for key, value in found.items()}
    except UnicodeDecodeError as error:
        raise DatasetError(f"samples: the schema's metadata are not UTF-8: {error}") from None
    if missing := [name for name in ("name", "root", "categories") if name not in metadata]:
        raise DatasetError(f"samples: no {missing[0]} in the schema")
    return Description(
        name=metadata["name"],
        root=metadata["root"],
        categories=tuple(metadata["categories"].split("\n")) if metadata["categories"] else (),
        longest_seconds=_seconds(metadata.get("longest_seconds")),
    )


def split_sizes(splits: Iterable[str]) -> str:
    """Returns how many samples are in each split, of the split of each sample: "train 36, val 12"."""
    return ", ".join(f"{split or 'no split'} {count:,}" for split, count in Counter(splits).items()) or "none"


def _seconds(text: str | None) -> float | None:
    """Reads `longest_seconds` of the schema; raises DatasetError where it is not a length."""
    try:
        seconds = None if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if seconds is not None and not 0 < seconds < math.inf:
        raise DatasetError(f"samples: longest_seconds in the schema is {text!r}")
    return seconds


def table_schemas() -> dict[str, pa.Schema]:
    """Returns the schemas of a dataset's tables."""
    import pyarrow as pa

    columns = {
        "samples": {
            "sample": pa.int32(),
            "video_id": pa.string(),
            "events_known": pa.bool_(),
            "quality": pa.string(),
            "split": pa.string(),
            "tag": pa.string(),
            "categories": pa.list_(pa.string()),
        },
        "events": {
            "sample": pa.int32(),
            "category": pa.string(),
            "onset_seconds": pa.float64(),
            "offset_seconds": pa.float64(),
            "modality": pa.string(),
        },
        "videos": {"video_id": pa.string(), "path": pa.string()},
    }
    return {
        name: pa.schema([pa.field(key, kind, nullable=key == "categories") for key, kind in kinds.items()])
        for name, kinds in columns.items()
    }


def make_dataset(
    name: str,
    root: Path | str,
    samples: tuple[Sample, ...],
    videos: tuple[Video, ...],
    extra_files: Sequence[Path] = (),
    *,
    stated_seconds: Mapping[str, float] | None = None,
) -> Dataset:
    """Returns a checked Dataset; class ids are in order of first appearance, paths of videos absolute.

    With `stated_seconds`, video id -> length, clips have lengths of their own, up to the longest of these.

    Raises:
        DatasetError: a sample without video or with the number of another, a class without name, named
            background or with a line break, an event that ends before it starts, an unknown split; with file
            and line.
    """
    categories = tuple(dict.fromkeys(name for sample in samples for name in _classes_of(sample)))
    located = tuple(
        Video(video.video_id, path_text(os.path.abspath(video.path))) if video.path else video
        for video in videos
    )
    extra = tuple(map(path_text, extra_files))
    stated = dict(stated_seconds or {})
    where, longest = path_text(os.path.abspath(root)), max(stated.values(), default=None)
    dataset = Dataset(path_text(name), where, categories, samples, located, extra, longest, stated)
    _check(dataset)
    return dataset


def _check(dataset: Dataset) -> None:
    """Checks what holds of every dataset; raises DatasetError with file and line where they are known."""
    known, numbers = {video.video_id for video in dataset.videos}, set()
    for sample in dataset.samples:
        _check_sample(sample, dataset.place(sample))
        for event in sample.events or ():
            _check_event(event, dataset.place(sample, event))
            if event.category not in dataset.class_ids:
                raise DatasetError(f"{dataset.place(sample, event)}: no class named {event.category!r}")
        for category in sample.categories or ():
            _check_category(category, dataset.place(sample))
            if category not in dataset.class_ids:
                raise DatasetError(f"{dataset.place(sample)}: no class named {category!r}")
        if sample.video_id not in known:
            raise DatasetError(f"{dataset.place(sample)}: no such video")
        if sample.number in numbers:
            raise DatasetError(f"{dataset.place(sample)}: two samples have number {sample.number}")
        numbers.add(sample.number)


def _classes_of(sample: Sample) -> Iterator[str]:
    """Yields the classes that are known of a sample, then that of each of its events, in their order."""
    yield from sample.categories or ()
    yield from (event.category for event in sample.events or ())


def _check_sample(sample: Sample, where: str) -> None:
    if not sample.video_id:
        raise DatasetError(f"{where}: names no video")
    if "\0" in sample.video_id:
        raise DatasetError(f"{where}: a NUL in {sample.video_id!r}", hint="take it out")
    if sample.split not in ("", *SPLITS):
        raise DatasetError(f"{where}: split {sample.split!r} is none of {', '.join(SPLITS)}")
    if sample.events is not None and sample.categories is not None:
        raise DatasetError(f"{where}: gives classes beside its events", hint="leave the classes out")


def _check_category(category: str, where: str) -> None:
    if "\0" in category:
        raise DatasetError(f"{where}: a NUL in {category!r}", hint="take it out")
    if not category.strip():
        raise DatasetError(f"{where}: the class is empty", hint="name the class, or take the event out")
    if category.splitlines() != [category]:
        raise DatasetError(f"{where}: a line break in the class {category!r}", hint="take it out")
    if category.strip().lower() == "background":
        raise DatasetError(
            f"{where}: a class may not be named {category!r}",
            hint="take the event out: every segment without an event is background",
        )


def _check_event(event: Event, where: str) -> None:
    _check_category(event.category, where)
    if event.modality not in MODALITIES:
        raise DatasetError(
            f"{where}: modality {event.modality!r}", hint=f"choose from {', '.join(MODALITIES)}"
        )
    if not 0 <= event.onset_seconds <= event.offset_seconds < math.inf:
        raise DatasetError(f"{where}: event from {event.onset_seconds} s to {event.offset_seconds} s")
