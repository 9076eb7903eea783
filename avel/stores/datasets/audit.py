"""Audits a dataset's annotations: counts, contradictions, leaks between splits, trivial baselines."""

from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.grid import Grid
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.labels import EventTable, class_segments, overlaps, whole_segments
from avel.stores.datasets.sample import MODALITIES, SPLITS, Sample
from avel.text import first_of, plural


@dataclass(frozen=True)
class TrivialBaselines:
    """Segment accuracies in percent of rules that need no model."""

    always_background: float
    never_background: float
    """Right event in every segment, background never predicted."""


@dataclass(frozen=True)
class ParsingBaselines:
    """Type@AV F1 of segments in percent of rules that need no model, where audio and visual events differ."""

    never_any_event: float
    right_classes_everywhere: float
    """Predicts the classes of each clip in every segment, in audio and in visual."""


@dataclass(frozen=True)
class Audit:
    """Figures of one dataset; samples are given by their numbers.

    Attributes:
        samples_of_shared_videos: video id -> its samples, for videos that have several.
        shared_with_other_bounds: those of them whose samples differ in onset or offset.
        shared_with_one_class: those of them that have a class in several samples.
        dash_samples, underscore_samples: number of samples whose id starts with "-" (which a command may take
            for an option) or "_".
        categories_with_spaces, categories_with_commas: names that need care where text is split at these.
        events_of_class: class -> number of events.
        events_of_modality: "both", "audio", "visual" -> number of events annotated so.
        samples_of_events: number of events -> number of samples that have this many.
        samples_of_length: event segments -> number of samples; 0 is a sample that is all background.
        samples_of_split: split -> number of samples; "" counts samples in none.
        samples_of_tag: tag -> number of samples, where the dataset tags any.
        event_segments, background_segments: of all samples whose events are known.
        whole_clip_samples: number of samples with an event in every segment.
        empty_samples: samples without any event segment.
        unknown_samples: samples whose events are not known; no figure about segments counts them.
        weak_samples: those of them whose classes are known.
        overlapping_samples: samples in which events of two classes overlap.
        videos_in_both: "train and test" -> number of videos that are in both splits.
        leaked_samples: split -> its samples whose video is also in train.
        trivial_baselines: split -> baselines; "all" where there are no splits. Empty if any event is in one
            modality alone, since audio and visual then have labels of their own.
        parsing_baselines: split -> baselines if any event is in one modality alone, else empty.
        longest_seconds: of the longest clip, where clips have lengths of their own.
        missing_files: ids of videos without a file.
        extra_files: video files that no sample names.
    """

    name: str
    samples: int
    videos: int
    classes: int
    samples_of_shared_videos: dict[str, tuple[int, ...]]
    shared_with_other_bounds: tuple[str, ...]
    shared_with_one_class: tuple[str, ...]
    dash_samples: int
    underscore_samples: int
    categories_with_spaces: tuple[str, ...]
    categories_with_commas: tuple[str, ...]
    events_of_class: dict[str, int]
    events_of_modality: dict[str, int]
    samples_of_events: dict[int, int]
    samples_of_length: dict[int, int]
    samples_of_split: dict[str, int]
    samples_of_tag: dict[str, int]
    event_segments: int
    background_segments: int
    whole_clip_samples: int
    empty_samples: tuple[int, ...]
    unknown_samples: tuple[int, ...]
    weak_samples: tuple[int, ...]
    overlapping_samples: tuple[int, ...]
    videos_in_both: dict[str, int]
    leaked_samples: dict[str, tuple[int, ...]]
    trivial_baselines: dict[str, TrivialBaselines]
    parsing_baselines: dict[str, ParsingBaselines]
    longest_seconds: float | None
    missing_files: tuple[str, ...]
    extra_files: tuple[str, ...]

    @property
    def background_fraction(self) -> float:
        """Returns the fraction of segments that are background; 0 where nothing is annotated."""
        return self.background_segments / max(1, self.background_segments + self.event_segments)

    def facts(self) -> dict[str, Any]:
        """Returns all figures as plain values for JSON."""
        return asdict(self) | {"background_fraction": self.background_fraction}

    def remarks(self) -> tuple[str, ...]:
        """Lists what a user of the dataset should know, a sentence each."""
        found = [
            f"{plural(len(samples), f'{split} sample')} of videos that are also in train"
            for split, samples in self.leaked_samples.items()
            if samples
        ]
        if self.empty_samples:
            found.append(f"{_named(self.empty_samples)}: no event segment, all background")
        weak = set(self.weak_samples)
        if unknown := tuple(number for number in self.unknown_samples if number not in weak):
            found.append(f"{_named(unknown)}: the events are not known")
        if self.weak_samples:
            found.append(
                f"{_named(self.weak_samples)}: the classes are known, but not when they are; "
                "--supervision weak learns from them"
            )
        if self.overlapping_samples:
            found.append(
                f"{_named(self.overlapping_samples)}: events of two classes at once, so that a "
                "segment cannot have one label; heads are trained on them with --task multi_label"
            )
        if self.samples_of_shared_videos:
            count = len(self.samples_of_shared_videos)
            found.append(
                f"{plural(count, 'video')} with several samples: look samples up by number, never by video id"
            )
        if self.samples and not set(self.samples_of_split) & set(SPLITS):
            found.append("no splits: nothing can be trained and evaluated without them")
        if self.missing_files:
            missing = plural(len(self.missing_files), "video")
            found.append(f"{missing} without a file: {first_of(self.missing_files)}")
        if self.extra_files:
            extra = plural(len(self.extra_files), "file")
            found.append(f"{extra} without an annotation: {first_of(self.extra_files)}")
        return tuple(found)


