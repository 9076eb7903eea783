"""Backbones that wrap a model of another library: from a local folder, or a pinned revision on the hub."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from avel.config import ComponentConfig, option
from avel.digests import digest_of
from avel.errors import ConfigError, StaleError, WeightsError, import_extra
from avel.pipeline.config import PUBLISHED, RANDOM
from avel.pipeline.encoders.backbones import Backbone
from avel.pipeline.encoders.header import OF_FOLDER
from avel.stores.files import sha256_file
from avel.text import first_line

SETTINGS_FILE = "config.json"
PREPROCESSING_FILE = "preprocessor_config.json"
WEIGHTS_FILES = ("*.safetensors", "pytorch_model*.bin")
"""Files of weights, the preferred ones first."""


@dataclass(frozen=True)
class ModelConfig(ComponentConfig):
    """Settings of a backbone that wraps a model of another library."""

    model: str = option("", "Its name on the hub, or a folder with its files: NAME in timm:NAME and hf:NAME.")
    revision: str = option("", "Commit, tag or branch of its repository on the hub.", shown="the newest")


class HubBackbone(Backbone):
    """A model of another library.

    Its `revision` is set to what cannot change: a commit, or for a folder a digest of the settings in it.
    """

    settings_on_hub: ClassVar[bool] = True
    """True if the hub holds its models' settings as well as their weights."""

    def __init__(self, config: ModelConfig) -> None:
        """Raises StaleError where the folder holds other settings than those of the `revision`."""
        super().__init__(config)
        folder = self.local_folder(config.model)
        if folder is not None and config.revision not in ("", found := folder_name(folder, weights=False)):
            raise StaleError(
                f"{folder}: {SETTINGS_FILE}, {PREPROCESSING_FILE} have digest {found}, not {config.revision}",
                hint="name the folder that has the model's own files",
            )

    @classmethod
    @abstractmethod
    def repository(cls, model: str) -> str:
        """Returns the repository on the hub that holds a model."""

    @abstractmethod
    def load_folder(self, folder: Path) -> None:
        """Takes the weights in a folder, as the library itself loads them."""

    @classmethod
    def local_folder(cls, model: str) -> Path | None:
        """Returns the folder if `model` is the path of one; None for a name on the hub.

        Raises:
            ConfigError: no model was named.
        """
        if not model:
            raise ConfigError(
                f"{cls.Config.name} wraps any model, and none is named", hint=f"{cls.Config.name}:NAME"
            )
        return Path(model) if Path(model).is_dir() else None

    @classmethod
    def folder(cls, config: ComponentConfig, *, weights: bool = True) -> Path:
        """Returns the folder with a model's files, without its weights unless `weights`; may download them.

        Raises:
            ConfigError: no model was named.
            WeightsError: they are not here, and cannot be downloaded.
        """
        assert isinstance(config, ModelConfig)
        if (given := cls.local_folder(config.model)) is not None:
            return given
        return snapshot(cls.repository(config.model), config.revision or None, cls.Config.name, weights)

    @classmethod
    def pinned(cls, config: ComponentConfig, weights: str) -> ComponentConfig:
        """Returns the settings with a commit as the revision; for a folder, a digest of the settings in it.

        Raises:
            WeightsError: the revision is not here, and cannot be downloaded.
        """
        assert isinstance(config, ModelConfig)
        if (folder := cls.local_folder(config.model)) is not None:
            return replace(config, revision=config.revision or folder_name(folder, weights=False))
        if weights != PUBLISHED and not cls.settings_on_hub:
            return config
        # a snapshot's folder has the name of its commit
        return replace(config, revision=cls.folder(config, weights=weights == PUBLISHED).name)

    @classmethod
    def weights_name(cls, config: ComponentConfig, weights: str) -> str:
        """Returns what names weights: a digest of a folder's files or of a file, "published" or "random"."""
        assert isinstance(config, ModelConfig)
        folder = cls.local_folder(config.model)
        if folder is None or weights != PUBLISHED:
            return super().weights_name(config, weights)
        return folder_name(folder)

    def load(self, weights: str, option: str) -> None:
        """Loads a file; for "published", or a name that `folder_name` made, the model's own weights."""
        if weights != PUBLISHED and not weights.startswith(OF_FOLDER):
            super().load(weights, option)
            return
        folder = self.folder(self.config)
        if not _weights_in(folder):
            raise WeightsError(
                f"{folder}: no weights, neither {' nor '.join(WEIGHTS_FILES)}",
                hint=f"put them there; or {option} {RANDOM} for an untrained network",
            )
        self.load_folder(folder)


def folder_name(folder: Path, *, weights: bool = True) -> str:
    """Returns what names the model in a folder, wherever it lies: a digest of its settings and weights."""
    patterns = (SETTINGS_FILE, PREPROCESSING_FILE, *(WEIGHTS_FILES if weights else ()))
    files = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return OF_FOLDER + digest_of([sha256_file(path) for path in files])


def _weights_in(folder: Path) -> bool:
    return any(path for pattern in WEIGHTS_FILES for path in folder.glob(pattern))


def snapshot(repository: str, revision: str | None, library: str, weights: bool) -> Path:
    """Returns the folder of one revision of a repository, with its `weights` or without; may download it.

    Raises:
        WeightsError: it is not here, and cannot be downloaded.
    """
    download = import_extra("huggingface_hub", library).snapshot_download
    try:
        kept = Path(download(repository, revision=revision, local_files_only=True))
        if (kept / SETTINGS_FILE).is_file() and (_weights_in(kept) or not weights):
            return kept
    except (OSError, ValueError):
        pass  # nothing of it is here
    try:
        folder = Path(download(repository, revision=revision, allow_patterns=["*.json", WEIGHTS_FILES[0]]))
        if weights and not _weights_in(folder):
            folder = Path(download(repository, revision=revision, allow_patterns=[WEIGHTS_FILES[1]]))
    except Exception as error:  # the hub's and the network's libraries have errors of many kinds
        at = f" at revision {revision}" if revision else ""
        raise WeightsError(
            f"{repository}{at} is not on this machine, and cannot be downloaded: {first_line(error)}",
            hint=f"where there is a network: hf download {repository} --local-dir FOLDER; bring that here, "
            f"with {SETTINGS_FILE} and *.safetensors in it, and name it: {library}:FOLDER",
        ) from None
    return folder


def as_maps(features: Tensor, width: int, model: str) -> Tensor:
    """Returns features as maps (B, D, H, W): of (B, D, H, W), (B, H, W, D), or tokens (B, N, D).

    Tokens before those of the square image (a class token, registers) are left out.

    Raises:
        ConfigError: they have another form.
    """
    if features.dim() == 4:
        return features if features.shape[1] == width else features.permute(0, 3, 1, 2)
    if features.dim() != 3:
        raise ConfigError(
            f"{model}: features of {features.dim()} axes are no maps", hint="leave out --keep-maps or --agva"
        )
    side = isqrt(features.shape[1])
    return features[:, -side * side :].transpose(1, 2).reshape(len(features), -1, side, side)
