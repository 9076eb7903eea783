"""Tensors in sealed safetensors files: weights, checkpoints, vectors; nothing in them is ever run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from avel.errors import MissingPathError, StoreError
from avel.stores.documents import SEAL
from avel.stores.files import atomic_path
from avel.stores.seal import OPEN, fault_of_file, seal_file

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor], **header: str) -> None:
    """Writes tensors, moved to the CPU, and a header of texts into one file, whole or absent."""
    from safetensors.torch import save_file

    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as partial:
        save_file(whole, partial, metadata={SEAL: OPEN} | header)
        seal_file(partial)


def load_tensors(path: Path, hint: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns tensors on the CPU, and the header.

    Raises:
        MissingPathError: there is no such file.
        StoreError: no safetensors file, or bytes of it have changed.
    """
    from safetensors.torch import load_file

    header = read_header(path, hint)
    if broken := fault_of_file(path):
        raise StoreError(f"{path}: {broken}", hint=hint)
    return load_file(path), header


def read_header(path: Path, hint: str) -> dict[str, str]:
    """Returns the texts of a file's header; the tensors are not read.

    Raises:
        MissingPathError: there is no such file.
        StoreError: no safetensors file, or a cut one.
    """
    if not path.is_file():
        raise MissingPathError(f"{path}: no such file", hint=hint)
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise StoreError(f"{path}: damaged, not a whole safetensors file: {error}", hint=hint) from None
