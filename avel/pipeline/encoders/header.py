"""Names of encoder files, and the check of their headers; imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.errors import MissingPathError, StoreError
from avel.stores.documents import parse, typed
from avel.stores.kinds import kind_of, not_a
from avel.stores.runs import Run
from avel.stores.tensors import load_tensors, read_header

FORMAT = "4"
LAST, BEST = "encoder.safetensors", "encoder-best.safetensors"
"""Files of a run that hold an encoder: after the last epoch, and after the one with the best score."""
ANOTHER_RUN = "name a run of this version's avel pretrain"
OF_FOLDER = "folder-"
"""Begins the revision of a model in a folder, and the name of its weights; a digest of its files follows."""


@dataclass(frozen=True)
class SpecHeader:
    """Architecture of an encoder in a header, as plain values; a backbone's settings are under its name."""

    visual: dict[str, Any]
    audio: dict[str, Any]
    encoder: dict[str, Any]
    crop_size: int


@dataclass(frozen=True)
class BackboneHeader:
    """Name of a backbone, and which of its published forms it has."""

    backbone: str
    variant: str


@dataclass(frozen=True)
class Pretrained:
    """True for each backbone that began with published weights."""

    visual: bool
    audio: bool


def is_of_folder(backbone: Mapping[str, Any]) -> bool:
    """Returns whether a backbone, in plain values, wraps a model in a folder."""
    settings = backbone.get(str(backbone.get("backbone")))
    return isinstance(settings, dict) and str(settings.get("revision")).startswith(OF_FOLDER)


def without_place(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a backbone's plain values without the folder of its model, which may be moved.

    >>> without_place({"backbone": "hf", "hf": {"model": "models/clip", "revision": "folder-12ab"}})
    {'backbone': 'hf', 'hf': {'model': '', 'revision': 'folder-12ab'}}
    """
    if not is_of_folder(backbone):
        return dict(backbone)
    name = backbone["backbone"]
    return {**backbone, name: {**backbone[name], "model": ""}}


def encoder_file(path: Path) -> Path:
    """Returns the file of an encoder: of a run folder, the one after the last epoch; else the path itself.

    Raises:
        MissingPathError: there is none.
        StoreError: it is something else, such as a feature cache, or a run of avel train-head.
    """
    file = path / LAST if path.is_dir() else path
    kind = kind_of(path)
    if file.is_file() and (path.is_dir() or kind == "file"):
        return file
    if kind in ("store", "runs") or path.is_file():
        raise not_a("run of avel pretrain", path, ANOTHER_RUN)
    if kind == "run":
        Run.open(path, "pretrain")
        raise MissingPathError(f"{file}: no encoder yet", hint="the same avel pretrain command goes on")
    raise MissingPathError(f"{file}: no encoder", hint="avel pretrain STORE RUN trains one")


def read_spec(path: Path) -> tuple[SpecHeader, dict[str, Any]]:
    """Returns what an encoder file's header says, typed and as the plain values that its digest is over.

    Raises:
        StoreError: it is not the header of an encoder of this format.
    """
    header = read_header(path, ANOTHER_RUN)
    if header.get("format") != FORMAT or "encoder" not in header:
        raise StoreError(
            f"{path}: no encoder of format {FORMAT} (its header has {sorted(header)})",
            hint=ANOTHER_RUN,
        )
    where = f"{path}: encoder"
    plain = parse(header["encoder"].encode(), where, ANOTHER_RUN)
    return typed(SpecHeader, plain, where, ANOTHER_RUN), plain


def read_temporal(path: Path) -> dict[str, NDArray[np.float32]]:
    """Reads an encoder's weights after its CNNs, those of an `avel.temporal.Temporal`, by name.

    There are none for an encoder with AGVA, which reads maps and not vectors.
    """
    file = encoder_file(path)
    if read_spec(file)[0].encoder["agva"]:
        return {}
    tensors = load_tensors(file, ANOTHER_RUN)[0]
    names = [name for name in tensors if name.startswith("temporal.")]
    return {name.removeprefix("temporal."): tensors[name].numpy() for name in names}


def read_pretrained(path: Path, header: Mapping[str, str]) -> Pretrained:
    """Returns which backbones of an encoder file began with published weights.

    Raises:
        StoreError: the header does not say so.
    """
    where = f"{path}: pretrained"
    return typed(
        Pretrained, parse(header.get("pretrained", "").encode(), where, ANOTHER_RUN), where, ANOTHER_RUN
    )
