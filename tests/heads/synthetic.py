"""Feature caches with a known answer: class prototypes plus noise, events of random length."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avel.config import resolve
from avel.heads.config import TrainConfig
from avel.heads.training.data import Data, check_labels, read_data
from avel.heads.training.trials import Trial
from avel.stores.features import FeatureCache, write_features
from tests.samples import cached_samples

NEGATIVES = 7
WIDTHS = {"f_a": (12,), "f_v": (12,), "cnn_a": (10,), "cnn_v": (14,), "maps": (2, 2, 14)}


def train_config(**options: Any) -> TrainConfig:
    """How a head is trained: settings by name, of the head and of the training."""
    return resolve(TrainConfig, "train-head", options=options)


def trials_of(config: TrainConfig, count: int = 3) -> list[Trial]:
    """Trials that differ in the seed."""
    return [Trial(f"seed={seed}", dataclasses.replace(config, seed=seed)) for seed in range(count)]


def load_data(cache: FeatureCache, config: TrainConfig) -> Data:
    """What a head reads of a cache, on the CPU, where it can learn from the labels."""
    data = read_data(cache, config, torch.device("cpu"))
    check_labels(cache, data.splits, config)
    return data


def write_cache(
    path: Path,
    *,
    samples: int = 60,
    segments: int = 6,
    events: int = 3,
    noise: float = 0.7,
    arrays: tuple[str, ...] = ("f_a", "f_v"),
    splits: tuple[float, float] = (0.6, 0.8),
    seed: int = 0,
    **changes: Any,
) -> Path:
    """One video a sample, but the last two share one; `changes` replace arrays, labels or columns of samples.

    `label` (R, T) gives the events, with -1 in samples whose events are not known; `event_table` gives them
    as they are; `lengths` (V,) are the segments of each video.
    """
    random = np.random.default_rng(seed)
    category = random.integers(0, events, samples)
    label = np.full((samples, segments), events)
    for sample in range(samples):
        onset = random.integers(0, segments - 1)
        label[sample, onset : random.integers(onset + 1, segments + 1)] = category[sample]
    fraction = np.arange(samples) / max(samples, 1)
    split = np.where(fraction < splits[0], "train", np.where(fraction < splits[1], "val", "test"))
    prototypes = {name: random.normal(size=(events + 1, *WIDTHS[name])) for name in arrays}
    label = np.asarray(changes.pop("label", label))
    videos = max(samples - 1, 0)
    made = {
        name: prototypes[name][label[:videos]] + noise * random.normal(size=(videos, segments, *WIDTHS[name]))
        for name in arrays
    }
    lengths, temporal = changes.pop("lengths", None), changes.pop("temporal", None)
    made |= {name: values for name, values in changes.items() if name in WIDTHS}
    columns: dict[str, Any] = {
        "number": np.arange(samples) + 100,
        "video": np.minimum(np.arange(samples), samples - 2),
        "split": split,
        "leaked": np.arange(samples) == samples - 1,
        "events": changes.pop("event_table", None),
    }
    columns |= {name: values for name, values in changes.items() if name not in WIDTHS}
    write_features(
        path,
        video_ids=tuple(f"-video{number}" for number in range(videos)),
        categories=tuple(f"event {number}" for number in range(events)),
        samples=cached_samples(label, events, **columns),
        arrays=made,
        provenance={"made by": "the tests"},
        lengths=lengths,
        temporal=temporal,
    )
    return path


def write_negatives(path: Path, *, prefix: str = "negative", **changes: Any) -> Path:
    """A cache of clips that no annotation names, features 100, 101, ... by clip."""
    numbers = np.arange(NEGATIVES)[:, None, None]
    arrays = {name: np.broadcast_to(100.0 + numbers, (NEGATIVES, 6, 12)) for name in ("f_a", "f_v")}
    write_features(
        path,
        video_ids=tuple(f"{prefix}{number}" for number in range(NEGATIVES)),
        categories=changes.pop("categories", ()),
        samples=changes.pop("samples", cached_samples(np.zeros((0, 6), int), 0)),
        arrays=arrays | changes.pop("arrays", {}),
        provenance=changes.pop("provenance", {}),
        **changes,
    )
    return path
