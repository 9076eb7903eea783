"""Makes an Arrow table of the features of a split, a row for each segment."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from avel.errors import StoreError
from avel.stores.datasets.sample import MODALITIES
from avel.stores.features import FeatureCache


def as_table(cache: FeatureCache | Path | str, split: str | None = None, *names: str) -> pa.Table:
    """Returns a row for each segment of the clips of a split, or of all, with the vectors of `names`.

    The other columns are sample, video_id, split, segment, onset_seconds and classes: those that the segment
    holds, [] for background, null where they are not known. `.to_pandas()` makes it a data frame.

    >>> as_table("ave.h5", "train", "f_a", "f_v").num_rows  # doctest: +SKIP
    33390

    Raises:
        StoreError: no such split or features; features that are maps, or have the name of another column.
    """
    cache = cache if isinstance(cache, FeatureCache) else FeatureCache.open(cache)
    samples, segments = cache.samples.take(cache.places_of_split(split)), cache.grid_segments
    either = [MODALITIES.index("audio"), MODALITIES.index("visual")]
    has_class = (cache.segment_classes(samples, either) > 0).any(2)
    has_class = has_class.reshape(len(samples) * segments, len(cache.categories))
    lengths = cache.lengths[samples.video]
    inside = (np.arange(segments) < lengths[:, None]).ravel()
    has_class, known = has_class[inside], np.repeat(samples.known, lengths)
    segment = np.tile(np.arange(segments), len(samples))[inside]
    columns: dict[str, Any] = {
        "sample": np.repeat(samples.number, lengths),
        "video_id": np.repeat(np.array(cache.video_ids, object)[samples.video], lengths),
        "split": np.repeat(samples.split, lengths),
        "segment": segment,
        "onset_seconds": segment * cache.segment_seconds,
        "classes": pa.array(
            [
                [cache.categories[place] for place in np.flatnonzero(row)] if is_known else None
                for row, is_known in zip(has_class, known, strict=True)
            ],
            pa.list_(pa.string()),
        ),
    }
    for name in names:
        if name in columns:
            raise StoreError(
                f"{cache.path}: the table has another column named {name!r}",
                hint="cache.of_split(SPLIT, NAME) reads them as an array",
            )
        values = cache.read(name, samples.video)
        if values.ndim != 3:
            raise StoreError(
                f"{cache.path}: {name} holds maps {values.shape[1:]}, which make no column",
                hint="cache.of_split(SPLIT, NAME) reads them as an array",
            )
        vectors = values.reshape(-1, values.shape[-1])[inside]
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[-1])
    return pa.table(columns)
