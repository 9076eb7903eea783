"""Verifies a feature cache: reads every row and compares its checksum."""

import numpy as np

from avel.errors import StoreError
from avel.stores.features import FeatureCache
from avel.stores.hdf5 import BLOCK_ROWS


def verify_features(cache: FeatureCache) -> tuple[str, ...]:
    """Lists what is wrong with the arrays of a cache, a line each.

    All else was compared with the digest when the cache was opened.
    """
    return tuple(what for name in cache.shapes for what in _of_array(cache, name))


def _of_array(cache: FeatureCache, name: str) -> list[str]:
    """Names the first damaged row, or the first 64 rows together that hold a value that is not finite."""
    for start in range(0, len(cache.video_ids), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(cache.video_ids))
        try:
            block = cache.read(name, np.arange(start, stop))
        except StoreError as error:
            return [error.message]
        if not np.isfinite(block).all():
            return [f"{name} of videos {start} to {stop - 1} holds values that are not finite"]
    return []
