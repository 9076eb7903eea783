"""Types of the provenance of a feature cache."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from avel.errors import StoreError
from avel.stores.documents import typed

CACHE_AGAIN = "make it again with the same avel cache-features or import-features command and --overwrite"


@dataclass(frozen=True)
class CacheInputs:
    """Paths of the inputs of `avel cache-features`, and its other options; None in an imported cache.

    Where the encoder of `run` reads vectors, `source_runs` are the runs of the encoders that made those.
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
INPUTS = tuple(field.name for field in fields(CacheInputs))
"""Keys of the provenance that hold paths and options; the digest leaves them out, so that inputs may move."""


def differing_entries(
    first: Any, second: Any, ignored: frozenset[str] = frozenset(), where: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yields each entry in which two provenances differ, "encoder.digest", and its two values.

    >>> [*differing_entries({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})]
    [('a.c', 2, 3)]
    """
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted({*first, *second} - ignored):
            inner = f"{where}.{key}" if where else key
            yield from differing_entries(first.get(key), second.get(key), ignored, inner)
    elif first != second:
        yield where, first, second


@dataclass(frozen=True)
class Staging:
    """Digest and settings of the clip store."""

    digest: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Preprocessing:
    """Number format of the CNNs, and whether clips end where their media do, or are padded to the grid."""

    dtype: Literal["float32", "bfloat16"]
    own_lengths: bool


@dataclass(frozen=True)
class VisualPreprocessing(Preprocessing):
    """Adds which frames of each segment the visual CNN reads, and their crop."""

    frames: tuple[int, ...]
    crop: str
    crop_size: int


@dataclass(frozen=True)
class EncoderIdentity:
    """Kind and digest of an encoder; its parts stand beside them in the provenance, such as `visual`."""

    kind: Literal["run", "backbones", "untrained"]
    digest: str


@dataclass(frozen=True)
class NetworkProvenance:
    """Says what decides the features that networks compute of a clip.

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
        return typed(EncoderIdentity, self.encoder, f"{where}: provenance: encoder", CACHE_AGAIN)

    def weights(self, where: object, kind: str) -> str:
        """Returns the entry `weights` of a CNN, a name or SHA-256; only for an encoder that no run trained.

        Args:
            kind: "visual" or "audio".

        Raises:
            StoreError: the provenance does not say it.
        """
        about = self.encoder.get(kind)
        if not isinstance(about, dict) or not isinstance(about.get("weights"), str):
            raise StoreError(f"{where}: provenance: encoder.{kind}.weights is missing", hint=CACHE_AGAIN)
        return str(about["weights"])


NETWORK = tuple(field.name for field in fields(NetworkProvenance))
"""Keys of the provenance that decide features."""


@dataclass(frozen=True)
class CacheProvenance(NetworkProvenance):
    """Provenance that `avel cache-features` writes.

    Attributes:
        annotations: digest of samples, classes and the reasons for missing ones.
        hardware: devices that the CNNs ran on.
        damaged: video id -> SHA-256 of its file, for clips that the store holds but that cannot be read.
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
