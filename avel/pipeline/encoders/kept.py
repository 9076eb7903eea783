"""Encoders in safetensors files whose headers say what the encoder is made of, and their digests."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from avel.config import as_dict, resolve
from avel.digests import digest_of
from avel.errors import MissingPathError, StoreError
from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES, EncoderConfig
from avel.pipeline.encoders.encoder import BackboneSpec, Encoder, EncoderSpec
from avel.pipeline.encoders.header import FORMAT, LAST, check_header
from avel.registry import Registry
from avel.stores.files import atomic_path


def save_encoder(
    encoder: Encoder, path: Path, changed: Mapping[str, Tensor] | None = None, **about: Any
) -> None:
    """Writes weights and spec into one safetensors file, whole or absent; `about` is kept in its header.

    Tensors in `changed` take the place of the encoder's own, which may train on meanwhile.
    """
    state = encoder.state_dict() | dict(changed or {})
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    header = {
        "format": FORMAT,
        "encoder": json.dumps(as_dict(encoder.spec)),
        "pretrained": json.dumps([encoder.visual.pretrained, encoder.audio.pretrained]),
        "about": json.dumps(about),
    }
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata=header)


def load_encoder(path: Path | str, which: str = LAST) -> Encoder:
    """Loads the encoder of a run folder or of a file: on the CPU, in eval mode, without gradients.

    Raises:
        MissingPathError: there is none.
        StoreError: the file is no encoder of a format this avel reads.
        UnknownNameError: its backbone, or a setting of it, is of a package that is not installed.
    """
    path = Path(path)
    path = path / which if path.is_dir() else path
    if not path.is_file():
        raise MissingPathError(f"{path}: no encoder", hint="avel pretrain STORE RUN trains one")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        state = load_file(path)
    except SafetensorError as error:
        raise StoreError(f"{path}: damaged: {error}") from None
    check_header(path, header)
    spec = _spec(json.loads(header["encoder"]))
    visual = VISUAL_BACKBONES[spec.visual.backbone.name](spec.visual.backbone)
    audio = AUDIO_BACKBONES[spec.audio.backbone.name](spec.audio.backbone)
    visual.become(spec.visual.variant)
    audio.become(spec.audio.variant)
    visual.pretrained, audio.pretrained = json.loads(header.get("pretrained", "[true, true]"))
    encoder = Encoder(spec, visual, audio)
    encoder.load_state_dict(state)
    return encoder.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def _spec(kept: Mapping[str, Any]) -> EncoderSpec:
    """Returns the spec that `as_dict` made plain values of."""
    return EncoderSpec(
        _backbone_spec(VISUAL_BACKBONES, kept["visual"]),
        _backbone_spec(AUDIO_BACKBONES, kept["audio"]),
        EncoderConfig(**kept["encoder"]),
        kept["crop_size"],
    )


def _backbone_spec(registry: Registry[Any], kept: Mapping[str, Any]) -> BackboneSpec:
    name = kept["backbone"]
    return BackboneSpec(resolve(registry[name].Config, name, options=kept[name]), kept["variant"])


def encoder_digest(encoder: Encoder) -> str:
    """Returns the digest of the spec and the whole state dict."""
    return digest_of(as_dict(encoder.spec), _arrays(encoder.state_dict()))


def cnn_digest(encoder: Encoder) -> str:
    """Returns the digest of the CNNs and their form, which decide their vectors of a frame or patch."""
    parts = [as_dict(encoder.spec.visual), as_dict(encoder.spec.audio)]
    state = {
        name: value for name, value in encoder.state_dict().items() if name.startswith(("visual.", "audio."))
    }
    return digest_of(parts, _arrays(state))


def _arrays(state: dict[str, Tensor]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yields tensors by name, as they lie in a file; one at a time, since they may be on a GPU."""
    for name, value in sorted(state.items()):
        yield name, value.detach().cpu().contiguous().numpy()
