"""Reads and writes tensors in sealed safetensors files; reads weights of any source without running code."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from safetensors import SafetensorError, safe_open

from avel.errors import MissingPathError, StoreError, WeightsError
from avel.stores.documents import SEAL, parse
from avel.stores.files import atomic_path
from avel.stores.seal import UNSEALED, file_seal_fault, seal_file

if TYPE_CHECKING:
    from torch import Tensor

SAVE_STATE = "save it where its code is: torch.save(network.state_dict(), FILE)"
OF_NUMPY = (
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("randomstate", "bit_generator", "generator")),
    "numpy.random._mt19937.MT19937",
    "numpy.random._pcg64.PCG64",
    "numpy.random.bit_generator.SeedSequence",
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
)
"""Names under which pickles hold numpy's arrays, numbers and random states, of any version of numpy."""


class LeftOut:
    """Takes the place of a numpy object beside the tensors of a checkpoint; keeps nothing of it."""

    def __new__(cls, *content: Any) -> Self:
        """Takes what the object would be made of, and keeps none of it."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Keeps nothing of the state."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], **header: str) -> None:
    """Writes tensors, moved to the CPU, and a header of texts into one file, whole or absent.

    The same tensors and texts give the same bytes.
    """
    from safetensors.torch import save

    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    data = save(whole, metadata={SEAL: UNSEALED} | header)
    with atomic_path(path) as partial:
        # save_file would write into a temporary file of its own, which a kill leaves behind
        with partial.open("wb") as file:
            start = _sorted_header(data)
            file.write(start)
            file.write(memoryview(data)[len(start) :])
        seal_file(partial)


def _sorted_header(data: bytes) -> bytes:
    """Returns a file's header with sorted texts, as safetensors writes them in another order each time."""
    (size,) = struct.unpack_from("<Q", data)
    header = parse(data[8 : 8 + size], "the header", "")
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)
    return data[:8] + (text if len(text) == size else data[8 : 8 + size])  # too long: leave it unsorted


def load_tensors(path: Path, hint: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns tensors on the CPU, and the header.

    Raises:
        MissingPathError: there is no such file.
        StoreError: not a safetensors file, or bytes of it have changed.
    """
    from safetensors.torch import load_file

    header = read_header(path, hint)
    if broken := file_seal_fault(path):
        raise StoreError(f"{path}: {broken}", hint=hint)
    return load_file(path), header


def read_header(path: Path, hint: str) -> dict[str, str]:
    """Returns the texts of a file's header; the tensors are not read.

    Raises:
        MissingPathError: there is no such file.
        StoreError: not a safetensors file, or one that is cut short.
    """
    if not path.is_file():
        raise MissingPathError(f"{path}: no such file", hint=hint)
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise StoreError(f"{path}: damaged, not a whole safetensors file: {error}", hint=hint) from None


def read_state(path: Path | str) -> dict[str, Tensor]:
    """Reads the state dict in a `.safetensors`, `.pth` or `.pt` file of any source.

    No code in a file is run: `.safetensors` is read as such, others with `weights_only=True`. What numpy has
    in a checkpoint beside the tensors, such as the state of PANNs' sampler, is skipped.

    Raises:
        WeightsError: no such file, or not a file of named tensors.
    """
    import torch
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file", hint="check the path")
    try:
        if path.suffix == ".safetensors":
            checkpoint: object = load_file(path)
        else:
            with torch.serialization.safe_globals([(LeftOut, name) for name in OF_NUMPY]):
                checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise WeightsError(f"{path}: not readable as weights: {error}", hint="fetch it again") from None
    except Exception:  # not shown: torch's message advises to run the code in the file
        raise WeightsError(f"{path}: refused, not a file of tensors alone", hint=SAVE_STATE) from None
    if not (state := state_in(checkpoint)):
        raise WeightsError(f"{path}: holds no state dict (name -> tensor)", hint=SAVE_STATE)
    return state


def state_in(checkpoint: object) -> dict[str, Tensor]:
    """Returns the state dict that a checkpoint is or holds, without the "module." of torch's DataParallel.

    It is empty where the checkpoint holds none.
    """
    import torch

    for key in ("state_dict", "model"):
        if isinstance(checkpoint, Mapping) and isinstance(inner := checkpoint.get(key), Mapping):
            checkpoint = inner
    tensors = checkpoint if isinstance(checkpoint, Mapping) else {}
    if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in tensors.items()):
        return {}
    return {name.removeprefix("module."): value for name, value in tensors.items()}
