"""Starts a model from weights in a file: of a published network, or of avel's own."""

from pathlib import Path

from torch import Tensor, nn

from avel.errors import ConfigError, WeightsError
from avel.heads.models.head import Model
from avel.stores.documents import SEAL
from avel.stores.tensors import load_tensors, read_header, read_state


def start_from(model: Model, path: Path | str) -> str:
    """Takes the weights of a file into a model, and returns whose they are: avel's, or a published code's.

    The layout is found by the names: those of a trial of avel, of a head alone, or of the head's published
    network. Nothing in the file is run.

    Raises:
        WeightsError: no such file, or a folder; no tensors in it, or objects that would have to be run.
        MissingPathError, StoreError: a safetensors file is missing or damaged.
        ConfigError: the tensors are not those of the head.
    """
    path = Path(path)
    try:
        state = _read(path)
        if any(name.startswith("head.") for name in state):
            return _load_own(model, state)
        layout = model.head.layout()
        if layout is None or set(state) == set(model.head.state_dict()):
            return _load_own(model.head, state)
        model.head.load_published(state)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None
    return layout.code


def _read(path: Path) -> dict[str, Tensor]:
    """Reads any file of tensors; one of avel's own is compared with its checksum."""
    again = "name a state dict: .pt, .pth or .safetensors"
    if path.is_dir():
        raise WeightsError(
            f"{path}: is a folder", hint=f"{again}; those of a run are its trials/*.safetensors"
        )
    if path.suffix == ".safetensors" and SEAL in read_header(path, again):
        return load_tensors(path, again)[0]
    return read_state(path)


def _load_own(module: nn.Module, state: dict[str, Tensor]) -> str:
    """Takes weights by avel's own names.

    Raises:
        ConfigError: names or shapes are others.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        what = " ".join(str(error).split())
        raise ConfigError(
            f"not the weights of this head: {what}",
            hint="the head must be the same network: the same supervision, settings, inputs and classes",
        ) from None
    return "avel's own"
