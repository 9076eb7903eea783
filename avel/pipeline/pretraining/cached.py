"""Takes the vectors of a feature cache to train AV-BT on, in the place of clips and CNNs."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avel.errors import ConfigError, TrainingError
from avel.pipeline.config import BACKBONES, RANDOM, AudioBackboneConfig, PretrainConfig, VisualBackboneConfig
from avel.pipeline.encoders.vectors import CACHED, VectorsConfig, first_not_finite, read_vectors, width_of
from avel.progress import note
from avel.stores.features import FeatureCache


def vector_config(
    cache: FeatureCache, config: PretrainConfig, audio: str | None, visual: str | None
) -> PretrainConfig:
    """Returns the config with the cache's vectors in the place of frozen CNNs.

    Args:
        audio: names of audio features, joined by "+"; cnn_a, or else f_a, where none are given.
        visual: the same of visual features.

    Raises:
        ConfigError: AGVA or probes, which need maps and a clip store.
        StoreError: no such features of that modality, or they are maps.
    """
    if config.encoder.agva:
        raise ConfigError("--agva with vectors of a cache, which have no cells", hint="leave out --agva")
    if config.probe_every:
        raise ConfigError("--probe-every without a clip store", hint="train a head on the encoder's features")
    if idle := config.changed(config.of_clips):
        note(f"without effect, since vectors of a cache are read: {idle}")
    asked, backbones = {"audio": audio, "visual": visual}, {}
    for modality, registry in BACKBONES.items():
        letter = modality[0]
        names = asked[modality] or (f"cnn_{letter}" if f"cnn_{letter}" in cache.shapes else f"f_{letter}")
        width = width_of(cache, modality, names)
        backbones[modality] = registry[CACHED].Config(features=names, dimensions=width)
    defaults = {name: getattr(PretrainConfig(), name) for name in config.of_clips}
    vectors = {
        "freeze_backbone": True,
        "visual": VisualBackboneConfig(backbones["visual"], RANDOM),
        "audio": AudioBackboneConfig(backbones["audio"], RANDOM),
    }
    return replace(config, **defaults | vectors)


def features_read(config: PretrainConfig) -> tuple[VectorsConfig, VectorsConfig]:
    """Returns the audio and the visual features that training with a config of `vector_config` reads."""
    audio, visual = config.audio.backbone, config.visual.backbone
    assert isinstance(audio, VectorsConfig)
    assert isinstance(visual, VectorsConfig)
    return audio, visual


def read_float16(cache: FeatureCache, config: VectorsConfig, videos: NDArray[np.int64]) -> Tensor:
    """Reads the vectors of videos as training holds them: float16 (n, T, D).

    Raises:
        StoreError: what `read_vectors` raises.
        TrainingError: one is too large for float16.
    """
    vectors = read_vectors(cache, config, videos)
    halves = vectors.half()
    if (broken := first_not_finite(halves)) is not None:
        raise TrainingError(
            f"{cache.path}: {config.features} of video {cache.video_ids[int(videos[broken])]!r} goes up to "
            f"{vectors[broken].abs().max():g}, and training holds vectors in float16, which ends at "
            f"{torch.finfo(torch.float16).max:g}",
            hint="divide the features by a number before avel import-features",
        )
    return halves
