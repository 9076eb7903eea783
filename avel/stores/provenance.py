"""What a feature cache says of how it was made, as typed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avel.errors import StoreError
from avel.stores.documents import typed

AGAIN = "make it again with the same avel cache-features or import-features command and --overwrite"


@dataclass(frozen=True)
class Places:
    """Where the inputs of `avel cache-features` lay, and its other options; None in an imported cache."""

    store: str | None
    run: str | None
    options: str | None


@dataclass(frozen=True)
class Staging:
    """Digest and settings of the clip store."""

    digest: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Preprocessing:
    """Frames of each segment, crop, and number format of the CNNs."""

    frames: tuple[int, ...]
    crop: str
    crop_size: int
    dtype: Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Encoder:
    """How an encoder is known; what else it is made of stands beside, under `visual`, `audio`, `encoder`."""

    kind: Literal["run", "backbones", "untrained"]
    digest: str


@dataclass(frozen=True)
class Made:
    """The provenance that `avel cache-features` writes; `clips` and `damaged` are video id -> SHA-256.

    Attributes:
        encoder: `Encoder`, and what it is made of.
        annotations: digest of samples, classes and reasons.
        cnn: digest of the CNNs' weights.
        hardware: devices that they ran on.
    """

    encoder: dict[str, Any]
    staging: Staging
    preprocessing: Preprocessing
    arrays: tuple[str, ...]
    annotations: str
    cnn: str | None
    hardware: tuple[str, ...]
    clips: dict[str, str]
    damaged: dict[str, str]
    grid: dict[str, Any]
    versions: dict[str, str]
    earlier_versions: tuple[dict[str, str], ...]
    pretraining_seed: int | None
    store: str
    run: str | None
    options: str

    def encoder_identity(self, path: Path) -> Encoder:
        """Returns how the encoder is known; `path` is the cache, for the error.

        Raises:
            StoreError: the cache does not say it.
        """
        where = f"{path}: provenance: encoder"
        return typed(Encoder, self.encoder, where, AGAIN)

    def weights(self, path: Path, kind: str) -> str:
        """Returns what an encoder of no run says of the weights of its visual or audio CNN.

        Raises:
            StoreError: the cache does not say it.
        """
        about = self.encoder.get(kind)
        if not isinstance(about, dict) or not isinstance(about.get("weights"), str):
            raise StoreError(f"{path}: provenance: encoder.{kind}.weights is missing", hint=AGAIN)
        return str(about["weights"])


def places_of(path: Path, provenance: Mapping[str, Any]) -> Places:
    """Returns where a cache's inputs lay.

    Raises:
        StoreError: an entry is of another type.
    """
    plain = {name: provenance.get(name) for name in ("store", "run", "options")}
    return typed(Places, plain, f"{path}: provenance", AGAIN)


def made_of(path: Path, provenance: Mapping[str, Any]) -> Made:
    """Returns what the provenance of a cache says.

    Raises:
        StoreError: it was not made by `avel cache-features`, or an entry is missing or of another type.
    """
    return typed(Made, provenance, f"{path}: provenance", AGAIN)
