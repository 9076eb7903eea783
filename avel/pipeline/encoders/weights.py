"""Weights of the CNN backbones: a local file, a download with a checked hash, or random by choice."""

from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote

import torch
from torch import Tensor

from avel.errors import WeightsError
from avel.stores.files import sha256_file
from avel.stores.tensors import read_state

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that their authors published; the file's SHA-256 begins with `hash_prefix`."""

    url: str
    hash_prefix: str

    @property
    def file_name(self) -> str:
        """Returns the last part of the URL."""
        return unquote(self.url.rsplit("/", 1)[-1])

    @property
    def cached_at(self) -> Path:
        """Returns where torch.hub keeps the download; a file put there by hand is used as well."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file_name


def fetch(published: PublishedWeights, option: str) -> StateDict:
    """Returns the published state dict, downloaded once; its hash is checked before anything in it is read.

    Raises:
        WeightsError: the file cannot be downloaded, or has another hash.
    """
    path = published.cached_at
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(published.url, str(path), published.hash_prefix, progress=False)
        digest = sha256_file(path)
    except (URLError, RuntimeError, OSError) as error:
        raise WeightsError(
            f"{published.url} cannot be fetched: {error}",
            hint=f"download it elsewhere (its SHA-256 starts with {published.hash_prefix}), then put it at "
            f"{path} or name it with {option} {published.file_name}; "
            f"or choose untrained weights with {option} random",
        ) from None
    if not digest.startswith(published.hash_prefix):
        raise WeightsError(
            f"{path}: its SHA-256 is {digest}, the published one begins with {published.hash_prefix}",
            hint=f"remove it to download it again, or use it as it is: {option} {path}",
        )
    return read_state(path)


def load_into(module: torch.nn.Module, state: StateDict, where: str, *, unused: tuple[str, ...] = ()) -> None:
    """Loads `state` into `module` strictly, without the names that start with one of `unused`.

    Raises:
        WeightsError: names or shapes that do not fit, with the first few of them.
    """
    state = {name: value for name, value in state.items() if not name.startswith(unused)}
    own = module.state_dict()
    missing = sorted(name for name in own if name not in state and not name.endswith("num_batches_tracked"))
    unknown = sorted(name for name in state if name not in own)
    misshapen = sorted(
        f"{name} {tuple(value.shape)} for {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and own[name].shape != value.shape
    )
    problems = {"missing": missing, "unknown": unknown, "of another shape": misshapen}
    if any(problems.values()):
        listed = "; ".join(
            f"{len(names)} {problem} ({', '.join(names[:3])})" for problem, names in problems.items() if names
        )
        raise WeightsError(
            f"{where}: does not fit {type(module).__name__}: {listed}",
            hint="name weights of this very network, in the layout that its class describes",
        )
    module.load_state_dict(state, strict=False)
