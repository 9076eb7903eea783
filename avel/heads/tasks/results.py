"""Results of a task on predictions, as typed values, and what they are computed from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from avel.heads.tasks.metrics import Labels
from avel.heads.tasks.parsing_metrics import TYPE

Decoder = Literal["argmax", "event", "threshold"]
"""Way from class probabilities to labels of segments."""


@dataclass(frozen=True)
class LabelSets:
    """Labels predicted for R samples with known events, a set for each seed; no set where R is 0.

    Attributes:
        predicted: labels of each set, (R, T, ...).
        by_decoder: decoder -> the labels of each set by it, for decoders that are to be compared.
        label: (R, T, ...) of the annotations.
        video_id: (R,) video of each sample, over which intervals are drawn.
        leaked: (R,) whether the sample's video is also in train.
        tags: tag -> (R,) whether a sample has it; those that have it are also evaluated by themselves.
        onset_tolerance, offset_tolerance: of events, in segments.
    """

    predicted: Sequence[Labels]
    by_decoder: Mapping[Decoder, Sequence[Labels]]
    label: Labels
    video_id: NDArray[np.object_]
    leaked: NDArray[np.bool_]
    tags: Mapping[str, NDArray[np.bool_]]
    onset_tolerance: float
    offset_tolerance: float


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) over seeds, in the unit that the field's name says.

    One seed has no standard deviation. Both are None where nothing could be counted.
    """

    mean: float | None = None
    std: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Returns mean and std of one value a seed; (None, None) without values or if one is not finite.

        >>> Spread.of([50.0, 70.0]), Spread.of([50.0])
        (Spread(mean=60.0, std=14.142135623730951), Spread(mean=50.0, std=None))
        """
        if not len(values) or not np.isfinite(values).all():
            return cls()
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)

    @classmethod
    def of_fractions(cls, values: Iterable[float] | NDArray[np.float64]) -> Spread:
        """Returns mean and std, in percent, of one fraction a seed."""
        return cls.of([100 * float(value) for value in values])

    @classmethod
    def of_means(cls, values: Sequence[NDArray[np.float64]]) -> Spread:
        """Returns mean and std, in percent, of the mean of each seed's fractions: arrays (R,)."""
        return cls.of_fractions(value.mean() for value in values if len(value))

    def __str__(self) -> str:
        """Returns the text of a table's cell.

        >>> str(Spread(82.44, 3.6)), str(Spread(82.44)), str(Spread())
        ('82.4 ± 3.6', '82.4', '')
        """
        if self.mean is None:
            return ""
        return f"{self.mean:.1f}" + (f" ± {self.std:.1f}" if self.std is not None else "")


def interval_text(interval_percent: tuple[float, float] | None) -> str:
    """Returns the text of a table's cell.

    >>> interval_text((80.25, 84.5)), interval_text(None)
    ('80.2 to 84.5', '')
    """
    return "" if interval_percent is None else "{:.1f} to {:.1f}".format(*interval_percent)


@dataclass(frozen=True)
class EventEvaluation:
    """Event-level scores: an event is right if its class is, and onset and offset are within tolerance."""

    onset_tolerance_segments: float
    offset_tolerance_segments: float
    f1_percent: Spread
    precision_percent: Spread
    recall_percent: Spread


@dataclass(frozen=True)
class TagEvaluation:
    """Results on the samples of one tag, such as those of classes that train lacks.

    `event_f1_percent` is of whole events, with the tolerances that hold for all samples. The F1 over clips
    are those of open-vocabulary localization (Zhou et al. 2025): of each clip the mean over the classes that
    it or its prediction holds, background among them; events are found if they overlap by half. Where a
    segment may have several labels, accuracy and F1 over clips are None, and the other F1 are Type@AV.
    """

    samples: int
    accuracy_percent: Spread
    segment_f1_percent: Spread
    event_f1_percent: Spread
    segment_f1_over_clips_percent: Spread
    event_f1_over_clips_percent: Spread


@dataclass(frozen=True)
class ParsingEvaluation:
    """F1 of video parsing, where a segment may hold several events: means over clips (Tian et al. 2020).

    Attributes:
        segment_f1_percent: "audio", "visual", "audio-visual", "Type@AV" and "Event@AV" -> F1 of segments.
        event_f1_percent: the same of events, which are found if they overlap by half.
        type_without_leaked_percent: Type@AV of segments, without the samples whose video is also in train.
    """

    segment_f1_percent: dict[str, Spread]
    event_f1_percent: dict[str, Spread]
    type_without_leaked_percent: Spread


@dataclass(frozen=True)
class PredictionMetrics:
    """Figures of trials that differ in the seed alone, or of sets of predictions, on one split.

    Accuracies are percent of segments, background included. All is None where no sample of the split has
    known events. Where a segment may have several labels there is no accuracy: `parsing` has the figures, and
    the F1 of segments and of events is Type@AV.

    Attributes:
        interval_percent: 95 % bootstrap interval of the score over videos, (low, high).
        accuracy_without_leaked_percent: without the samples whose video is also in train.
        accuracy_holding_background_percent: on the samples that hold background.
        segment_f1_percent: F1 over segments, where background does not count as found.
        accuracy_by_decoder_percent: decoder -> accuracy.
        recall_percent: event class -> recall over the segments of all seeds; None for a class without any.
        by_tag: tag of samples, and "all" -> results on them; empty where the dataset tags none.
    """

    accuracy_percent: Spread
    interval_percent: tuple[float, float] | None
    accuracy_without_leaked_percent: Spread
    accuracy_holding_background_percent: Spread
    segment_f1_percent: Spread
    accuracy_by_decoder_percent: dict[Decoder, Spread]
    recall_percent: dict[str, float | None]
    background_recall_percent: float | None
    events: EventEvaluation
    by_tag: dict[str, TagEvaluation]
    parsing: ParsingEvaluation | None

    @property
    def score_percent(self) -> Spread:
        """Returns the main metric of the task: accuracy, or Type@AV of segments."""
        return self.accuracy_percent if self.parsing is None else self.parsing.segment_f1_percent[TYPE]

    @property
    def score_without_leaked_percent(self) -> Spread:
        """Returns the main metric without the samples whose video is also in train."""
        if self.parsing is not None:
            return self.parsing.type_without_leaked_percent
        return self.accuracy_without_leaked_percent
