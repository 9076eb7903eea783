"""Adds clips without any event to those that a head learns from, such as AVE's 178 background clips."""

from dataclasses import replace

import numpy as np
import torch

from avel.errors import TrainingError
from avel.heads.config import TrainConfig
from avel.heads.training.data import Data, Split, arrays_of, join, load_features
from avel.stores.datasets.labels import mark_padding
from avel.stores.feature_samples import NO_SAMPLE
from avel.stores.features import FeatureCache


def add_negatives(data: Data, config: TrainConfig) -> Data:
    """Returns the data with all videos of the cache `config.negatives` in train, as samples without events.

    Raises:
        TrainingError: they hold events, or were not made like the other features.
    """
    features = data.features
    negatives = open_negatives(config.negatives, features.cache, features.inputs)
    more = load_features(negatives, features.inputs, config, features.device)
    count = len(negatives.video_ids)
    targets = data.task.background_targets(count, features.cache.grid_segments)
    labels = mark_padding(targets.labels, negatives.lengths)
    samples = Split(
        "train",
        np.full(count, NO_SAMPLE),
        np.array(negatives.video_ids, object),
        np.zeros(count, bool),
        np.ones(count, bool),
        targets.has_video_label,
        torch.arange(count, device=features.device) + len(features.cache.video_ids),
        *(torch.from_numpy(values).to(features.device) for values in (labels, targets.video_labels)),
    )
    train = join((data.splits["train"], samples))
    lengths = None
    if features.lengths is not None or more.lengths is not None:
        both = np.concatenate((features.cache.lengths, negatives.lengths))
        lengths = torch.from_numpy(both).to(features.device)
    joined = replace(features, negatives=more, lengths=lengths)
    return replace(data, features=joined, splits=data.splits | {"train": train})


def open_negatives(path: str, cache: FeatureCache, inputs: str) -> FeatureCache:
    """Opens a cache of clips without events, whose features must be made like those of the other cache.

    Raises:
        TrainingError: a clip has an event, or is in the other cache too; arrays are missing, of another
            shape, or made by another encoder.
    """
    negatives, again = FeatureCache.open(path), "make it with the same avel command and options as the other"
    for name in (name for of_modality in arrays_of(inputs) for name in of_modality):
        shape, own_shape = negatives.shapes.get(name, ())[1:], cache.shapes[name][1:]
        if shape != own_shape:
            what = f"{name} is (V, {', '.join(map(str, shape))})" if shape else f"has no {name}"
            raise TrainingError(
                f"{path}: {what}, {cache.path} has (V, {', '.join(map(str, own_shape))})", hint=again
            )
    if negatives.segment_seconds != cache.segment_seconds:
        raise TrainingError(
            f"{path}: has segments of {negatives.segment_seconds:g} s, {cache.path} of "
            f"{cache.segment_seconds:g} s",
            hint=again,
        )
    if negatives.encoder != cache.encoder:
        raise TrainingError(
            f"{path}: was made by encoder {negatives.encoder}, {cache.path} by {cache.encoder}", hint=again
        )
    events = negatives.samples.video_classes(len(negatives.categories)).any(1)
    both = set(cache.video_ids) & set(negatives.video_ids)
    for what, found_ids in (
        ("holds events", [negatives.video_ids[number] for number in negatives.samples.video[events]]),
        (f"is in {cache.path} too", sorted(both)),
    ):
        if found_ids:
            raise TrainingError(
                f"{path}: video {found_ids[0]!r} {what}", hint="--negatives takes clips without any event"
            )
    return negatives
