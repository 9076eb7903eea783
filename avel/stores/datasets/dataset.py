"""Datasets: videos; samples, each a video in a split; and the events of each sample."""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from avel.errors import DatasetError, StoreError
from avel.grid import Grid
from avel.stores.columns import as_bools, is_one_of, places_in
from avel.stores.datasets.sample import MODALITIES, SPLITS, Event, Sample, Samples, Video, Videos, schemas
from avel.stores.files import path_text
from avel.text import classes_and_background, html_table, plural

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from avel.stores.datasets.labels import ClassTable, EventsOnGrid, EventTable


@dataclass(frozen=True)
class Dataset:
    """Samples and videos of one dataset. Class ids are the order of `categories`; background comes last.

    Attributes:
        extra_files: video files that lie there without being in the dataset; neither stored nor compared.
        longest_seconds: None where every clip fills the grid, by padding if need be. Else clips have lengths
            of their own, up to this one.
        stated_seconds: video id -> its length as annotated, if it is; neither stored nor compared.
        format: format that it was read as; "" for one that was made in Python.
        format_settings: the settings of that format, as `--format-set` takes them.
    """

    name: str
    root: str
    categories: tuple[str, ...]
    samples: Samples
    videos: Videos
    extra_files: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    longest_seconds: float | None = None
    stated_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict, compare=False)
    format: str = dataclasses.field(default="", compare=False)
    format_settings: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    def __repr__(self) -> str:
        counts = f"{plural(len(self), 'sample')} of {plural(len(self.videos), 'video')}"
        return f"<Dataset {self.name}: {counts}, {classes_and_background(len(self.categories))}>"

    def _repr_html_(self) -> str:
        facts = {
            "samples": split_sizes(self.samples.texts("split")),
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
        """Returns the class id of background, K - 1."""
        return len(self.categories)

    @cached_property
    def class_ids(self) -> dict[str, int]:
        """Returns category name -> class id."""
        return {category: number for number, category in enumerate(self.categories)}

    def segments(self, segment_seconds: float) -> int:
        """Returns T of a grid for the dataset: that of its longest clip, 10 where clips have one length."""
        if self.longest_seconds is None:
            return Grid().segments
        return max(1, math.ceil(self.longest_seconds / segment_seconds - 1e-6))

    def stated_lengths(self, grid: Grid, samples: Sequence[Sample]) -> np.ndarray | None:
        """Returns how many segments each video has by its annotated length: int64 (R,); None if all have T.

        Raises:
            DatasetError: clips have lengths of their own, and the annotations do not give that of a video.
        """
        if self.longest_seconds is None:
            return None
        import numpy as np

        from avel.stores.datasets.labels import whole_segments

        for sample in samples:
            if sample.video_id not in self.stated_seconds:
                raise DatasetError(
                    f"{self.line_of(sample)}: the annotations do not say how long the video is",
                    hint="--format-set longest_seconds=0 pads all clips to one length",
                )
        seconds = np.array([self.stated_seconds[sample.video_id] for sample in samples], np.float64)
        return whole_segments(seconds, grid.segments, grid.segment_seconds)

    def labels(
        self, grid: Grid, samples: Sequence[Sample] | None = None, lengths: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns the class of every segment of samples, of all by default: int64 (R, T).

        `lengths` (R,) says how many segments each sample's video has, by default `stated_lengths`.

        Raises:
            DatasetError: a sample with overlapping events of two classes, or with events of one modality;
                a video of unknown length.
        """
        return self._on_grid(grid, self.samples if samples is None else samples, lengths).labels()

    def segment_classes(
        self,
        grid: Grid,
        samples: Sequence[Sample],
        modalities: Sequence[int],
        lengths: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns whether segments hold classes, for each of M modalities: int8 (R, T, M, C).

        -1 (UNKNOWN) where the events are not known, -2 (PADDED) after the clip's end. `modalities` are places
        in `MODALITIES`; an event of both is in each. `lengths` is as in `labels`.

        Raises:
            DatasetError: a video of unknown length.
        """
        return self._on_grid(grid, samples, lengths).segment_classes(modalities)

    def _on_grid(self, grid: Grid, samples: Sequence[Sample], lengths: np.ndarray | None) -> EventsOnGrid:
        from avel.stores.datasets.labels import EventsOnGrid

        chosen = Samples.of(samples)
        return EventsOnGrid(
            chosen.column("events_known"),
            self.event_table(chosen),
            self.categories,
            grid.segments,
            grid.segment_seconds,
            lambda number: self.line_of(chosen[number]),
            self.stated_lengths(grid, chosen) if lengths is None else lengths,
        )

    def event_table(self, samples: Sequence[Sample] | None = None) -> EventTable:
        """Returns the events of samples, of all by default, as columns."""
        import pyarrow as pa

        from avel.stores.datasets.labels import EventTable

        chosen = self.samples if samples is None else Samples.of(samples)
        return EventTable(
            chosen.sample_of_event,
            places_in(chosen.events["category"], pa.array(self.categories, pa.string())),
            chosen.events["onset_seconds"].to_numpy(),
            chosen.events["offset_seconds"].to_numpy(),
            places_in(chosen.events["modality"], pa.array(MODALITIES, pa.string())),
        )

    def class_table(self, samples: Sequence[Sample] | None = None) -> ClassTable:
        """Returns the classes of samples whose events are not known, by default of all, as columns."""
        import pyarrow as pa

        from avel.stores.datasets.labels import ClassTable

        chosen = self.samples if samples is None else Samples.of(samples)
        place, names = chosen.classes
        known = as_bools(chosen.table["categories"].is_valid())
        return ClassTable(known, place, places_in(names, pa.array(self.categories, pa.string())))

    def check_grid(self, grid: Grid) -> None:
        """Refuses events that begin after the end of a grid, since all of their seconds would be lost.

        Raises:
            DatasetError: there is one; the first is named with its file and line.
        """
        beyond = (self.samples.events["onset_seconds"].to_numpy() >= grid.seconds).nonzero()[0]
        if len(beyond):
            sample, event = self.samples.of_event(int(beyond[0]))
            others = f", and {len(beyond) - 1} more do" if len(beyond) > 1 else ""
            raise DatasetError(
                f"{self.line_of(sample, event)}: event from {event.onset_seconds:g} s to "
                f"{event.offset_seconds:g} s lies beyond the grid of {grid.seconds:g} s{others}",
                hint="give times in seconds from the clip's start, or make the grid longer (--segments)",
            )

    def line_of(self, sample: Sample, event: Event | None = None) -> str:
        """Returns file, line and video of a sample or one of its events, for messages."""
        where = (event.where if event else "") or sample.where
        return f"{where or f'{self.root}: sample {sample.number}'} ({sample.video_id})"

    def leaked(self) -> frozenset[int]:
        """Returns the numbers of the val and test samples whose video is in train as well."""
        import pyarrow.compute as pc

        samples = self.samples
        train = samples.table.filter(pc.field("split") == "train")["video_id"]
        leaked = samples.is_one_of("video_id", train) & samples.is_one_of("split", ("val", "test"))
        return frozenset(samples.column("sample")[leaked].tolist())

    def split_of_video(self) -> dict[str, frozenset[str]]:
        """Returns video id -> the splits its samples are in; empty where none of them has a split."""
        found: dict[str, frozenset[str]] = dict.fromkeys(self.videos.texts("video_id"), frozenset())
        pairs = zip(self.samples.texts("video_id"), self.samples.texts("split"), strict=True)
        for video_id, split in set(pairs):
            if split:
                found[video_id] |= {split}
        return found

    def tables(self) -> dict[str, pa.Table]:
        """Returns Arrow tables "samples", with a `Description` in its schema, "events" and "videos"."""
        metadata = {"name": self.name, "root": self.root, "categories": "\n".join(self.categories)}
        if self.longest_seconds is not None:
            metadata["longest_seconds"] = repr(self.longest_seconds)
        if self.format:
            metadata |= {"format": self.format, "format_settings": "\n".join(self.format_settings)}
        found = {"samples": self.samples.table, "events": self.samples.events, "videos": self.videos.table}
        tables = {name: found[name].select(schema.names).cast(schema) for name, schema in schemas().items()}
        return tables | {"samples": tables["samples"].replace_schema_metadata(metadata)}

    @classmethod
    def from_tables(cls, tables: dict[str, pa.Table]) -> Dataset:
        """Returns the dataset that `tables` came from.

        Raises:
            DatasetError: they contradict each other, or hold what no dataset may.
        """
        import numpy as np

        about = read_description(tables["samples"])
        samples = Samples(tables["samples"], tables["events"])
        # An event of no sample has the place -1, which takes the False at the end
        has_events = np.append(samples.column("events_known"), False)[samples.sample_of_event]
        if not has_events.all():
            sample = samples.events["sample"][int(has_events.argmin())]
            raise DatasetError(f"events: one is of sample {sample}, which is not there or has unknown events")
        dataset = cls(samples=samples, videos=Videos(tables["videos"]), **vars(about))
        _check(dataset)
        return dataset


@dataclass(frozen=True)
class Description:
    """Facts that the table "samples" holds of the whole dataset; the fields are those of `Dataset`."""

    name: str
    root: str
    categories: tuple[str, ...]
    longest_seconds: float | None
    format: str
    format_settings: tuple[str, ...]


def read_description(samples: pa.Table) -> Description:
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
        longest_seconds=_read_length(metadata.get("longest_seconds")),
        format=metadata.get("format", ""),
        format_settings=tuple(metadata.get("format_settings", "").splitlines()),
    )


def split_sizes(splits: Iterable[str]) -> str:
    """Counts the samples of each split, given the split of every sample: "train 36, val 12"."""
    return ", ".join(f"{split or 'no split'} {count:,}" for split, count in Counter(splits).items()) or "none"


def no_sample(what: str, split: str | None, splits: Iterable[str]) -> StoreError:
    """Returns the error for a split without samples; if `split` is None, for a dataset without any."""
    of_split = "" if split is None else f" of split {split!r}"
    return StoreError(what + of_split, hint=f"samples by split: {split_sizes(splits)}")


def _read_length(text: str | None) -> float | None:
    """Reads `longest_seconds` of the schema; raises DatasetError where it is not a length."""
    try:
        seconds = None if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if seconds is not None and not 0 < seconds < math.inf:
        raise DatasetError(f"samples: longest_seconds in the schema is {text!r}")
    return seconds


def make_dataset(
    name: str,
    root: Path | str,
    samples: Sequence[Sample],
    videos: Sequence[Video],
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
    columns, located = Samples.of(samples), Videos.of(videos)
    extra = tuple(map(path_text, extra_files))
    stated = dict(stated_seconds or {})
    names, longest = columns.class_names(), max(stated.values(), default=None)
    folder = path_text(os.path.abspath(root))
    dataset = Dataset(path_text(name), folder, names, columns, located, extra, longest, stated)
    _check(dataset)
    return dataset


def _check(dataset: Dataset) -> None:
    """Checks what holds of every dataset; raises DatasetError with file and line where they are known.

    Looks for wrong samples column by column, which is fast, then checks the first of them to say why.
    """
    import numpy as np
    import pyarrow.compute as pc

    samples, table, events = dataset.samples, dataset.samples.table, dataset.samples.events
    known = samples.is_one_of("video_id", dataset.videos.table["video_id"])
    numbers, twice = samples.column("sample"), np.ones(len(samples), bool)
    twice[np.unique(numbers, return_index=True)[1]] = False
    wrong = ~known | twice | ~samples.is_one_of("split", ("", *SPLITS))
    wrong |= as_bools(pc.equal(table["video_id"], "")) | as_bools(pc.match_substring(table["video_id"], "\0"))
    wrong |= samples.column("events_known") & as_bools(table["categories"].is_valid())
    onset, offset = (events[name].to_numpy() for name in ("onset_seconds", "offset_seconds"))
    right = (onset >= 0) & (onset <= offset) & (offset < math.inf) & is_one_of(events["modality"], MODALITIES)
    usable = [name for name in dataset.categories if not _category_fault(name)]
    wrong[samples.sample_of_event[~right | ~is_one_of(events["category"], usable)]] = True
    place, names = samples.classes
    wrong[place[~is_one_of(names, usable)]] = True
    if wrong.any():
        first = int(wrong.argmax())
        sample = samples[first]
        _check_sample(dataset, sample)
        if not known[first]:
            raise DatasetError(
                f"{dataset.line_of(sample)}: no such video", hint="give make_dataset a Video of this id"
            )
        raise DatasetError(
            f"{dataset.line_of(sample)}: two samples have number {sample.number}", hint="number them from 0"
        )


def _check_sample(dataset: Dataset, sample: Sample) -> None:
    where = dataset.line_of(sample)
    if not sample.video_id:
        raise DatasetError(f"{where}: names no video", hint="write the id of its video")
    if "\0" in sample.video_id:
        raise DatasetError(f"{where}: a NUL in {sample.video_id!r}", hint="take it out")
    if sample.split not in ("", *SPLITS):
        raise DatasetError(
            f"{where}: split {sample.split!r} is none of {', '.join(SPLITS)}",
            hint="write one of these, or leave it empty",
        )
    if sample.events is not None and sample.categories is not None:
        raise DatasetError(f"{where}: gives classes beside its events", hint="leave the classes out")
    for event in sample.events or ():
        at = dataset.line_of(sample, event)
        _check_category(dataset, event.category, at)
        if event.modality not in MODALITIES:
            hint = f"choose from {', '.join(MODALITIES)}"
            raise DatasetError(f"{at}: modality {event.modality!r}", hint=hint)
        if not 0 <= event.onset_seconds <= event.offset_seconds < math.inf:
            raise DatasetError(
                f"{at}: event from {event.onset_seconds} s to {event.offset_seconds} s",
                hint="give two times in seconds from the clip's start, the onset first",
            )
    for category in sample.categories or ():
        _check_category(dataset, category, where)


def _check_category(dataset: Dataset, category: str, where: str) -> None:
    if fault := _category_fault(category):
        says, hint = fault
        raise DatasetError(f"{where}: {says}", hint=hint)
    if category not in dataset.class_ids:
        raise DatasetError(f"{where}: no class named {category!r}")


def _category_fault(category: str) -> tuple[str, str] | None:
    """Returns what is wrong with the name of a class, and what to do; None if nothing is."""
    if "\0" in category:
        return f"a NUL in {category!r}", "take it out"
    if not category.strip():
        return "the class is empty", "name the class, or take the event out"
    if category.splitlines() != [category]:
        return f"a line break in the class {category!r}", "take it out"
    if category.strip().lower() == "background":
        hint = "take the event out: every segment without an event is background"
        return f"a class may not be named {category!r}", hint
    return None
