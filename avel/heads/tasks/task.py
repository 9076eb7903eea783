"""Interface of a task: the targets, losses and metrics of a head, and what is shown of a clip.

Labels of R samples are whole numbers, (R, T) or (R, T, ...): UNKNOWN in all segments of a sample whose events
are not known, PADDED after the end of a clip that is shorter than others. What other numbers mean, only the
task knows.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from avel.errors import ConfigError
from avel.grid import Grid
from avel.heads.tasks.metrics import Labels, Tally, bootstrap_interval
from avel.heads.tasks.results import Decoder, LabelSets, PredictionMetrics
from avel.stores.cached_samples import CachedSamples
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.labels import PADDED, UNKNOWN, in_clip
from avel.stores.datasets.sample import Sample
from avel.stores.features import FeatureCache

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = "background"
TaskName = Literal["single_label", "multi_label"]
TrackName = Literal["", "audio", "visual"]
FigureColumn = tuple[str, tuple[str, ...]]
"""Title of a figure, and its place in the results: the names that lead to it."""
Classes = tuple[int, ...]
"""Event classes of one segment in one track; () is background."""
BlockKind = Literal["label", "right", "wrong", "prediction", "background"]


@dataclass(frozen=True)
class Block:
    """Neighbouring segments of a clip that are shown as one: `first` to `end` - 1.

    Attributes:
        kind: "label" of the annotations; "right" or "wrong" prediction, "prediction" where the label is not
            known. Background is "wrong" or "background".
        text: name of the class, "bg" for background.
        lane: 0, or more where other blocks of the same seconds are above it.
    """

    first: int
    end: int
    kind: BlockKind
    text: str
    lane: int = 0


@dataclass(frozen=True)
class Targets:
    """Targets of the samples of a cache.

    Attributes:
        labels: (R, T, ...) of segments.
        video_labels: (R, ...) of whole clips.
        has_video_label: (R,) which samples have such a label.
    """

    labels: Labels
    video_labels: Labels
    has_video_label: NDArray[np.bool_]


ORACLE = "right class"
"""Beginning of the names of trivial baselines that take the classes of each clip as known."""


@dataclass(frozen=True)
class Task(ABC):
    """Base of all tasks; class ids are the order of `categories`.

    Attributes:
        name: as `--task` takes it.
        measure: the main metric in words; its values are fractions.
        metrics: name -> title of the metrics of `tallies`; the first is the main one.
        decoders: name -> function from probabilities (R, T, K) to labels; the first is the usual one.
        one_label: whether a segment has one label, so that it can be confused with another.
        tracks: modalities that have labels of their own; one track named "" where the labels are of both.
    """

    name: ClassVar[TaskName]
    measure: ClassVar[str]
    metrics: ClassVar[Mapping[str, str]]
    decoders: ClassVar[Mapping[Decoder, Callable[[NDArray[Any]], Labels]]]
    one_label: ClassVar[bool]

    categories: tuple[str, ...]
    tracks: tuple[TrackName, ...] = ("",)

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Returns K, the number of scores that a head gives each segment."""

    @abstractmethod
    def targets(self, cache: FeatureCache, samples: CachedSamples) -> Targets:
        """Returns the targets of samples of a cache.

        Raises:
            DatasetError: a sample whose events do not fit the task.
        """

    @abstractmethod
    def labels_of(self, dataset: Dataset, grid: Grid, samples: Sequence[Sample]) -> Labels:
        """Returns the labels of samples of a dataset: (R, T, ...).

        Raises:
            DatasetError: a sample whose events do not fit the task.
        """

    @abstractmethod
    def as_scores(self, labels: Labels) -> NDArray[np.float32]:
        """Returns scores of which `decode` makes these labels: (R, T, ...) -> (R, T, K)."""

    @staticmethod
    @abstractmethod
    def are_probabilities(scores: NDArray[np.float64]) -> bool:
        """Tells probabilities from logits: (..., K)."""

    @abstractmethod
    def background_targets(self, samples: int, segments: int) -> Targets:
        """Returns the targets of R samples that hold no event."""

    @abstractmethod
    def video_points(self, logits: Tensor, video_labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns how right each video's classes are, 0 to 1: (..., B, T, K), (B, ...) -> (..., B).

        `mask` (B, T) is True before the end of each clip; after it logits are 0.
        """

    @abstractmethod
    def obstacle(self, labels: Tensor) -> str:
        """Says why nothing can be learned from labels of segments or of videos, "" where something can."""

    @staticmethod
    @abstractmethod
    def loss(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the loss of full supervision, by labels of segments: (B, T, K), (B, T, ...) -> scalar.

        `mask` (B, T) is True before the end of each clip; None where all have T segments.
        """

    @staticmethod
    @abstractmethod
    def video_loss(logits: Tensor, video_labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the loss of weak supervision, by labels of videos: (B, T, K), (B, ...) -> scalar."""

    @staticmethod
    @abstractmethod
    def probabilities(logits: Tensor) -> Tensor:
        """Returns probabilities in float32: (..., K) -> (..., K)."""

    @abstractmethod
    def points(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns what each sample adds to training's score, `full_points` at most.

        (..., B, T, K), (B, T, ...) -> (..., B).
        """

    @staticmethod
    @abstractmethod
    def full_points(labels: Tensor) -> Tensor:
        """Returns the points of each sample if all its segments are right: labels (R, T, ...) -> (R,)."""

    @abstractmethod
    def sample_scores(self, predicted: Labels, labels: Labels) -> NDArray[np.float64]:
        """Returns the main metric of each sample by itself, 0 to 1: twice (R, T, ...) -> (R,)."""

    @staticmethod
    @abstractmethod
    def weights(labels: Labels) -> NDArray[np.float64]:
        """Returns how much each sample counts in the main metric of a split: labels (R, T, ...) -> (R,)."""

    @abstractmethod
    def right(self, predicted: Labels, labels: Labels) -> NDArray[np.bool_]:
        """Returns True where all of a segment's labels are right: twice (R, T, ...) -> (R, T).

        Values after the end of a clip mean nothing.
        """

    @abstractmethod
    def tallies(self, predicted: Labels, labels: Labels) -> dict[str, Tally]:
        """Returns metric -> each sample's part of it: twice (R, T, ...) -> (R,).

        A task that matches events by onset and offset lets each be one segment off.
        """

    @abstractmethod
    def results(self, sets: LabelSets) -> PredictionMetrics:
        """Returns all figures of predictions; None where there is no sample."""

    @property
    @abstractmethod
    def columns(self) -> tuple[FigureColumn, ...]:
        """Returns the figures that the report has a column for, the main metric first."""

    def interval_percent(self, sets: LabelSets) -> tuple[float, float] | None:
        """Returns the main metric's 95 % interval over videos, of the mean over sets; None without sets."""
        if not sets.predicted:
            return None
        scores = np.mean([self.sample_scores(predicted, sets.label) for predicted in sets.predicted], 0)
        low, high = bootstrap_interval(scores, sets.video_id, weights=self.weights(sets.label))
        return 100 * low, 100 * high

    @abstractmethod
    def trivial_baselines(self, labels: Labels) -> dict[str, float]:
        """Returns rule without a model -> its main metric: (R, T, ...); NaN without samples."""

    @abstractmethod
    def classes_of(self, labels: Labels) -> list[list[Classes]]:
        """Returns for each track the event classes of each segment, up to the clip's end: (T, ...)."""

    @abstractmethod
    def class_masks(self, labels: Labels) -> NDArray[np.bool_]:
        """Returns where a track holds a class, background last: (R, T, ...) -> (R, T, M, C + 1).

        It is False after the end of a clip.
        """

    def find_decoder(self, name: Decoder | None) -> Decoder:
        """Returns the decoder of that name, the usual one for None.

        Raises:
            ConfigError: the task has no such decoder.
        """
        if name is not None and name not in self.decoders:
            raise ConfigError(
                f"no decoder named {name!r} for task {self.name}",
                hint=f"choose from {', '.join(self.decoders)}",
            )
        return name or self.usual_decoder

    def decode(self, probabilities: NDArray[Any], decoder: Decoder | None = None) -> Labels:
        """Returns the labels that a decoder makes of probabilities: (R, T, K) -> (R, T, ...)."""
        return self.decoders[decoder or self.usual_decoder](probabilities)

    def shown_classes(self, labels: Labels) -> NDArray[np.int64]:
        """Returns one class for each segment to colour it by, the first that it has: (R, T, ...) -> (R, T).

        Background is the number after the last category; after the end of a clip it is PADDED.
        """
        held = self.class_masks(labels)[..., :-1].any(2)
        first = np.where(held.any(-1), held.argmax(-1), len(self.categories))
        return np.where(in_clip(labels), first, PADDED)

    @staticmethod
    def cut(predicted: Labels, labels: Labels) -> Labels:
        """Marks predictions as PADDED where labels are, after the end of a clip: twice (R, T, ...)."""
        return np.where(labels == PADDED, PADDED, predicted)

    @property
    def usual_decoder(self) -> Decoder:
        """Returns the decoder that is used unless another is named."""
        return next(iter(self.decoders))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the names of the categories, and last of background."""
        return (*self.categories, BACKGROUND)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Returns the names of the K scores: the class, and the track where there are several."""
        return tuple(
            f"{name} ({track})" if track else name for track in self.tracks for name in self.categories
        )

    def title(self, labels: Labels) -> str:
        """Names the classes of a clip's labels (T, ...), in order of time."""
        if (labels == UNKNOWN).any():
            return "events unknown"
        tracks = self.classes_of(labels)
        numbers = dict.fromkeys(
            number for segment in zip(*tracks, strict=True) for classes in segment for number in classes
        )
        return ", ".join(self.categories[number] for number in numbers) or "no event"

    def blocks(self, shown: Labels, labels: Labels | None = None) -> list[tuple[Block, ...]]:
        """Returns what is shown of a clip by track: predictions (T, ...) beside labels, or labels alone.

        Nothing is shown of labels that are not known; predictions beside them are neither right nor wrong.
        """
        if (shown == UNKNOWN).any():
            return [() for _ in self.tracks]
        beside: Sequence[list[Classes] | None] = [None] * len(self.tracks)
        if labels is not None and not (labels == UNKNOWN).any():
            beside = self.classes_of(labels)
        alone: BlockKind = "label" if labels is None else "prediction"
        pairs = zip(self.classes_of(shown), beside, strict=True)
        return [track_blocks(self.categories, own, label, alone) for own, label in pairs]


def track_blocks(
    categories: Sequence[str], shown: Sequence[Classes], label: Sequence[Classes] | None, alone: BlockKind
) -> tuple[Block, ...]:
    """Returns a block for each run of a class, or of background, of one kind.

    Args:
        label: classes of the segments, by which a class is right or wrong.
        alone: kind of all classes without `label`.
    """

    def kind_of(number: int | None, place: int) -> BlockKind | None:  # None is background
        if number not in (shown[place] or (None,)):
            return None
        if label is not None and number not in (label[place] or (None,)):
            return "wrong"
        return "background" if number is None else alone if label is None else "right"

    runs: list[tuple[int, int, BlockKind, str]] = []
    for number in (None, *sorted({number for segment in shown for number in segment})):
        first, text = 0, "bg" if number is None else categories[number]
        for kind, run in itertools.groupby(kind_of(number, place) for place in range(len(shown))):
            end = first + len(list(run))
            if kind is not None:
                runs.append((first, end, kind, text))
            first = end
    runs.sort(key=lambda run: run[:2])
    lanes = lanes_of(run[:2] for run in runs)
    return tuple(Block(*run, lane) for run, lane in zip(runs, lanes, strict=True))


def lanes_of(spans: Iterable[tuple[float, float]]) -> list[int]:
    """Returns the lane of each span, so that none hides another: the first that is free where it begins.

    >>> lanes_of([(0, 4), (1, 3), (3, 5)])
    [0, 1, 1]
    """
    ends: list[float] = []
    lanes = []
    for begin, end in spans:
        lane = next((lane for lane, free in enumerate(ends) if free <= begin), len(ends))
        ends[lane : lane + 1] = [end]
        lanes.append(lane)
    return lanes
