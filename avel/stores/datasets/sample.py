"""Events, samples and videos of a dataset, one by one and as columns.

A sample is not an annotation: it may have one event, several, none (all background), or events that are not
known. Nor is it a video: AVE has 4143 samples of 4097 videos. Media and features belong to a video, events
and splits to a sample (Tian et al. 2018; the authors' annotation files).
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from avel.stores.columns import Columns, places_in
from avel.stores.files import path_text

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

SPLITS = ("train", "val", "test")
Modality = Literal["both", "audio", "visual"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)


@dataclass(frozen=True, slots=True)
class Event:
    """A class, `category`, from `onset_seconds` to `offset_seconds` of a clip.

    `where` is the file and line it was read from, for messages; it is neither stored nor compared. `modality`
    is "both" for what is visible and audible, as all events of AVE are; else the modality that was annotated.
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
        number: its number in the dataset; of AVE its place among the annotations, from 0.
        events: () where all is background, None where they are not known.
        categories: the classes of its events, where only these are known; () for no event. Else None.
        quality: rating of the annotation, as the dataset has it.
        split: "train", "val", "test", or "" where the dataset names none.
        where: file and line it was read from, for messages; neither stored nor compared.
        tag: a word, such as "seen"; samples of each tag are evaluated separately, too. "" for none.
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
    """A clip with its annotations, or with events that a head found, to be written for other programs.

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


@functools.cache
def schemas() -> dict[str, pa.Schema]:
    """Returns the schemas of a dataset's tables, as a store keeps them."""
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


class Videos(Columns[Video]):
    """Videos as the columns `schemas()["videos"]`; their paths are absolute."""

    @classmethod
    def of(cls, videos: Sequence[Video]) -> Videos:
        """Returns videos as columns; relative paths become absolute."""
        if isinstance(videos, Videos):
            return videos
        import pyarrow as pa

        rows = [
            {"video_id": each.video_id, "path": path_text(os.path.abspath(each.path)) if each.path else ""}
            for each in videos
        ]
        return cls(pa.Table.from_pylist(rows, schemas()["videos"]))

    def records(self, begin: int, end: int) -> list[Video]:
        return [Video(**row) for row in self.table.slice(begin, end - begin).to_pylist()]


class Samples(Columns[Sample]):
    """R samples as columns, and their E events.

    Attributes:
        table: the columns of `schemas()["samples"]`, and `where`.
        events: those of `schemas()["events"]`, and `where`; in the order of their samples.
        sample_of_event: (E,) int64, index of each event's sample; -1 if that is not there.
    """

    def __init__(self, table: pa.Table, events: pa.Table) -> None:
        import numpy as np

        super().__init__(_with_where(table))
        place, events = places_in(events["sample"], self.table["sample"]), _with_where(events)
        if (np.diff(place) < 0).any():
            order = np.argsort(place, kind="stable")
            place, events = place[order], events.take(order)
        self.events, self.sample_of_event = events.combine_chunks(), place
        self._first_event: list[int] = np.searchsorted(place, np.arange(len(self) + 1)).tolist()

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Samples:
        """Returns samples as columns."""
        if isinstance(samples, Samples):
            return samples
        import pyarrow as pa

        where = pa.field("where", pa.string())
        of_samples, of_events = (schemas()[name].append(where) for name in ("samples", "events"))
        same = [name for name in of_samples.names if name not in ("sample", "events_known")]
        rows = [
            {"sample": sample.number, "events_known": sample.events is not None}
            | {name: getattr(sample, name) for name in same}
            for sample in samples
        ]
        events = [
            {"sample": sample.number} | {name: getattr(event, name) for name in of_events.names[1:]}
            for sample in samples
            for event in sample.events or ()
        ]
        return cls(pa.Table.from_pylist(rows, of_samples), pa.Table.from_pylist(events, of_events))

    def records(self, begin: int, end: int) -> list[Sample]:
        first = self._first_event
        rows = self.events.slice(first[begin], first[end] - first[begin]).drop_columns("sample").to_pylist()
        events = [Event(**row) for row in rows]
        return [
            Sample(
                number=row.pop("sample"),
                events=tuple(events[first[place] - first[begin] : first[place + 1] - first[begin]])
                if row.pop("events_known")
                else None,
                categories=None if (names := row.pop("categories")) is None else tuple(names),
                **row,
            )
            for place, row in enumerate(self.table.slice(begin, end - begin).to_pylist(), begin)
        ]

    def filter(self, chosen: NDArray[np.bool_]) -> Samples:
        """Returns the chosen samples: bool (R,)."""
        import pyarrow as pa

        events = self.events.filter(pa.array(chosen[self.sample_of_event]))
        return Samples(self.table.filter(pa.array(chosen)), events)

    def of_event(self, number: int) -> tuple[Sample, Event]:
        """Returns an event, by its place in `events`, with its sample."""
        place = int(self.sample_of_event[number])
        sample = self[place]
        return sample, (sample.events or ())[number - self._first_event[place]]

    @property
    def classes(self) -> tuple[NDArray[np.int64], pa.Array]:
        """Returns the classes of samples whose events are not known: sample index (n,), class name (n,)."""
        import numpy as np
        import pyarrow.compute as pc

        lists = self.table["categories"].combine_chunks()
        return np.asarray(pc.list_parent_indices(lists), np.int64), pc.list_flatten(lists)

    def class_names(self) -> tuple[str, ...]:
        """Returns the names of classes, in order of first appearance."""
        import numpy as np
        import pyarrow as pa

        place, names = self.classes
        names = pa.concat_arrays([names, self.events["category"].combine_chunks()])
        order = np.argsort(np.concatenate((place, self.sample_of_event)), kind="stable")
        return tuple(names.take(pa.array(order)).unique().to_pylist())


def _with_where(table: pa.Table) -> pa.Table:
    """Returns a table with a column `where`, of "" if it had none."""
    import pyarrow as pa

    if "where" in table.column_names:
        return table
    return table.append_column("where", pa.repeat(pa.scalar("", pa.string()), table.num_rows))
