"""A config -> the encoder it asks for."""

import dataclasses
from pathlib import Path

import torch

from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES, PretrainConfig
from avel.pipeline.encoders.backbones import load_backbone
from avel.pipeline.encoders.encoder import BackboneSpec, Encoder, EncoderSpec, channels_last
from avel.pipeline.encoders.hub import ModelConfig
from avel.pipeline.encoders.kept import load_encoder


def build_encoder(config: PretrainConfig) -> Encoder:
    """Builds the encoder of a config on the CPU: CNNs with their weights, the rest drawn from `seed`.

    With `start_from` it is that of another run, with everything it was trained with.

    Raises:
        UnknownNameError: no such backbone.
        WeightsError: weights that are missing, do not fit, or cannot be fetched.
        AvelError: what `load_encoder` raises.
    """
    if config.start_from:
        backbones = {"visual": config.visual.backbone, "audio": config.audio.backbone}
        folders = {
            kind: Path(backbone.model)
            for kind, backbone in backbones.items()
            if isinstance(backbone, ModelConfig) and Path(backbone.model).is_dir()
        }
        encoder = load_encoder(config.start_from, folders=folders).requires_grad_(True)
        placed = {
            kind: dataclasses.replace(getattr(encoder.spec, kind), backbone=backbones[kind])
            for kind in folders
        }
        encoder.spec = dataclasses.replace(encoder.spec, crop_size=config.augmentation.crop_size, **placed)
    else:
        encoder = _new_encoder(config)
    for name in encoder.batch_statistics:
        frozen = config.backbone_batchnorm == "frozen" or (
            config.backbone_batchnorm == "auto" and getattr(encoder, name).pretrained
        )
        encoder.batch_statistics[name] = not frozen
    return channels_last(encoder)


def _new_encoder(config: PretrainConfig) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        visual = VISUAL_BACKBONES[config.visual.backbone.name](config.visual.backbone)
        audio = AUDIO_BACKBONES[config.audio.backbone.name](config.audio.backbone)
        load_backbone(visual, config.visual.weights, "--visual-weights")
        load_backbone(audio, config.audio.weights, "--audio-weights")
        spec = EncoderSpec(
            BackboneSpec(visual.config, visual.variant),
            BackboneSpec(audio.config, audio.variant),
            config.encoder,
            config.augmentation.crop_size,
        )
        return Encoder(spec, visual, audio)