def _named(samples: Collection[int]) -> str:
    """Returns the numbers of samples: "sample number 3", "sample numbers 3, 5"."""
    return f"sample number{'s' * (len(samples) != 1)} {first_of(samples)}"


def audit(dataset: Dataset) -> Audit:
    """Computes the figures of a dataset, on a grid of 10 segments of 1 s.

    Where clips have lengths of their own, the grid is that of the longest, and no clip has segments after its
    own end.

    >>> audit(read_dataset("AVE_Dataset")).trivial_baselines["test"].always_background  # doctest: +SKIP
    17.786069651741293
    """
    grid = Grid(dataset.segments(1.0))
    samples, table = dataset.samples, dataset.event_table()
    inside = _inside(dataset, grid)
    holds_event = _event_segments(table, len(samples), grid) & inside
    known = np.array([sample.events is not None for sample in samples], bool)
    event_segments = holds_event.sum(axis=1)
    evaluated, is_parsing = _evaluated_samples(dataset, known), bool(table.modality.any())
    total = int(event_segments.sum())
    shared = _shared(dataset)
    return Audit(
        name=dataset.name,
        samples=len(samples),
        videos=len(dataset.videos),
        classes=len(dataset.categories),
        samples_of_shared_videos={
            video_id: tuple(sample.number for sample in several) for video_id, several in shared.items()
        },
        shared_with_other_bounds=tuple(
            video_id for video_id, several in shared.items() if len(set(map(_bounds, several))) > 1
        ),
        shared_with_one_class=tuple(video_id for video_id, several in shared.items() if _one_class(several)),
        dash_samples=sum(sample.video_id.startswith("-") for sample in samples),
        underscore_samples=sum(sample.video_id.startswith("_") for sample in samples),
        categories_with_spaces=tuple(name for name in dataset.categories if " " in name),
        categories_with_commas=tuple(name for name in dataset.categories if "," in name),
        events_of_class=dict(Counter(dataset.categories[number] for number in table.category.tolist())),
        events_of_modality=dict(Counter(MODALITIES[number] for number in table.modality.tolist())),
        samples_of_events=dict(
            sorted(Counter(len(sample.events) for sample in samples if sample.events is not None).items())
        ),
        samples_of_length=dict(sorted(Counter(event_segments[known].tolist()).items())),
        samples_of_split=dict(Counter(sample.split for sample in samples)),
        samples_of_tag=dict(Counter(sample.tag for sample in samples if sample.tag)),
        event_segments=total,
        background_segments=int(inside[known].sum()) - total,
        whole_clip_samples=int((event_segments == inside.sum(1)).sum()),
        empty_samples=_numbers(dataset, known & (event_segments == 0)),
        unknown_samples=_numbers(dataset, ~known),
        weak_samples=tuple(sample.number for sample in samples if sample.categories is not None),
        overlapping_samples=tuple(samples[found.sample].number for found in overlaps(table, grid.seconds)),
        videos_in_both=_videos_in_both(dataset),
        leaked_samples=_leaked(dataset),
        trivial_baselines={
            split: _trivial_baselines(holds_event, inside & chosen[:, None])
            for split, chosen in ({} if is_parsing else evaluated).items()
        },
        parsing_baselines={
            split: _parsing_baselines(dataset, grid, inside, chosen)
            for split, chosen in (evaluated if is_parsing else {}).items()
        },
        longest_seconds=dataset.longest_seconds,
        missing_files=tuple(video.video_id for video in dataset.videos if not video.path),
        extra_files=_extra_files(dataset),
    )


