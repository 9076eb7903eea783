"""Task of video parsing: a segment holds any number of classes at once, in audio and visual each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from avel.grid import Grid
from avel.heads.tasks.metrics import Labels, Tally
from avel.heads.tasks.parsing_metrics import EVENT, TYPE, f1, overlap_counts, segment_counts, segment_f1
from avel.heads.tasks.results import (
    EventEvaluation,
    LabelSets,
    ParsingEvaluation,
    PredictionMetrics,
    Spread,
    TagEvaluation,
)
from avel.heads.tasks.task import Classes, FigureColumn, Targets, Task, TrackName
from avel.stores.cached_samples import CachedSamples
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.labels import PADDED, in_clip
from avel.stores.datasets.sample import MODALITIES, Sample
from avel.stores.features import FeatureCache

if TYPE_CHECKING:
    from torch import Tensor

F1ByType = dict[str, NDArray[np.float64]]
"""Type, Type@AV or Event@AV -> F1 of each sample, (R,)."""
AUDIO_VISUAL = "audio-visual"
PER_MODALITY: tuple[TrackName, ...] = ("audio", "visual")
SMALLEST = 1e-7
"""Probabilities of videos stay this far from 0 and 1, so that their logarithms are finite."""


def decode_threshold(probabilities: NDArray[Any]) -> NDArray[np.int8]:
    """Returns 1 for each class with a probability of at least 0.5, else 0: (R, T, K) -> (R, T, K)."""
    return np.asarray(probabilities >= 0.5, np.int8)


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any classes in a segment: 1 or 0 for each of M tracks and C classes, int8 (R, T, K), tracks outermost.

    A track is a modality; where all events of a dataset are in both there is one track. The label of a video
    (C,) says which classes it holds at all.
    """

    name = "multi_label"
    measure = "Type@AV F1 of segments"
    metrics: ClassVar = {"segment_f1": "segment F1, Type@AV", "event_f1": "event F1, Type@AV"}
    decoders: ClassVar = {"threshold": decode_threshold}
    one_label = False

    @property
    def outputs(self) -> int:
        return len(self.tracks) * len(self.categories)

    @property
    def types(self) -> tuple[str, ...]:
        """Returns the names of the types, each with its own F1: the tracks, and what both hold at once."""
        return (*self.tracks, AUDIO_VISUAL) if len(self.tracks) > 1 else (AUDIO_VISUAL,)

    def targets(self, cache: FeatureCache, samples: CachedSamples) -> Targets:
        labels = self._flat(cache.segment_classes(samples, self._modalities))
        return Targets(labels, samples.video_classes(len(self.categories)), samples.labelled)

    def labels_of(self, dataset: Dataset, grid: Grid, samples: Sequence[Sample]) -> Labels:
        return self._flat(dataset.segment_classes(grid, samples, self._modalities))

    def as_scores(self, labels: Labels) -> NDArray[np.float32]:
        return labels.astype(np.float32)

    @staticmethod
    def are_probabilities(scores: NDArray[np.float64]) -> bool:
        """Returns True if all scores lie in [0, 1]."""
        return bool(scores.min() >= 0 and scores.max() <= 1)

    def background_targets(self, samples: int, segments: int) -> Targets:
        labels = np.zeros((samples, segments, self.outputs), np.int8)
        return Targets(labels, labels[:, 0, : len(self.categories)], np.ones(samples, bool))

    def video_points(self, logits: Tensor, video_labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the geometric mean of the probabilities that a video's classes are as labelled.

        (..., B, T, K), (B, C) -> (..., B). The F1 of the classes that any segment holds would not tell good
        epochs from early ones, in which every clip has a segment of every class.
        """
        p = self.video_probabilities(logits.float(), video_labels.shape[-1], mask)
        right = p.where(video_labels.bool(), 1 - p).clamp_min(SMALLEST)
        points: Tensor = right.log().mean(-1).exp()
        return points

    def obstacle(self, labels: Tensor) -> str:
        if not (labels == 1).any():
            return "no event"
        return "" if (labels == 0).any() else "every class everywhere"

    @staticmethod
    def loss(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns binary cross-entropy, mean over segments, tracks and classes: twice (B, T, K) -> scalar."""
        from torch.nn import functional

        from avel.nn import mean_over_segments

        if mask is None:
            return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        targets = labels.clamp_min(0).to(logits.dtype)
        losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return mean_over_segments(losses.mean(-1), mask)

    @staticmethod
    def video_loss(logits: Tensor, video_labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns binary cross-entropy of the clip's class probabilities: (B, T, K), (B, C) -> scalar."""
        p = MultiLabel.video_probabilities(logits, video_labels.shape[-1], mask)
        return video_cross_entropy(p, video_labels)

    @staticmethod
    def video_probabilities(logits: Tensor, classes: int, mask: Tensor | None = None) -> Tensor:
        """Returns the probability that a clip holds each class: (..., B, T, K) -> (..., B, C).

        It is the sum of p^2 over the sum of p, over segments and tracks (linear softmax, Wang et al. 2019).
        """
        p = logits.sigmoid()
        p = p if mask is None else p.masked_fill(~mask.unsqueeze(-1), 0)
        p = p.reshape(*logits.shape[:-2], -1, classes)
        pooled: Tensor = p.square().sum(-2) / p.sum(-2).clamp_min(SMALLEST)
        return pooled

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        """Returns the sigmoid in float32: (..., K) -> (..., K)."""
        return logits.float().sigmoid()

    def points(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns Type@AV of the segments that the threshold gives."""
        inside = labels != PADDED
        predicted, wanted = (self._types((side * inside).double()) for side in (logits >= 0, labels))
        points: Tensor = segment_f1(predicted, wanted).mean(-1)
        return points

    @staticmethod
    def full_points(labels: Tensor) -> Tensor:
        return labels.new_ones(len(labels))

    def sample_scores(self, predicted: Labels, labels: Labels) -> NDArray[np.float64]:
        """Returns each sample's Type@AV over segments: twice (R, T, K) -> (R,)."""
        return np.asarray(segment_f1(*self._sides(predicted, labels)).mean(-1))

    @staticmethod
    def weights(labels: Labels) -> NDArray[np.float64]:
        """Returns 1 for each sample: F1 are means over clips, however long these are."""
        return np.ones(len(labels))

    def right(self, predicted: Labels, labels: Labels) -> NDArray[np.bool_]:
        """Returns True where every class of every track is right: twice (R, T, K) -> (R, T)."""
        return np.asarray((predicted == labels).all(-1))

    def tallies(self, predicted: Labels, labels: Labels) -> dict[str, Tally]:
        """Returns Type@AV of segments and of events, which are means over samples."""
        segments, events = self.f1_by_type(predicted, labels)
        whole = np.ones(len(labels))
        return {"segment_f1": Tally(segments[TYPE], whole), "event_f1": Tally(events[TYPE], whole)}

    def results(self, sets: LabelSets) -> PredictionMetrics:
        """Returns the F1 of all types; figures that need one label a segment are None."""
        both = [self.f1_by_type(predicted, sets.label) for predicted in sets.predicted]
        segments, events = [each for each, _ in both], [each for _, each in both]
        names = (*self.types, TYPE, EVENT)

        def spread(
            f1_of_sets: list[F1ByType], name: str, chosen: NDArray[np.bool_] | slice = slice(None)
        ) -> Spread:
            return Spread.of_means([f1_by_type[name][chosen] for f1_by_type in f1_of_sets])

        return PredictionMetrics(
            accuracy_percent=Spread(),
            interval_percent=self.interval_percent(sets),
            accuracy_without_leaked_percent=Spread(),
            accuracy_holding_background_percent=Spread(),
            segment_f1_percent=spread(segments, TYPE),
            accuracy_by_decoder_percent={},
            recall_percent={},
            background_recall_percent=None,
            events=EventEvaluation(0, 0, spread(events, TYPE), Spread(), Spread()),
            parsing=ParsingEvaluation(
                segment_f1_percent={name: spread(segments, name) for name in names},
                event_f1_percent={name: spread(events, name) for name in names},
                type_without_leaked_percent=spread(segments, TYPE, ~sets.leaked),
            ),
            by_tag={
                tag: TagEvaluation(
                    samples=int(chosen.sum()),
                    accuracy_percent=Spread(),
                    segment_f1_percent=spread(segments, TYPE, chosen),
                    event_f1_percent=spread(events, TYPE, chosen),
                    segment_f1_over_clips_percent=Spread(),
                    event_f1_over_clips_percent=Spread(),
                )
                for tag, chosen in sets.tags.items()
            },
        )

    @property
    def columns(self) -> tuple[FigureColumn, ...]:
        kinds = {"segments": "segment_f1_percent", "events": "event_f1_percent"}
        return (
            *(
                (f"{name}, {title}", ("parsing", key, name))
                for title, key in kinds.items()
                for name in (TYPE, EVENT, *self.types)
            ),
            ("95 % interval over videos, Type@AV", ("interval_percent",)),
            ("without leaked videos, Type@AV", ("parsing", "type_without_leaked_percent")),
            ("at the best test epoch *", ("score_at_best_test_epoch_percent",)),
        )

    def f1_by_type(self, predicted: Labels, labels: Labels) -> tuple[F1ByType, F1ByType]:
        """Returns each sample's F1 of segments, then of events: by type, Type@AV and Event@AV.

        Twice (R, T, K) -> twice name -> (R,).
        """
        sides = self._sides(predicted, labels)
        return self._by_name(*segment_counts(*sides)), self._by_name(*overlap_counts(*sides))

    def trivial_baselines(self, labels: Labels) -> dict[str, float]:
        """Returns rule without a model -> its mean Type@AV over segments: (R, T, K); NaN without samples.

        The second rule takes the classes of each video as known.
        """
        tracks = labels.reshape(*labels.shape[:2], len(self.tracks), -1)
        present = (tracks == 1).any((1, 2), keepdims=True)
        everywhere = np.broadcast_to(present, (*labels.shape[:2], len(self.tracks), present.shape[-1]))
        rules = {
            "never any event": np.zeros_like(labels),
            "right classes, always and everywhere": everywhere.reshape(labels.shape).astype(np.int8),
        }
        return {
            rule: float(self.sample_scores(predicted, labels).mean()) if len(labels) else float("nan")
            for rule, predicted in rules.items()
        }

    def class_masks(self, labels: Labels) -> NDArray[np.bool_]:
        tracks = labels.reshape(*labels.shape[:2], len(self.tracks), -1)
        inside = in_clip(labels)[..., None, None]
        background = ~(tracks > 0).any(-1, keepdims=True)
        return np.asarray(np.concatenate((tracks > 0, background), -1) & inside)

    def classes_of(self, labels: Labels) -> list[list[Classes]]:
        inside = labels[labels[:, 0] != PADDED]
        by_track = inside.reshape(len(inside), len(self.tracks), -1).swapaxes(0, 1)
        return [[tuple(np.flatnonzero(segment).tolist()) for segment in track.tolist()] for track in by_track]

    @property
    def _modalities(self) -> list[int]:
        return [MODALITIES.index(track or "both") for track in self.tracks]

    def _flat(self, labels: Labels) -> Labels:
        """Puts the classes of all tracks into one axis: (R, T, M, C) -> (R, T, K)."""
        return labels.reshape(*labels.shape[:2], self.outputs)

    def _sides(self, predicted: Labels, labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns predictions and labels by type, no class after a clip's end: twice (R, T, types, C)."""
        inside = in_clip(labels)[..., None].astype(np.float64)
        return self._types(predicted * inside), self._types(labels * inside)

    def _types(self, labels: Any) -> Any:
        """Puts tracks apart and adds what both hold at once: (..., T, K) -> (..., T, types, C)."""
        shape = (len(self.tracks), len(self.categories))
        tracks = labels.reshape(*labels.shape[:-1], *shape)
        if len(self.tracks) == 1:
            return tracks
        both = tracks.prod(-2)
        if isinstance(labels, np.ndarray):
            return np.concatenate((tracks, both[..., None, :]), -2)
        import torch

        return torch.cat((tracks, both[..., None, :]), -2)

    def _by_name(self, found: NDArray[np.float64], wrong: NDArray[np.float64]) -> F1ByType:
        """Returns F1 by type, Type@AV and Event@AV: twice (R, types, C) -> name -> (R,)."""
        by_type, tracks = f1(found, wrong), slice(len(self.tracks))
        named = {name: by_type[:, place] for place, name in enumerate(self.types)}
        all_tracks = f1(found[:, tracks].sum(1), wrong[:, tracks].sum(1))
        return named | {TYPE: by_type.mean(1), EVENT: all_tracks}


def video_cross_entropy(probabilities: Tensor, video_labels: Tensor) -> Tensor:
    """Returns binary cross-entropy, averaged over videos and classes: twice (B, C) -> scalar."""
    # Written out, because torch's own refuses to run under autocast on a GPU
    p = probabilities.clamp(SMALLEST, 1 - SMALLEST)
    return -(video_labels * p.log() + (1 - video_labels) * (1 - p).log()).mean()
