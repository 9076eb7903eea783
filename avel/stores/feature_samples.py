"""Divides a dataset's samples into those whose video is in a feature cache, and missing ones."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from avel.stores.cached_samples import CachedSamples, Missing
from avel.stores.columns import places_in
from avel.stores.datasets.dataset import Dataset

NO_SAMPLE = -1
"""Stands for the number of a sample where a missing video has no sample."""


def samples_of_videos(
    dataset: Dataset, video_ids: tuple[str, ...], reasons: Mapping[str, str]
) -> tuple[CachedSamples, tuple[Missing, ...]]:
    """Returns the samples of the V given videos, and all other samples and videos with the reason.

    `reasons` is video id -> why it is missing; a missing video without samples gets the number -1.
    """
    place = places_in(dataset.samples.table["video_id"], pa.array(video_ids, pa.string()))
    chosen, absent = dataset.samples.filter(place >= 0), dataset.samples.filter(place < 0)
    numbers, leaked = chosen.column("sample"), dataset.leaked()
    samples = CachedSamples(
        number=numbers.astype(np.int64),
        video=place[place >= 0],
        split=np.array(chosen.texts("split"), object),
        leaked=np.isin(numbers, list(leaked)),
        known=chosen.column("events_known"),
        events=dataset.event_table(chosen),
        tag=np.array(chosen.texts("tag"), object),
        classes=dataset.class_table(chosen),
    )
    named = {*video_ids, *dataset.samples.texts("video_id")}
    missing = [
        *zip(absent.column("sample").tolist(), absent.texts("video_id"), strict=True),
        *((NO_SAMPLE, name) for name in dataset.videos.texts("video_id") if name not in named),
    ]
    return samples, tuple(Missing(number, name, reasons.get(name, "not staged")) for number, name in missing)
