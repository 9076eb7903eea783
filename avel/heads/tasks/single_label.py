"""The task of AVEL: every segment has one label, the class of an event or background.

What follows from that stands here: targets, losses, how a head is judged while it trains, what is shown of a
clip; decoders and metrics are beside it. Another task would be another class with these methods.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from avel.heads.tasks.decoders import DECODERS, Decoder
from avel.heads.tasks.metrics import Labels, trivial_baselines
from avel.stores.datasets.labels import UNKNOWN
from avel.stores.features import CachedSamples, FeatureCache

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = "background"


@dataclass(frozen=True)
class Block:
    """Neighbouring segments of a clip that are shown as one: `first` to `end` - 1.

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
        """Cross-entropy averaged over segments, Eq. 9 up to its constant: (B, T, K), (B, T) -> scalar."""
        from torch.nn import functional

        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    @staticmethod
    def video_loss(logits: Tensor, video_labels: Tensor) -> Tensor:
        """Cross-entropy of the scores averaged over time: (B, T, K), (B,) -> scalar."""
        from torch.nn import functional

        return functional.cross_entropy(logits.mean(1), video_labels)

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        """Softmax in float32: (..., K) -> (..., K)."""
        return logits.float().softmax(-1)

    @staticmethod
    def right(logits: Tensor, labels: Tensor) -> Tensor:
        """Whether each segment's most probable class is its label: (..., K), (...) -> bool (...)."""
        return logits.argmax(-1) == labels

    @staticmethod
    def decode(probabilities: NDArray[Any], decoder: Decoder = "argmax") -> Labels:
        """Labels by one of the field's ways: (R, T, K) -> (R, T)."""
        return DECODERS[decoder](probabilities)

    def trivial_baselines(self, labels: Labels) -> dict[str, float]:
        """Returns rule without a model -> fraction of right segments: (R, T)."""
        return trivial_baselines(labels, self.background)

    def title(self, labels: Labels) -> str:
        """Names the classes of a clip's labels (T,), in order of time."""
        if (labels == UNKNOWN).any():
            return "events unknown"
        found = dict.fromkeys(self.categories[label] for label in labels.tolist() if label != self.background)
        return ", ".join(found) or "no event"

    def blocks(self, classes: Labels, labels: Labels | None = None) -> Iterator[Block]:
        """Yields what is shown of a clip: of predictions (T,) beside labels (T,), or of labels alone."""
        beside = classes if labels is None else labels
        known = beside != UNKNOWN
        right = (classes == beside) | ~known
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
