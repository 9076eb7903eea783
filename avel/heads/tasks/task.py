"""Interface of a task: the targets, losses and metrics of a head, and the view of a clip.

Labels of R samples are whole numbers, (R, T) or (R, T, ...), UNKNOWN in all segments of a sample whose events
are not known, PADDED after the end of a clip that is shorter than others. Only the task knows the meaning of
the others.
"""

from __future__ import annotations

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
from avel.stores.datasets.labels import PADDED, UNKNOWN
from avel.stores.datasets.sample import Sample
from avel.stores.features import FeatureCache

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = "background"
TaskName = Literal["single_label", "multi_label"]
TrackName = Literal["", "audio", "visual"]
Column = tuple[str, tuple[str, ...]]
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
        measure: what heads are judged by, in words; a fraction.
        metrics: name -> title of what `tallies` has; the first is the measure.
        decoders: name -> from probabilities (R, T, K) to labels; the first is taken unless told.
        one_label: whether a segment has one label, so that it can be confused with another.
        tracks: names of what a clip has labels for, side by side; "" where there is one.
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
        """K, the number of scores that a head gives each segment."""

    @abstractmethod
    def targets(self, cache: FeatureCache, samples: CachedSamples) -> Targets:
        """Returns what samples of a cache teach.

        Raises:
            DatasetError: a sample whose events do not fit the task.
        """

    @abstractmethod
    def labels_of(self, dataset: Dataset, grid: Grid, samples: Sequence[Sample]) -> Labels:
        """Returns the labels of samples by their events, UNKNOWN where these are not known: (R, T, ...).

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

    @staticmethod
    @abstractmethod
    def obstacle(labels: Tensor) -> str:
        """Says why nothing can be learned from labels of segments or of videos, "" where something can."""

    @staticmethod
    @abstractmethod
    def loss(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns what learning from the labels of segments minimises: (B, T, K), (B, T, ...) -> scalar.

        `mask` (B, T) is True before the end of each clip; None where all have T segments.
        """

    @staticmethod
    @abstractmethod
    def video_loss(logits: Tensor, video_labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns what learning from the labels of videos minimises: (B, T, K), (B, ...) -> scalar."""

    @staticmethod
    @abstractmethod
    def probabilities(logits: Tensor) -> Tensor:
        """Returns probabilities in float32: (..., K) -> (..., K)."""

    @abstractmethod
    def points(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns what each sample scores, at most `full_points`: (..., B, T, K), (B, T, ...) -> (..., B)."""

    @staticmethod
    @abstractmethod
    def full_points(labels: Tensor) -> Tensor:
        """Returns the points of samples that are right in all segments: labels (R, T, ...) -> (R,)."""

    @abstractmethod
    def scores(self, predicted: Labels, labels: Labels) -> NDArray[np.float64]:
        """Returns the same as a fraction of full points, from decoded labels: twice (R, T, ...) -> (R,)."""

    @staticmethod
    @abstractmethod
    def weights(labels: Labels) -> NDArray[np.float64]:
        """Returns how much each sample counts in the mean of `scores`: labels (R, T, ...) -> (R,)."""

    @abstractmethod
    def right(self, predicted: Labels, labels: Labels) -> NDArray[np.bool_]:
        """Returns True where all of a segment's labels are right: twice (R, T, ...) -> (R, T).

        What it says of segments after the end of a clip means nothing.
        """

    @abstractmethod
    def tallies(
        self, predicted: Labels, labels: Labels, onset_tolerance: float = 1, offset_tolerance: float = 1
    ) -> dict[str, Tally]:
        """Returns metric -> each sample's part of it: twice (R, T, ...) -> (R,); tolerances in segments."""

    @abstractmethod
    def results(self, sets: LabelSets) -> PredictionMetrics:
        """Returns all figures of predictions; None where there is no sample."""

    @property
    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """Figures that the report has a column for, the measure first."""

    def interval_percent(self, sets: LabelSets) -> tuple[float, float] | None:
        """Returns the 95 % interval over videos of the mean score of all sets; None where there is none."""
        if not sets.predicted:
            return None
        scores = np.mean([self.scores(predicted, sets.label) for predicted in sets.predicted], 0)
        low, high = bootstrap_interval(scores, sets.video_id, weights=self.weights(sets.label))
        return 100 * low, 100 * high

    @abstractmethod
    def trivial_baselines(self, labels: Labels) -> dict[str, float]:
        """Returns rule without a model -> its mean score: (R, T, ...); NaN without samples."""

    @abstractmethod
    def classes_of(self, labels: Labels) -> list[list[Classes]]:
        """Returns the event classes of each segment of a clip, for each track: (T, ...) -> tracks times T.

        There are fewer than T where the clip ends before.
        """

    @abstractmethod
    def class_masks(self, labels: Labels) -> NDArray[np.bool_]:
        """Returns where each class holds, background last, none after a clip's end: -> (R, T, M, C + 1)."""

    def check_decoder(self, name: str | None) -> None:
        """Refuses a decoder that the task does not have; None is the usual one.

        Raises:
            ConfigError: it is none of them.
        """
        if name is not None and name not in self.decoders:
            raise ConfigError(
                f"no decoder named {name!r} for task {self.name}",
                hint=f"choose from {', '.join(self.decoders)}",
            )

    def decode(self, probabilities: NDArray[Any], decoder: Decoder | None = None) -> Labels:
        """Returns labels by one of the task's ways, by default the first: (R, T, K) -> (R, T, ...)."""
        return self.decoders[decoder or self.usual_decoder](probabilities)

    def shown_classes(self, labels: Labels) -> NDArray[np.int64]:
        """Returns one class for each segment to colour it by, the first that it has: (R, T, ...) -> (R, T).

        Background is K - 1, the number after the last category; after the end of a clip it is PADDED.
        """
        nothing, segments = len(self.categories), labels.shape[1]

        def first(tracks: list[list[Classes]]) -> list[int]:
            first_classes = [
                min((number for classes in segment for number in classes), default=nothing)
                for segment in zip(*tracks, strict=True)
            ]
            return first_classes + [PADDED] * (segments - len(first_classes))

        return np.array([first(self.classes_of(sample)) for sample in labels], np.int64)

    @staticmethod
    def cut(predicted: Labels, labels: Labels) -> Labels:
        """Marks predictions after the end of their clip as the labels are: twice (..., R, T, ...)."""
        return np.where(labels == PADDED, PADDED, predicted)

    @property
    def usual_decoder(self) -> Decoder:
        """Decoder that is used unless another is named."""
        return next(iter(self.decoders))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the categories, and last of background."""
        return (*self.categories, BACKGROUND)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the K scores: the class, and the track where there are several."""
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
        unknown: BlockKind = "label"
        if labels is not None and (labels == UNKNOWN).any():
            unknown = "prediction"
        elif labels is not None:
            beside = self.classes_of(labels)
        pairs = zip(self.classes_of(shown), beside, strict=True)
        return [track_blocks(self.categories, own, label, unknown) for own, label in pairs]


def track_blocks(
    categories: Sequence[str], shown: Sequence[Classes], label: Sequence[Classes] | None, unknown: BlockKind
) -> tuple[Block, ...]:
    """Returns a block for each run of a class that is right, wrong or not judged, and for background."""
    runs: list[tuple[int, int, int | None, BlockKind]] = []
    for number in (None, *sorted({number for segment in shown for number in segment})):
        last: BlockKind | None = None
        for place, segment in enumerate(shown):
            if number not in segment and (number is not None or segment):
                last = None
                continue
            right = label is None or (number in label[place] if segment else not label[place])
            kind: BlockKind = "background" if number is None else unknown if label is None else "right"
            kind = kind if right else "wrong"
            if kind == last:
                runs[-1] = (runs[-1][0], place + 1, number, kind)
            else:
                runs.append((place, place + 1, number, kind))
            last = kind
    ordered = sorted(runs, key=lambda run: run[:2])
    return tuple(
        Block(first, end, kind, "bg" if number is None else categories[number], lane)
        for (first, end, number, kind), lane in zip(
            ordered, lanes_of(run[:2] for run in ordered), strict=True
        )
    )


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
