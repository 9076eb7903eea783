"""Reads the provenance of a feature cache as typed values."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from avel.errors import StoreError
from avel.stores.documents import typed

AGAIN = "make it again with the same avel cache-features or import-features command and --overwrite"


@dataclass(frozen=True)
class Places:
    """Paths of the inputs of `avel cache-features`, and its other options; None in an imported cache.

    `source_runs` are those of the encoders behind the vectors that the encoder of `run` reads.
    """

    store: str | None
    run: str | None
    options: str | None
    source_runs: tuple[str, ...] | None

    @property
    def runs(self) -> tuple[str, ...]:
        """Lists the runs of all encoders behind the features."""
        return (*(() if self.run is None else (self.run,)), *(self.source_runs or ()))


VECTORS = "vectors"
"""Key of the provenance that tells of the cache whose vectors an encoder reads."""
PLACES = tuple(field.name for field in fields(Places))
"""Keys of the provenance that hold paths and options; the digest leaves them out, so that inputs may move."""


@dataclass(frozen=True)
class Staging:
    """Digest and settings of the clip store."""

    digest: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Preprocessing:
    """Number format of the CNNs."""

    dtype: Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class VisualPreprocessing(Preprocessing):
    """Also the frames of each segment that the visual CNN sees, and their crop."""

    frames: tuple[int, ...]
    crop: str
    crop_size: int


@dataclass(frozen=True)
class EncoderIdentity:
    """Kind and digest of an encoder; its parts stand beside, under `visual`, `audio`, `encoder`."""

    kind: Literal["run", "backbones", "untrained"]
    digest: str


@dataclass(frozen=True)
class NetworkProvenance:
    """Names what decides the features that networks give of a clip.

    Attributes:
        encoder: kind, digest and parts of the encoder; of named features the one backbone that made them.
        cnn: digest of the CNNs' weights.
    """

    encoder: dict[str, Any]
    staging: Staging
    preprocessing: Preprocessing
    cnn: str | None

    def encoder_identity(self, where: object) -> EncoderIdentity:
        """Returns kind and digest of the encoder; `where` begins the error.

        Raises:
            StoreError: the provenance does not say it.
        """
        return typed(EncoderIdentity, self.encoder, f"{where}: provenance: encoder", AGAIN)

    def weights(self, where: object, kind: str) -> str:
        """Returns the weights of the visual or audio CNN of an encoder that is of no run.

        Raises:
            StoreError: the provenance does not say it.
        """
        about = self.encoder.get(kind)
        if not isinstance(about, dict) or not isinstance(about.get("weights"), str):
            raise StoreError(f"{where}: provenance: encoder.{kind}.weights is missing", hint=AGAIN)
        return str(about["weights"])


NETWORK = tuple(field.name for field in fields(NetworkProvenance))
"""Keys of the provenance that decide features."""


@dataclass(frozen=True)
class CacheProvenance(NetworkProvenance):
    """Provenance that `avel cache-features` writes; `damaged` is video id -> SHA-256.

    Attributes:
        annotations: digest of samples, classes and reasons.
        hardware: devices that the CNNs ran on.
    """

    preprocessing: VisualPreprocessing
    arrays: tuple[str, ...]
    annotations: str
    hardware: tuple[str, ...]
    damaged: dict[str, str]
    grid: dict[str, Any]
    versions: dict[str, str]
    earlier_versions: tuple[dict[str, str], ...]
    pretraining_seed: int | None
    store: str
    run: str | None
    options: str


def places_of(path: Path, provenance: Mapping[str, Any]) -> Places:
    """Returns the paths of a cache's inputs.

    Raises:
        StoreError: an entry is of another type.
    """
    plain = {name: provenance.get(name) for name in PLACES}
    return typed(Places, plain, f"{path}: provenance", AGAIN)


def read_provenance(path: Path, provenance: Mapping[str, Any]) -> CacheProvenance:
    """Returns the typed provenance of a cache.

    Raises:
        StoreError: it was not made by `avel cache-features`, or an entry is missing or of another type.
    """
    return typed(CacheProvenance, provenance, f"{path}: provenance", AGAIN)
