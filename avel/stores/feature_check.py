"""Verifies a feature cache: reads everything, and computes checksums and digest again."""

import h5py
import numpy as np

from avel.stores.features import BLOCK_VIDEOS, MAPS, VECTORS, FeatureCache, content_digest


def problems(cache: FeatureCache) -> tuple[str, ...]:
    """Lists what is wrong with a cache, a line each."""
    found: list[str] = []
    with h5py.File(cache.path, "r") as file:
        for name in cache.shapes:
            found += _of_array(file[name], name)
        if not found:
            vectors = {name: file[name] for name in (*VECTORS, MAPS) if name in file}
            digest = content_digest(
                cache.provenance,
                cache.video_ids,
                cache.categories,
                cache.samples,
                cache.segment_seconds,
                vectors,
            )
            if digest != cache.digest:
                found.append(f"its content has digest {digest}, it says {cache.digest}: bytes have changed")
    return tuple(found)


def _of_array(array: h5py.Dataset, name: str) -> list[str]:
    """Describes the first block that cannot be read or holds values that are not finite, if any."""
    for start in range(0, array.shape[0], BLOCK_VIDEOS):
        stop = min(start + BLOCK_VIDEOS, array.shape[0])
        try:
            block = array[start:stop]
        except OSError as error:
            return [f"{name} of videos {start} to {stop - 1} is damaged: {error}"]
        if not np.isfinite(block).all():
            return [f"{name} of videos {start} to {stop - 1} holds values that are not finite"]
    return []
