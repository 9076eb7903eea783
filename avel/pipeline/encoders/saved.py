"""Encoders in safetensors files whose headers say what the encoder is made of, and their digests."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from avel.config import as_dict
from avel.digests import digest_of
from avel.errors import MissingPathError, StoreError
from avel.pipeline.config import BACKBONES, EncoderConfig
from avel.pipeline.encoders.encoder import BackboneSpec, CNNs, Encoder, EncoderSpec, channels_last
from avel.pipeline.encoders.header import (
    ANOTHER_RUN,
    FORMAT,
    BackboneHeader,
    Pretrained,
    encoder_file,
    is_of_folder,
    read_pretrained,
    read_spec,
    without_place,
)
from avel.pipeline.encoders.hub import ModelConfig
from avel.stores.documents import typed
from avel.stores.named_features import FeatureModality
from avel.stores.runs import read_config
from avel.stores.tensors import load_tensors, save_tensors


def save_encoder(
    encoder: Encoder, path: Path, changed: Mapping[str, Tensor] | None = None, **about: Any
) -> None:
    """Writes weights and spec into one safetensors file, whole or absent; `about` is kept in its header.

    Tensors in `changed` take the place of the encoder's own, which may train on meanwhile.
    """
    save_tensors(
        path,
        encoder.state_dict() | dict(changed or {}),
        format=FORMAT,
        encoder=json.dumps(as_dict(encoder.spec)),
        pretrained=json.dumps(vars(Pretrained(encoder.visual.pretrained, encoder.audio.pretrained))),
        about=json.dumps(about),
    )


def load_encoder(path: Path | str, folders: Mapping[str, Path] | None = None) -> Encoder:
    """Loads the encoder of a file, or a run folder's last one: on the CPU, in eval mode, without gradients.

    Args:
        folders: "visual" and "audio" -> where the folder of a model of another library lies now, if moved.

    Raises:
        MissingPathError: there is none, or no such folder.
        StaleError: another model is in it.
        StoreError: the file is not an encoder of a format this avel reads.
        UnknownNameError: its backbone, or a setting of it, is of a package that is not installed.
    """
    path = encoder_file(Path(path))
    kept, _ = read_spec(path)
    state, header = load_tensors(path, ANOTHER_RUN)
    spec = EncoderSpec(
        _backbone_spec("visual", kept.visual, path),
        _backbone_spec("audio", kept.audio, path),
        typed(EncoderConfig, kept.encoder, f"{path}: encoder", ANOTHER_RUN),
        kept.crop_size,
    )
    visual = _backbone("visual", spec.visual, path, folders or {})
    audio = _backbone("audio", spec.audio, path, folders or {})
    began = read_pretrained(path, header)
    visual.pretrained, audio.pretrained = began.visual, began.audio
    try:
        encoder = Encoder(spec, visual, audio)
        encoder.load_state_dict(state)
    except RuntimeError as error:
        raise StoreError(
            f"{path}: does not fit its header: {' '.join(str(error).split())}", hint=ANOTHER_RUN
        ) from None
    return channels_last(encoder).eval().requires_grad_(False)


def _backbone_spec(modality: FeatureModality, kept: Mapping[str, Any], path: Path) -> BackboneSpec:
    about = typed(BackboneHeader, {key: kept.get(key) for key in ("backbone", "variant")}, path, ANOTHER_RUN)
    settings = kept.get(about.backbone) or {}
    own = BACKBONES[modality][about.backbone].Config
    return BackboneSpec(read_config(own, about.backbone, settings, path), about.variant)


def _backbone(modality: FeatureModality, spec: BackboneSpec, path: Path, folders: Mapping[str, Path]) -> Any:
    """Builds the CNN of a spec. The folder of a model may be another one than the spec says, if moved."""
    config = spec.backbone
    if is_of_folder(as_dict(spec)):
        assert isinstance(config, ModelConfig)
        folder = folders.get(modality, Path(config.model))
        if not folder.is_dir():
            raise MissingPathError(
                f"{folder}: no such folder, in which the {modality} model of {path} was",
                hint=f"--{modality}-weights FOLDER says where it is now",
            )
        config = replace(config, model=str(folder))
    backbone = BACKBONES[modality][config.name](config)
    backbone.become(spec.variant)
    return backbone


def encoder_digest(encoder: Encoder) -> str:
    """Returns the digest of the spec and the whole state dict."""
    return digest_of(as_dict(encoder.spec), _arrays(encoder.state_dict()))


def cnn_digest(cnns: CNNs) -> str:
    """Returns the digest of the CNNs and their form, which decide their vectors of a frame or patch."""
    specs = [BackboneSpec(cnn.config, cnn.variant) for cnn in (cnns.visual, cnns.audio) if cnn is not None]
    state = {
        name: value for name, value in cnns.state_dict().items() if name.startswith(("visual.", "audio."))
    }
    return digest_of([without_place(as_dict(spec)) for spec in specs], _arrays(state))


def _arrays(state: dict[str, Tensor]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yields tensors by name, as they lie in a file; one at a time, since they may be on a GPU."""
    for name, value in sorted(state.items()):
        yield name, value.detach().cpu().contiguous().numpy()
