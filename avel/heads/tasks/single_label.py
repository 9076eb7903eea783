"""Task of AVEL: every segment has one label, the class of an event or background.

All that depends on it is here (targets, losses, accuracy in training, what plots show) and in the decoders
and metrics beside. Another task would be another class with these methods.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from avel.heads.tasks.decoders import DECODERS, Decoder
from avel.heads.tasks.metrics import (
    Labels,
    Tally,
    accuracy_tally,
    event_f1_tally,
    segment_f1_tally,
    trivial_baselines,
)
from avel.stores.datasets.labels import UNKNOWN
from avel.stores.features import CachedSamples, FeatureCache

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = "background"


@dataclass(frozen=True)
class Block:
    """Neighbouring segments of a clip that plots show as one: `first` to `end` - 1.

    Attributes:
        kind: "label" of the annotations; "right" or "wrong" prediction, "prediction" where the label is not
            known. Background is "wrong" or "background".
        text: name of the class, "bg" for background.
    """

    first: int
    end: int
    kind: Literal["label", "right", "wrong", "prediction", "background"]
    text: str


@dataclass(frozen=True)
class SingleLabel:
    """One label a segment; class ids are the order of `categories`, background is K - 1, unknown -1."""

    categories: tuple[str, ...]

    @property
    def background(self) -> int:
        """Class id of background, K - 1."""
        return len(self.categories)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of all K classes, background last."""
        return (*self.categories, BACKGROUND)

    @staticmethod
    def targets(cache: FeatureCache, samples: CachedSamples) -> tuple[Labels, Labels]:
        """Returns the labels of segments and of videos: (R, T) with UNKNOWN, (R,) with NO_CLASS.

        A video's label is the class of its events; NO_CLASS says that it has none, or several.

        Raises:
            DatasetError: a sample in which events of two classes overlap.
        """
        return cache.labels(samples), samples.video_labels()

    @staticmethod
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Returns cross-entropy over segments, Eq. 9 up to a constant: (B, T, K), (B, T) -> scalar."""
        from torch.nn import functional

        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    @staticmethod
    def video_loss(logits: Tensor, video_labels: Tensor) -> Tensor:
        """Returns cross-entropy of the scores averaged over time: (B, T, K), (B,) -> scalar."""
        from torch.nn import functional

        return functional.cross_entropy(logits.mean(1), video_labels)

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        """Returns the softmax in float32: (..., K) -> (..., K)."""
        return logits.float().softmax(-1)

    @staticmethod
    def right(logits: Tensor, labels: Tensor) -> Tensor:
        """Returns True where a segment's most probable class is its label: (..., K), (...) -> (...)."""
        return logits.argmax(-1) == labels

    @staticmethod
    def decode(probabilities: NDArray[Any], decoder: Decoder = "argmax") -> Labels:
        """Returns labels by one of DECODERS: (R, T, K) -> (R, T)."""
        return DECODERS[decoder](probabilities)

    def trivial_baselines(self, labels: Labels) -> dict[str, float]:
        """Returns rule without a model -> fraction of right segments: (R, T)."""
        return trivial_baselines(labels, self.background)

    def tallies(
        self, predicted: Labels, labels: Labels, onset_tolerance: float = 1, offset_tolerance: float = 1
    ) -> dict[str, Tally]:
        """Returns metric -> what each sample adds to it: (R, T), (R, T) -> (R,); tolerances in segments."""
        return {
            "accuracy": accuracy_tally(predicted, labels),
            "segment_f1": segment_f1_tally(predicted, labels, self.background),
            "event_f1": event_f1_tally(predicted, labels, self.background, onset_tolerance, offset_tolerance),
        }

    def title(self, labels: Labels) -> str:
        """Names the classes of a clip's labels (T,), in order of time."""
        if (labels == UNKNOWN).any():
            return "events unknown"
        found = dict.fromkeys(self.categories[label] for label in labels.tolist() if label != self.background)
        return ", ".join(found) or "no event"

    def blocks(self, classes: Labels, labels: Labels | None = None) -> Iterator[Block]:
        """Yields the blocks of predictions (T,), compared with labels (T,) if given, or of labels alone."""
        reference = classes if labels is None else labels
        known = reference != UNKNOWN
        right = (classes == reference) | ~known
        changed = np.any([np.diff(each) != 0 for each in (classes, right.astype(int), known.astype(int))], 0)
        edges = [0, *(np.flatnonzero(changed) + 1).tolist(), len(classes)]
        for first, end in itertools.pairwise(edges):
            number = int(classes[first])
            if number == UNKNOWN:
                continue
            empty = number == self.background
            kind: Literal["label", "right", "wrong", "prediction", "background"] = (
                "wrong"
                if not right[first]
                else "background"
                if empty
                else "label"
                if labels is None
                else "right"
                if known[first]
                else "prediction"
            )
            yield Block(first, end, kind, "bg" if empty else self.categories[number])
