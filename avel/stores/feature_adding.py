"""Adds features to a cache that is there, beside its own: under the name of their encoder."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.errors import AvelError, StoreError
from avel.progress import note
from avel.stores.features import FeatureCache, write_features
from avel.stores.named_features import GROUP, OWN_ARRAYS, NewFeatures, check_name, which_drops


class Stored:
    """An array of a cache, whose checksums are compared as it is read: (V, T, ...), or of some videos."""

    def __init__(self, cache: FeatureCache, name: str, videos: NDArray[np.int64] | None = None) -> None:
        self._cache, self._name = cache, name
        self._videos = np.arange(len(cache.video_ids)) if videos is None else videos
        self.dtype = cache.read(name, np.empty(0, np.int64)).dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(V, T, ...)."""
        return (len(self._videos), *self._cache.shapes[self._name][1:])

    def __getitem__(self, key: slice) -> NDArray[Any]:
        return self._cache.read(self._name, self._videos[key])


def add_features(path: Path, new: Mapping[str, NewFeatures], *, overwrite: bool = False) -> FeatureCache:
    """Adds features to a cache, and returns it; the file is written again, whole or not at all.

    Its own features and its digest stay, so that heads which were trained on these stay valid.

    Args:
        overwrite: replace features of the same name.

    Raises:
        ConfigError: a name that features cannot have.
        StoreError: features of that name are there, or the new ones do not fit the cache's videos and grid.
    """
    cache = FeatureCache.open(path)
    check_new_names(cache, new, overwrite)
    return write_features(
        path,
        video_ids=cache.video_ids,
        categories=cache.categories,
        samples=cache.samples,
        arrays={name: Stored(cache, name) for name in cache.shapes if name in OWN_ARRAYS},
        segment_seconds=cache.segment_seconds,
        missing=cache.missing,
        provenance={key: value for key, value in cache.provenance.items() if key != GROUP},
        named=stored_features(cache) | dict(new),
        lengths=cache.lengths,
        sources=cache.sources,
        temporal=cache.read_temporal(),
    )


def check_new_names(cache: FeatureCache, names: Iterable[str], overwrite: bool) -> None:
    """Checks that features can be added to a cache under names.

    Raises:
        ConfigError: a name that features cannot have.
        StoreError: features of that name are there, and `overwrite` is not given.
    """
    for name in names:
        check_name(name)
        if name in cache.named and not overwrite:
            raise StoreError(
                f"{cache.path}: holds features named {name!r}", hint="name them otherwise, or add --overwrite"
            )


def note_dropped(cache: Path) -> None:
    """Says which named features a cache loses when it is made again, in time to stop that."""
    if not cache.exists():
        return
    with suppress(AvelError):  # a cache that cannot be read is made again, too
        if names := FeatureCache.open(cache).named:
            note(f"{cache} is made again{which_drops(names)}")


def stored_features(cache: FeatureCache, videos: NDArray[np.int64] | None = None) -> dict[str, NewFeatures]:
    """Returns the named features of a cache, all rows or those of some videos, to be written again."""
    return {
        name: NewFeatures(about.modality, Stored(cache, name, videos), about.made)
        for name, about in cache.named.items()
    }
