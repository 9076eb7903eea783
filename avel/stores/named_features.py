"""Named features: those that a cache holds beside avel's own arrays, under the name of their encoder."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from avel.digests import digest_of
from avel.errors import ConfigError, StoreError
from avel.stores.documents import typed
from avel.stores.hdf5 import ArrayLike
from avel.stores.provenance import CACHE_AGAIN

FeatureModality = Literal["audio", "visual"]
"""Modality of features; an event may also be of both, see `datasets.sample.Modality`."""
MAPS = "maps"
MAPS_ENDING = ".maps"
"""Ending of the name of a backbone's maps."""
MODALITY_OF_OWN: dict[str, FeatureModality] = {
    "f_a": "audio",
    "f_v": "visual",
    "cnn_a": "audio",
    "cnn_v": "visual",
    MAPS: "visual",
}
OWN_ARRAYS = tuple(MODALITY_OF_OWN)
"""Arrays that avel's encoders make."""
GROUP = "features"
"""Group of the file that holds the named features, and key of the provenance that tells of them."""
VALID_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]*")


@dataclass(frozen=True)
class NamedFeatures:
    """Provenance of features that a cache holds under a name.

    Attributes:
        made: how they were made.
        digest: 16 hex digits over name, modality, `made`, the videos, and the checksum of each row.
    """

    modality: FeatureModality
    made: dict[str, Any]
    digest: str


@dataclass(frozen=True)
class NewFeatures:
    """Features to write under a name: (V, T, D), or maps (V, T, H, W, C)."""

    modality: FeatureModality
    values: ArrayLike
    made: Mapping[str, Any]

    def named(self, name: str, video_ids: tuple[str, ...], sums: NDArray[np.uint32]) -> NamedFeatures:
        """Returns what a cache says of them, when their rows have been written."""
        made = dict(self.made)
        return NamedFeatures(self.modality, made, named_digest(name, self.modality, made, video_ids, sums))


def named_digest(
    name: str, modality: str, made: Mapping[str, Any], video_ids: tuple[str, ...], sums: NDArray[np.uint32]
) -> str:
    """Returns the digest of features under a name."""
    return digest_of([name, modality, dict(made), video_ids], [(name, sums)])


def read_named(path: Path, provenance: Mapping[str, Any]) -> dict[str, NamedFeatures]:
    """Returns the features of a cache by name, as its provenance tells of them.

    Raises:
        StoreError: an entry is missing or of another type.
    """
    entries, where = provenance.get(GROUP, {}), f"{path}: provenance: {GROUP}"
    if not isinstance(entries, dict):
        raise StoreError(f"{where} is {entries!r}, not features by name", hint=CACHE_AGAIN)
    for name in entries:
        try:
            check_name(name)
        except ConfigError as error:
            raise StoreError(f"{where}: {error.message}", hint=CACHE_AGAIN) from None
    return {
        name: typed(NamedFeatures, entry, f"{where}: {name}", CACHE_AGAIN) for name, entry in entries.items()
    }


def which_drops(names: Collection[str]) -> str:
    """Returns the end of a sentence about making a cache again: which named features are lost; "" for none.

    >>> "avel cache-features ... --overwrite makes it again" + which_drops(["clip", "beats"])
    'avel cache-features ... --overwrite makes it again, which drops clip, beats: add them again'
    """
    return f", which drops {', '.join(names)}: add them again" if names else ""


def place_in_file(name: str) -> str:
    """Returns the path of an array in the file."""
    return name if name in OWN_ARRAYS else f"{GROUP}/{name}"


def check_name(name: str) -> None:
    """Refuses what cannot be a name of features.

    Raises:
        ConfigError: it is empty, a name of avel's own, or holds other characters than VALID_NAME.
    """
    if name in OWN_ARRAYS:
        raise ConfigError(f"{name!r} is a name of avel's own features", hint="take the encoder's name")
    if not VALID_NAME.fullmatch(name):
        raise ConfigError(
            f"features cannot be named {name!r}",
            hint="use letters, digits and _ . : @ -, beginning with a letter or digit",
        )