def _inside(dataset: Dataset, grid: Grid) -> NDArray[np.bool_]:
    """Returns True for the segments before the end of each sample's clip, as far as is known: (R, T)."""
    stated = {} if dataset.longest_seconds is None else dataset.stated_seconds
    seconds = [stated.get(sample.video_id, grid.seconds) for sample in dataset.samples]
    lengths = whole_segments(np.array(seconds, np.float64), grid.segments, grid.segment_seconds)
    return np.asarray(np.arange(grid.segments) < lengths[:, None])


def _event_segments(events: EventTable, samples: int, grid: Grid) -> NDArray[np.bool_]:
    """Returns True where a segment of one of R samples holds an event of any class: (R, T)."""
    holds_event = np.zeros((samples, grid.segments), bool)
    sample, _, has = class_segments(events, grid.segments, grid.segment_seconds)
    np.logical_or.at(holds_event, sample, has)
    return holds_event


def _numbers(dataset: Dataset, chosen: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(dataset.samples[place].number for place in np.flatnonzero(chosen).tolist())


def _shared(dataset: Dataset) -> dict[str, list[Sample]]:
    """Returns video id -> its samples, for videos that have several."""
    samples: dict[str, list[Sample]] = {}
    for sample in dataset.samples:
        samples.setdefault(sample.video_id, []).append(sample)
    return {video_id: several for video_id, several in samples.items() if len(several) > 1}


def _bounds(sample: Sample) -> tuple[tuple[float, float], ...]:
    return tuple((event.onset_seconds, event.offset_seconds) for event in sample.events or ())


def _one_class(samples: list[Sample]) -> bool:
    """Returns True if a class has events in several of the samples."""
    classes = [name for sample in samples for name in {event.category for event in sample.events or ()}]
    return len(set(classes)) < len(classes)


def _videos_in_both(dataset: Dataset) -> dict[str, int]:
    videos = {
        split: {sample.video_id for sample in dataset.samples if sample.split == split} for split in SPLITS
    }
    return {f"{a} and {b}": len(videos[a] & videos[b]) for a, b in combinations(SPLITS, 2)}


def _leaked(dataset: Dataset) -> dict[str, tuple[int, ...]]:
    leaked = dataset.leaked()
    return {
        split: tuple(each.number for each in dataset.samples if each.split == split and each.number in leaked)
        for split in ("val", "test")
    }


def _evaluated_samples(dataset: Dataset, known: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Returns split -> which samples are its own and have known events, (R,); "all" without splits."""
    split_of = np.array([sample.split for sample in dataset.samples], object)
    present = [split for split in SPLITS if (split_of == split).any()]
    chosen = {split: known & ((split_of == split) | (split == "all")) for split in present or ["all"]}
    return {split: samples for split, samples in chosen.items() if samples.any()}


def _trivial_baselines(holds_event: NDArray[np.bool_], counted: NDArray[np.bool_]) -> TrivialBaselines:
    """Returns the baselines of the counted segments; both arguments are (R, T)."""
    background = 100 * float((~holds_event[counted]).mean())
    return TrivialBaselines(background, 100 - background)


def _parsing_baselines(
    dataset: Dataset, grid: Grid, inside: NDArray[np.bool_], chosen: NDArray[np.bool_]
) -> ParsingBaselines:
    """Returns the F1, averaged over the chosen samples and over audio, visual, and both at once.

    A class that is in n of T segments has an F1 of 2 n / (n + T) if it is predicted everywhere. A sample gets
    the mean of its classes, or 100 % where it has none and none is predicted.

    Args:
        inside: (R, T), as `_inside` returns it.
        chosen: (R,).
    """
    samples = [dataset.samples[place] for place in np.flatnonzero(chosen).tolist()]
    lengths, modalities = inside[chosen].sum(1), [MODALITIES.index("audio"), MODALITIES.index("visual")]
    held = dataset.segment_classes(grid, samples, modalities, lengths) == 1  # PADDED is no class
    segments = np.concatenate((held, held.all(2, keepdims=True)), 2).sum(1, dtype=float)  # (R, 3, C)
    there = segments.any(1)
    of_class = 2 * segments / (segments + lengths[:, None, None])
    everywhere = np.where(there.any(1), of_class.mean(1).sum(1) / there.sum(1).clip(1), 1)
    return ParsingBaselines(100 * float((~segments.any(2)).mean()), 100 * float(everywhere.mean()))


def _extra_files(dataset: Dataset) -> tuple[str, ...]:
    """Returns video files that no sample names, except the videos of a dataset without samples."""
    named = {sample.video_id for sample in dataset.samples}
    unnamed = (video.path for video in dataset.videos if named and video.video_id not in named)
    return (*dataset.extra_files, *unnamed)
