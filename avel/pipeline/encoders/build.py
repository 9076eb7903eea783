"""Builds the encoder, or the one CNN, that a config asks for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from avel.config import as_dict
from avel.pipeline.config import BACKBONES, PUBLISHED, BackboneConfig, CacheConfig, PretrainConfig
from avel.pipeline.encoders.backbones import load_backbone
from avel.pipeline.encoders.encoder import BackboneSpec, CNNs, Encoder, EncoderSpec, channels_last
from avel.pipeline.encoders.header import is_of_folder
from avel.pipeline.encoders.hub import ModelConfig
from avel.pipeline.encoders.saved import load_encoder
from avel.stores.named_features import FeatureModality


def build_encoder(config: PretrainConfig) -> Encoder:
    """Builds the encoder of a config on the CPU: CNNs with their weights, the rest drawn from `seed`.

    With `start_from` it is the encoder of another run, with its CNNs, weights and standardisation.

    Raises:
        UnknownNameError: no such backbone.
        WeightsError: weights that are missing, do not fit, or cannot be fetched.
        AvelError: what `load_encoder` raises.
    """
    if config.start_from:
        encoder = load_encoder(config.start_from, folders=model_folders(config)).requires_grad_(True)
        moved = {  # the spec names a model's folder where it lies now
            name: replace(spec, backbone=replace(spec.backbone, model=getattr(config, name).backbone.model))
            for name in BACKBONES
            if is_of_folder(as_dict(spec := getattr(encoder.spec, name)))
        }
        encoder.spec = replace(encoder.spec, crop_size=config.augmentation.crop_size, **moved)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            visual, audio = _cnn(config, "visual"), _cnn(config, "audio")
            spec = EncoderSpec(
                BackboneSpec(visual.config, visual.variant),
                BackboneSpec(audio.config, audio.variant),
                config.encoder,
                config.augmentation.crop_size,
            )
            encoder = Encoder(spec, visual, audio)
    for name in encoder.batch_statistics:
        frozen = config.backbone_batchnorm == "frozen" or (
            config.backbone_batchnorm == "auto" and getattr(encoder, name).pretrained
        )
        encoder.batch_statistics[name] = not frozen
    return channels_last(encoder)


def model_folders(config: CacheConfig | PretrainConfig) -> dict[str, Path]:
    """Returns modality -> folder of a model of another library, as a config names it, for `load_encoder`.

    The backbone's `model` names it, or `weights` if a given encoder decides the backbone. Either may be no
    folder, which does no harm: `load_encoder` looks only for models that were in one.
    """
    folders: dict[str, Path] = {}
    for modality in BACKBONES:
        chosen: BackboneConfig = getattr(config, modality)
        if isinstance(chosen.backbone, ModelConfig):
            folders[modality] = Path(chosen.backbone.model)
        elif chosen.weights != PUBLISHED:
            folders[modality] = Path(chosen.weights)
    return folders


def build_cnn(config: PretrainConfig, modality: FeatureModality) -> CNNs:
    """Builds one CNN of a config alone, on the CPU; where its weights are random, they are drawn from `seed`.

    Raises:
        UnknownNameError, WeightsError: what `build_encoder` raises.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return channels_last(CNNs(**{modality: _cnn(config, modality)}))


def _cnn(config: PretrainConfig, modality: FeatureModality) -> Any:
    chosen = config.visual if modality == "visual" else config.audio
    kind = BACKBONES[modality][chosen.backbone.name]
    cnn = kind(kind.pinned(chosen.backbone, chosen.weights))
    load_backbone(cnn, chosen.weights, f"--{modality}-weights")
    return cnn
