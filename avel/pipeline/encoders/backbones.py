"""The CNN under each Bi-LSTM: what a backbone must offer, the two registries, and building with weights.

A new backbone is one class in one file with one decorator; a package outside avel names its module under the
entry-point group `avel.visual_backbones` or `avel.audio_backbones`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from avel.errors import WeightsError
from avel.pipeline.encoders.weights import PublishedWeights, State, fetch, read_state
from avel.registry import Registry

RANDOM = "random"
"""The choice of weights that asks for none."""


class Backbone(nn.Module, ABC):
    """A CNN with `width` D features.

    Attributes:
        width: D, features of one vector.
        variant: which of the published forms the loaded weights have; `become` takes it again.
        pretrained: whether published weights were loaded.
        published: weights on the network by name; the first one is the default.
    """

    width: int
    variant: str = "default"
    pretrained: bool = False
    published: ClassVar[Mapping[str, PublishedWeights]] = {}

    def become(self, variant: str) -> None:
        """Takes the form in which weights of `variant` are computed with."""
        self.variant = variant

    @abstractmethod
    def load_published(self, state: State, where: str) -> None:
        """Takes a state dict in the published layout; raises WeightsError where it does not fit."""


class VisualBackbone(Backbone):
    """RGB frames in [0, 1] to vectors; each backbone normalises for itself."""

    @abstractmethod
    def maps(self, frames: Tensor) -> Tensor:
        """Feature maps of frames in [0, 1]: (B, 3, H, W) -> (B, D, H', W')."""

    def forward(self, frames: Tensor) -> Tensor:
        """Pooled vectors: (B, 3, H, W) -> (B, D)."""
        return self.maps(frames).mean((2, 3))


class AudioBackbone(Backbone):
    """Staged log-mel patches, ln(mel + 0.01), to vectors."""

    @abstractmethod
    def forward(self, log_mel: Tensor) -> Tensor:
        """One vector a patch: (B, 96, 64) -> (B, D)."""


VISUAL_BACKBONES: Registry[type[VisualBackbone]] = Registry(
    "visual backbone",
    modules={
        **dict.fromkeys(("resnet18", "resnet34", "resnet50"), "avel.pipeline.encoders.resnet"),
        "mobilenet_v2": "avel.pipeline.encoders.mobilenet",
        "tiny": "avel.pipeline.encoders.tiny",
    },
    group="avel.visual_backbones",
)
AUDIO_BACKBONES: Registry[type[AudioBackbone]] = Registry(
    "audio backbone",
    modules={name: f"avel.pipeline.encoders.{name}" for name in ("tiny", "vggish", "yamnet")},
    group="avel.audio_backbones",
)


def load_backbone(backbone: Backbone, weights: str | None, option: str) -> None:
    """Loads `weights` into `backbone`: a file, a published name, None (the default published), or "random".

    Raises:
        WeightsError: a file that is missing or does not fit, a download that failed, or None where nothing is
            published.
    """
    if weights == RANDOM:
        return
    if weights is None and not backbone.published:
        raise WeightsError(
            f"{option} is not given, and {type(backbone).__name__} has no published weights",
            hint=f"{option} FILE, or {option} {RANDOM} for an untrained CNN",
        )
    if weights is None or weights in backbone.published:
        name = weights or next(iter(backbone.published))
        backbone.load_published(fetch(backbone.published[name], option), name)
    elif not Path(weights).is_file():
        names = ", ".join((*backbone.published, RANDOM))
        raise WeightsError(
            f"{weights}: no such weights file", hint=f"name another one, or choose from {names}"
        )
    else:
        backbone.load_published(read_state(weights), weights)
    backbone.pretrained = True


class Normalise(nn.Module):
    """(frames - mean) / deviation per channel; not part of the state dict."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: tuple[float, float, float], deviation: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) -> the same."""
        return (frames - self.mean) / self.deviation
