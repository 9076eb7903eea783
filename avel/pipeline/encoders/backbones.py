"""Base classes of the CNNs below the Bi-LSTMs, and loading of their weights.

A new backbone is one class in one file with one decorator and its settings in a nested `Config`; a package
outside avel names its module under the entry-point group `avel.visual_backbones` or `avel.audio_backbones`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from avel.config import ComponentConfig
from avel.errors import MissingPathError, WeightsError
from avel.pipeline.config import PUBLISHED, RANDOM
from avel.pipeline.encoders.weights import PublishedWeights, StateDict, fetch, load_into
from avel.stores.files import sha256_file
from avel.stores.tensors import read_state


@dataclass(frozen=True)
class FrameInput:
    """Frames that a visual backbone reads.

    Attributes:
        frames: frames of a segment that it sees together.
        pixels: height and width of a frame, unless others are asked for.
    """

    frames: int = 1
    pixels: int = 224


@dataclass(frozen=True)
class WaveformInput:
    """Waveform that an audio backbone reads of each segment.

    Attributes:
        sample_rate: its own, to which a store's waveform is resampled.
        seconds: length of its window, around the middle of the segment; None is the segment itself.
    """

    sample_rate: int
    seconds: float | None = None


class Backbone(nn.Module, ABC):
    """A CNN with `width` D features, built from its settings.

    Attributes:
        Config: its settings, a frozen dataclass derived from ComponentConfig; none where it has no settings.
        config: the settings that this one was built from.
        width: D, features of one vector.
        variant: which of the published forms the loaded weights have; `become` sets it.
        pretrained: whether published weights were loaded.
        published: weights that can be downloaded, by name; the first one is the default.
        published_part: name of the submodule that has the published layout; "" for the whole.
        unused: beginnings of published names that it has no place for, such as those of a classifier.
    """

    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    width: int
    variant: str = "default"
    pretrained: bool = False
    published: ClassVar[Mapping[str, PublishedWeights]] = {}
    published_part: ClassVar[str] = ""
    unused: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__()
        self.config = config

    def become(self, variant: str) -> None:
        """Takes the form that weights of `variant` need."""
        self.variant = variant

    def load_published(self, state: StateDict, where: str) -> None:
        """Takes a state dict in the published layout, of which `unused` parts are left out.

        Raises:
            WeightsError: it does not fit.
        """
        load_into(self.get_submodule(self.published_part), state, where, unused=self.unused)

    def load(self, weights: str, option: str) -> None:
        """Loads a file, a published name, or "published", the first one.

        Raises:
            WeightsError: a file that is missing or does not fit, a download that failed, or "published" where
                there are no published weights.
        """
        if weights == PUBLISHED and not self.published:
            raise WeightsError(
                f"{option} is {PUBLISHED}, and {type(self).__name__} has no published weights",
                hint=f"{option} FILE, or {option} {RANDOM} for an untrained CNN",
            )
        if weights == PUBLISHED or weights in self.published:
            name = next(iter(self.published)) if weights == PUBLISHED else weights
            self.load_published(fetch(self.published[name], option), name)
        elif not Path(weights).is_file():
            raise WeightsError(f"{weights}: no such weights file", hint=self._choices())
        else:
            self.load_published(read_state(weights), weights)

    @classmethod
    def pinned(cls, config: ComponentConfig, weights: str) -> ComponentConfig:
        """Returns settings that always mean the same network: on a hub, a commit in place of a branch."""
        return config

    @classmethod
    def weights_name(cls, config: ComponentConfig, weights: str) -> str:
        """Returns what names weights in the provenance: a file's hash, "random", or a published name.

        Raises:
            MissingPathError: no such file.
        """
        if weights == PUBLISHED:
            return next(iter(cls.published), PUBLISHED)  # one name for the same weights
        path = Path(weights)
        if weights == RANDOM or not (path.is_file() or path.suffix or path.parent != Path(".")):
            return weights
        if not path.is_file():
            raise MissingPathError(f"{weights}: no such weights file", hint=cls._choices())
        return sha256_file(path)

    @classmethod
    def _choices(cls) -> str:
        return f"name another one, or choose from {', '.join((*cls.published, RANDOM))}"


class VisualBackbone(Backbone):
    """Base of visual backbones: RGB frames in [0, 1] to vectors. Each normalises its frames itself.

    One that sees N frames of a segment together takes (B, N, 3, H, W) in the place of (B, 3, H, W).
    """

    @classmethod
    def reads(cls, config: ComponentConfig) -> FrameInput:
        """Returns which frames it reads with these settings, without building it."""
        return FrameInput()

    @abstractmethod
    def maps(self, frames: Tensor) -> Tensor:
        """Computes feature maps of frames in [0, 1]: (B, 3, H, W) -> (B, D, H', W')."""

    def forward(self, frames: Tensor) -> Tensor:
        """Computes pooled vectors: (B, 3, H, W) -> (B, D)."""
        return self.maps(frames).mean((2, 3))

    def vectors_and_maps(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Computes what `forward` and `maps` give, in one pass where vectors are means of maps.

        A backbone that pools otherwise says here how to get both in one pass; else it runs twice.
        """
        maps = self.maps(frames)
        is_mean = type(self).forward is VisualBackbone.forward
        return (maps.mean((2, 3)) if is_mean else self.forward(frames)), maps


class AudioBackbone(Backbone):
    """Base of audio backbones: staged log-mel patches, ln(mel + 0.01), or waveform windows to vectors."""

    @classmethod
    def reads(cls, config: ComponentConfig) -> WaveformInput | None:
        """Returns what it reads of the waveform with these settings; None where it reads log-mel patches."""
        return None

    @abstractmethod
    def forward(self, audio: Tensor) -> Tensor:
        """Computes one vector per segment: (B, 96, 64), or windows in [-1, 1] (B, n) -> (B, D)."""


def load_backbone(backbone: Backbone, weights: str, option: str) -> None:
    """Loads `weights` into `backbone`, unless they are "random".

    Raises:
        WeightsError: what `Backbone.load` raises.
    """
    if weights != RANDOM:
        backbone.load(weights, option)
        backbone.pretrained = True


class Normalise(nn.Module):
    """Normalises each channel: (frames - mean) / std. Mean and std are not in the state dict."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Normalises each channel: (B, 3, H, W) -> the same."""
        return (frames - self.mean) / self.std
