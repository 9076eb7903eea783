"""What the heads read of a feature cache: inputs by video, labels by row, checked before training starts."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avel.errors import TrainingError
from avel.heads.config import TrainConfig
from avel.heads.models.head import Widths, head_class
from avel.heads.training.memory import free_memory_gb
from avel.progress import note
from avel.stores.features import FeatureCache

ARRAYS = {"encoded": ("f_a", "f_v"), "cnn": ("cnn_a", "cnn_v"), "maps": ("cnn_a", "maps")}
"""Inputs of a head -> the arrays of the cache, audio and visual."""
CHECKED_VIDEOS = 64


@dataclass(frozen=True)
class Split:
    """R rows of one split: videos (R,) indexes the cache's videos, labels is (R, T), categories (R,)."""

    name: str
    row: NDArray[np.int64]
    video_id: NDArray[np.object_]
    leaked: NDArray[np.bool_]
    videos: Tensor
    labels: Tensor
    categories: Tensor

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Features:
    """Audio and visual inputs of V videos, in memory or read from the cache as they are asked for."""

    cache: FeatureCache
    source: str
    device: torch.device
    held: tuple[Tensor, Tensor] | None

    def of(self, videos: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of some videos in float32: (...) -> (..., T, D), (..., T, D) or maps (..., T, H, W, C)."""
        if self.held is not None:
            audio, visual = (_taken(values, videos).float() for values in self.held)
            return audio, visual
        unique, places = torch.unique(videos.cpu(), return_inverse=True)
        read = (torch.from_numpy(self.cache.read(name, unique.numpy())) for name in ARRAYS[self.source])
        audio, visual = (values.to(self.device)[places.to(self.device)].float() for values in read)
        return audio, visual

    def batches(self, chunks: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """`of` for each chunk in turn; what is streamed is read one chunk ahead."""
        if self.held is not None:
            yield from map(self.of, chunks)
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self.of, chunks[0]) if chunks else None
            for following in [*chunks[1:], None]:
                assert ahead is not None
                ready = ahead.result()
                ahead = reader.submit(self.of, following) if following is not None else None
                yield ready


@dataclass(frozen=True)
class Data:
    """A cache as one head reads it."""

    features: Features
    widths: Widths
    splits: dict[str, Split]

    @cached_property
    def statistics(self) -> dict[str, tuple[Tensor, Tensor]]:
        """`feature_statistics` over train, measured once for all trials."""
        return feature_statistics(self.features, self.splits["train"])


def load_data(cache: FeatureCache, config: TrainConfig, device: torch.device) -> Data:
    """Splits and inputs for a head, whole and finite.

    Raises:
        TrainingError: what the head needs is missing, or labels or features cannot be trained on.
    """
    source = choose_source(cache, config)
    _check_shapes(cache, source)
    splits = {name: _split(cache, name, device) for name in ("train", "val", "test")}
    _check_labelled(cache)
    check_classes(cache, splits["train"], config)
    visual = cache.shapes[ARRAYS[source][1]]
    cells = visual[2] * visual[3] if source == "maps" else 0
    widths = Widths(cache.shapes[ARRAYS[source][0]][-1], visual[-1], cache.classes, cells)
    return Data(_features(cache, source, config, device), widths, splits)


def choose_source(cache: FeatureCache, config: TrainConfig) -> str:
    """Which inputs the head reads: those asked for, or the best that the cache holds.

    Raises:
        TrainingError: the cache holds none of them, or the head cannot read what was asked for.
    """
    head, name = head_class(config), config.head.name
    if config.inputs != "auto" and config.inputs not in head.sources:
        raise TrainingError(
            f"head {name!r} cannot read {config.inputs!r} inputs",
            hint=f"--inputs {' or '.join(head.sources)}",
        )
    wanted = head.sources if config.inputs == "auto" else (config.inputs,)
    held = [source for source in wanted if all(name in cache.shapes for name in ARRAYS[source])]
    if not held:
        needs = " or ".join(" and ".join(ARRAYS[source]) for source in wanted)
        raise TrainingError(
            f"{cache.path}: head {name!r} needs {needs}, the cache holds {', '.join(cache.shapes)}",
            hint="avel cache-features STORE CACHE --help names the option that adds them",
        )
    if held[0] != head.sources[0] and config.inputs == "auto":
        note(f"head {name}: {head.sources[0]} inputs are not cached, it takes {held[0]} ones")
    return held[0]


def chunks_of(order: Tensor, size: int) -> list[Tensor]:
    """Pieces of at most `size` along the last axis, the last one smaller: (..., R) -> list of (..., B)."""
    return list(torch.split(order, size, dim=-1))


def feature_statistics(features: Features, train: Split) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and 1 / deviation of each feature over the train videos: "audio", "visual" -> (D,), (D,).

    A feature that never varies in train is left unscaled: elsewhere it may.
    """
    chunks = chunks_of(torch.unique(train.videos), 64)
    sums: dict[str, list[Tensor]] = {"audio": [], "visual": []}
    for audio, visual in features.batches(chunks):
        for name, values in (("audio", audio), ("visual", visual)):
            flat = values.flatten(0, -2).double().cpu()
            sums[name].append(
                torch.stack((flat.sum(0), flat.square().sum(0), torch.full_like(flat[0], len(flat))))
            )
    result = {}
    for name, parts in sums.items():
        total, squares, count = torch.stack(parts).sum(0)
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        result[name] = (mean.float(), torch.where(deviation > 1e-6, deviation, 1.0).reciprocal().float())
    return result


def _features(cache: FeatureCache, source: str, config: TrainConfig, device: torch.device) -> Features:
    """The inputs, held where they fit, each read once and found finite."""
    names = ARRAYS[source]
    wanted_gb = sum(_bytes(cache, name) for name in names) / 2**30
    limit_gb = free_memory_gb(device) / 2 if config.memory_gb is None else config.memory_gb
    if wanted_gb > limit_gb:
        note(f"{cache.path}: {wanted_gb:.2f} GB of features are streamed, memory limit {limit_gb:.2f} GB")
        for name in names:
            _check_finite(cache, name, partial(cache.read, name))
        return Features(cache, source, device, None)
    held = [cache.read(name) for name in names]
    for name, values in zip(names, held, strict=True):
        _check_finite(cache, name, values.__getitem__)
    audio, visual = (torch.from_numpy(values).to(device) for values in held)
    return Features(cache, source, device, (audio, visual))


def _taken(values: Tensor, videos: Tensor) -> Tensor:
    """`values[videos]`, in a third of its time: (V, T, ...), (...) -> (..., T, ...)."""
    return values.index_select(0, videos.flatten()).view(*videos.shape, *values.shape[1:])


def _bytes(cache: FeatureCache, name: str) -> int:
    """Size of an array in the number format that it is kept in."""
    nothing = cache.read(name, np.empty(0, np.int64))
    return int(np.prod(cache.shapes[name])) * nothing.itemsize


def _split(cache: FeatureCache, name: str, device: torch.device) -> Split:
    rows = cache.rows
    chosen = np.flatnonzero(rows.split == name)
    if not len(chosen):
        raise TrainingError(
            f"{cache.path}: no row of split {name!r} has features", hint=f"avel inspect {cache.path}"
        )
    ids = np.array(cache.video_ids, object)[rows.video[chosen]]

    def tensor(values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values[chosen].astype(np.int64)).to(device)

    return Split(
        name,
        rows.row[chosen],
        ids,
        rows.leaked[chosen],
        tensor(rows.video),
        tensor(rows.label),
        tensor(rows.category),
    )


def _check_shapes(cache: FeatureCache, source: str) -> None:
    for name in ARRAYS[source]:
        if cache.shapes[name][1] != cache.grid_segments:
            raise TrainingError(
                f"{cache.path}: {name} has {cache.shapes[name][1]} segments, the cache {cache.grid_segments}"
            )
    if not len(cache.rows.row):
        raise TrainingError(
            f"{cache.path}: no labels in this cache", hint="stage the dataset with its annotations first"
        )
    if cache.rows.label.shape[1:] != (cache.grid_segments,):
        raise TrainingError(
            f"{cache.path}: labels have {cache.rows.label.shape[1]} segments, features {cache.grid_segments}"
        )


def _check_labelled(cache: FeatureCache) -> None:
    unlabelled = np.flatnonzero((cache.rows.label < 0).any(1) | (cache.rows.category < 0))
    if len(unlabelled):
        row = cache.rows.row[unlabelled[0]]
        raise TrainingError(f"{cache.path}: {len(unlabelled)} rows without labels, the first is row {row}")


def check_classes(cache: FeatureCache, train: Split, config: TrainConfig) -> None:
    """Whether the train rows hold two classes at least, of videos or of segments as the head is taught.

    Raises:
        TrainingError: they hold one.
    """
    weak = config.supervision == "weak"
    classes = torch.unique(train.categories if weak else train.labels).tolist()
    if len(classes) < 2:
        what = "videos of one class" if weak else "one class"
        raise TrainingError(f"{cache.path}: the train split holds {what} only, number {classes[0]}")


def _check_finite(cache: FeatureCache, name: str, read: Callable[[NDArray[np.int64]], NDArray[Any]]) -> None:
    for start in range(0, len(cache.video_ids), CHECKED_VIDEOS):
        videos = np.arange(start, min(start + CHECKED_VIDEOS, len(cache.video_ids)))
        broken = np.flatnonzero(~np.isfinite(read(videos).reshape(len(videos), -1)).all(1))
        if len(broken):
            video_id = cache.video_ids[start + int(broken[0])]
            raise TrainingError(
                f"{cache.path}: {name} of video {video_id!r} is not finite", hint="make the cache again"
            )
