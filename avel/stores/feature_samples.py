"""Divides a dataset's samples into those whose video is in a feature cache, and missing ones."""

from collections.abc import Mapping

import numpy as np

from avel.stores.cached_samples import CachedSamples, Missing
from avel.stores.datasets.dataset import Dataset

NO_SAMPLE = -1
"""Number of the sample of a missing video that has none."""


def samples_of_videos(
    dataset: Dataset, video_ids: tuple[str, ...], reasons: Mapping[str, str]
) -> tuple[CachedSamples, tuple[Missing, ...]]:
    """Returns the samples of the V given videos, and all other samples and videos with the reason.

    `reasons` is video id -> why it is missing; a missing video without samples gets the number -1.
    """
    place = {video_id: number for number, video_id in enumerate(video_ids)}
    chosen = [sample for sample in dataset.samples if sample.video_id in place]
    leaked = dataset.leaked()
    samples = CachedSamples(
        number=np.array([sample.number for sample in chosen], np.int64),
        video=np.array([place[sample.video_id] for sample in chosen], np.int64),
        split=np.array([sample.split for sample in chosen], object),
        leaked=np.array([sample.number in leaked for sample in chosen], bool),
        known=np.array([sample.events is not None for sample in chosen], bool),
        events=dataset.event_table(chosen),
        tag=np.array([sample.tag for sample in chosen], object),
        classes=dataset.class_table(chosen),
    )
    return samples, _missing(dataset, place, reasons)


def _missing(dataset: Dataset, place: Mapping[str, int], reasons: Mapping[str, str]) -> tuple[Missing, ...]:
    absent = [
        Missing(sample.number, sample.video_id, reasons.get(sample.video_id, "not staged"))
        for sample in dataset.samples
        if sample.video_id not in place
    ]
    has_sample = {sample.video_id for sample in dataset.samples}
    bare = [
        Missing(NO_SAMPLE, video.video_id, reasons.get(video.video_id, "not staged"))
        for video in dataset.videos
        if video.video_id not in has_sample and video.video_id not in place
    ]
    return tuple(absent + bare)
