"""Encoders in safetensors files whose headers say what the encoder is made of, and their digests."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from avel.errors import MissingPathError, StoreError
from avel.pipeline.encoders.backbones import AUDIO_BACKBONES, VISUAL_BACKBONES
from avel.pipeline.encoders.encoder import Encoder, EncoderSpec
from avel.stores.files import atomic_path

FORMAT = 1
LAST, BEST = "encoder.safetensors", "encoder-best.safetensors"
"""Files of a run that hold an encoder: after the last epoch, and after the one with the best score."""


def save_encoder(encoder: Encoder, path: Path, **about: Any) -> None:
    """Weights and spec into one safetensors file, whole or absent; `about` is kept in its header."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    header = {
        "format": str(FORMAT),
        "encoder": json.dumps(dataclasses.asdict(encoder.spec)),
        "pretrained": json.dumps([encoder.visual.pretrained, encoder.audio.pretrained]),
        "about": json.dumps(about),
    }
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata=header)


def load_encoder(path: Path | str, which: str = LAST) -> Encoder:
    """The encoder of a run folder or of an encoder file, on the CPU, in eval mode, without gradients.

    Raises:
        MissingPathError: there is none.
        StoreError: the file is no encoder of a format this avel reads.
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
    if header.get("format") != str(FORMAT) or "encoder" not in header:
        raise StoreError(f"{path}: no encoder of format {FORMAT} (its header has {sorted(header)})")
    spec = EncoderSpec(**json.loads(header["encoder"]))
    visual, audio = VISUAL_BACKBONES[spec.visual_backbone](), AUDIO_BACKBONES[spec.audio_backbone]()
    visual.become(spec.visual_variant)
    audio.become(spec.audio_variant)
    visual.pretrained, audio.pretrained = json.loads(header.get("pretrained", "[true, true]"))
    encoder = Encoder(spec, visual, audio)
    encoder.load_state_dict(state)
    return encoder.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def encoder_digest(encoder: Encoder) -> str:
    """16 hex digits over the spec and the whole state dict."""
    return _digest(encoder.state_dict(), json.dumps(dataclasses.asdict(encoder.spec), sort_keys=True))


def cnn_digest(encoder: Encoder) -> str:
    """16 hex digits over the CNNs and their form: what decides their vectors of a given picture or patch."""
    spec = encoder.spec
    parts = [spec.visual_backbone, spec.audio_backbone, spec.visual_variant, spec.audio_variant]
    state = {
        name: value for name, value in encoder.state_dict().items() if name.startswith(("visual.", "audio."))
    }
    return _digest(state, json.dumps(parts))


def _digest(state: dict[str, Tensor], about: str) -> str:
    digest = hashlib.sha256(about.encode())
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
