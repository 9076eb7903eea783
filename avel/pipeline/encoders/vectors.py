"""Takes the place of a CNN in an encoder that reads the vectors of a feature cache."""

import shlex
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avel.config import ComponentConfig, option
from avel.errors import ConfigError, StoreError
from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES
from avel.pipeline.encoders.backbones import AudioBackbone, Backbone, VisualBackbone
from avel.stores.features import FeatureCache
from avel.stores.provenance import CACHE_AGAIN

CACHED = "vectors"
"""Name of the backbones that stand for features of a cache."""


@dataclass(frozen=True)
class VectorsConfig(ComponentConfig):
    """Settings of an encoder's inputs; `avel pretrain` sets them from its cache."""

    features: str = option("", "Names of features in a cache, joined by +.")
    dimensions: int = option(1, "Width of these features together.", low=1)

    @property
    def names(self) -> list[str]:
        """Returns the names of the features as a list."""
        return self.features.split("+")


class Vectors(Backbone):
    """A backbone without weights, for vectors that a feature cache holds already."""

    config: VectorsConfig

    def __init__(self, config: VectorsConfig) -> None:
        super().__init__(config)
        self.width = config.dimensions

    def refuse(self) -> NoReturn:
        """Raises a ConfigError, since it reads neither frames nor audio."""
        raise ConfigError(
            f"this encoder reads vectors of a feature cache ({self.config.features}), not frames or audio",
            hint="avel cache-features CACHE NEW_CACHE --encoder RUN encodes them",
        )


@VISUAL_BACKBONES.register(CACHED)
class VisualVectors(Vectors, VisualBackbone):
    """Vectors of any visual encoder."""

    Config = VectorsConfig

    def maps(self, frames: Tensor) -> Tensor:
        """Refuses frames."""
        self.refuse()


@AUDIO_BACKBONES.register(CACHED)
class AudioVectors(Vectors, AudioBackbone):
    """Vectors of any audio encoder."""

    Config = VectorsConfig

    def forward(self, log_mel: Tensor) -> Tensor:
        """Refuses patches."""
        self.refuse()


def width_of(cache: FeatureCache, modality: str, names: str) -> int:
    """Returns the width of features joined by "+".

    Raises:
        StoreError: no such features of that modality, or maps.
    """
    names_held = [
        name
        for name, shape in cache.shapes.items()
        if len(shape) == 3 and cache.modality_of(name) == modality
    ]
    chosen = names.split("+")
    for name in chosen:
        if name not in names_held:
            raise StoreError(
                f"{cache.path}: no {modality} vectors named {name!r}",
                hint=f"--{modality}-features takes {', '.join(names_held)}, or several joined by +",
            )
    return sum(cache.shapes[name][-1] for name in chosen)


def read_vectors(cache: FeatureCache, config: VectorsConfig, videos: NDArray[np.int64]) -> Tensor:
    """Reads the features that a config names, side by side, of the videos at n places: float32 (n, T, D).

    Raises:
        StoreError: the cache lacks them, they have another width, or one holds a number that is not finite.
    """
    for name in config.names:
        if len(cache.shapes.get(name, ())) not in (0, 3):
            raise StoreError(
                f"{cache.path}: {name!r} holds maps, not vectors",
                hint=f"avel inspect {shlex.quote(str(cache.path))} lists its features",
            )
    vectors = torch.cat([torch.from_numpy(cache.read(name, videos)) for name in config.names], -1)
    if vectors.shape[-1] != config.dimensions:
        raise StoreError(
            f"{cache.path}: {config.features} is {vectors.shape[-1]} wide, "
            f"the encoder reads {config.dimensions}",
            hint="give a cache with features of the same encoders",
        )
    if (broken := first_not_finite(vectors)) is not None:
        video_id = cache.video_ids[int(videos[broken])]
        raise StoreError(
            f"{cache.path}: {config.features} of video {video_id!r} is not finite", hint=CACHE_AGAIN
        )
    return vectors


def first_not_finite(vectors: Tensor) -> int | None:
    """Returns the place of the first video with a number that is not finite, None without any: (n, ...)."""
    broken = torch.nonzero(~vectors.isfinite().flatten(1).all(1))
    return int(broken[0]) if len(broken) else None
