"""Base classes of the CNNs below the Bi-LSTMs, and loading of their weights.

A new backbone is one class in one file with one decorator and its settings in a nested `Config`; a package
outside avel names its module under the entry-point group `avel.visual_backbones` or `avel.audio_backbones`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from avel.config import ComponentConfig
from avel.errors import WeightsError
from avel.pipeline.encoders.weights import PublishedWeights, State, fetch, read_state

RANDOM, PUBLISHED = "random", "published"
"""Values of `weights` for an untrained CNN, and for the first published weights."""


class Backbone(nn.Module, ABC):
    """A CNN with `width` D features, built from its settings.

    Attributes:
        Config: its settings, a frozen dataclass derived from ComponentConfig; each class has its own.
        config: the settings that this one was built from.
        width: D, features of one vector.
        variant: which of the published forms the loaded weights have; `become` takes it again.
        pretrained: whether published weights were loaded.
        published: weights on the network by name; the first one is the default.
    """

    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    width: int
    variant: str = "default"
    pretrained: bool = False
    published: ClassVar[Mapping[str, PublishedWeights]] = {}

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__()
        self.config = config

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
        """Computes feature maps of frames in [0, 1]: (B, 3, H, W) -> (B, D, H', W')."""

    def forward(self, frames: Tensor) -> Tensor:
        """Computes pooled vectors: (B, 3, H, W) -> (B, D)."""
        return self.maps(frames).mean((2, 3))


class AudioBackbone(Backbone):
    """Staged log-mel patches, ln(mel + 0.01), to vectors."""

    @abstractmethod
    def forward(self, log_mel: Tensor) -> Tensor:
        """Computes one vector a patch: (B, 96, 64) -> (B, D)."""


def load_backbone(backbone: Backbone, weights: str, option: str) -> None:
    """Loads `weights` into `backbone`: a file, a published name, "published" (the first one), or "random".

    Raises:
        WeightsError: a file that is missing or does not fit, a download that failed, or "published" where
            nothing is.
    """
    if weights == RANDOM:
        return
    if weights == PUBLISHED and not backbone.published:
        raise WeightsError(
            f"{option} is {PUBLISHED}, and {type(backbone).__name__} has no published weights",
            hint=f"{option} FILE, or {option} {RANDOM} for an untrained CNN",
        )
    if weights == PUBLISHED or weights in backbone.published:
        name = next(iter(backbone.published)) if weights == PUBLISHED else weights
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
    """(frames - mean) / std per channel; not part of the state dict."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Normalises each channel: (B, 3, H, W) -> the same."""
        return (frames - self.mean) / self.std
