"""Samples of a feature cache or clip store as `torch.utils.data.Dataset`, for your own training code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from avel.errors import ConfigError
from avel.grid import FULL_SCALE, evenly_spaced
from avel.stores.clips import ClipStore
from avel.stores.datasets.dataset import no_sample
from avel.stores.features import FeatureCache
from avel.stores.kinds import not_a
from avel.stores.opening import open


def as_torch(
    source: FeatureCache | ClipStore | Path | str, split: str | None = None, **options: Any
) -> CacheDataset | StoreDataset:
    """Returns a split's samples, or all, as a `torch.utils.data.Dataset` of features or clips with labels.

    >>> DataLoader(as_torch("ave.h5", "train"), batch_size=64, shuffle=True)   # doctest: +SKIP
    >>> as_torch("ave.zarr", "train", frames_per_segment=2)[0].frames.shape    # doctest: +SKIP
    torch.Size([10, 2, 3, 256, 256])

    Args:
        source: a feature cache or clip store, or its path.
        options: of a cache `audio` and `visual`, names of features, several joined by "+"; of a store
            `frames_per_segment`, and `waveform=True`, which reads the waveform as well.

    Raises:
        ConfigError: fewer than one frame of a segment.
        StoreError: neither of the two; no sample of that split; features that are absent, or that cannot be
            joined.
    """
    opened = open(source) if isinstance(source, Path | str) else source
    if isinstance(opened, FeatureCache):
        return CacheDataset(opened, split, **options)
    if isinstance(opened, ClipStore):
        return StoreDataset(opened, split, **options)
    raise not_a("feature cache or clip store", str(source), "")


class CachedSample(NamedTuple):
    """One sample of a cache: audio and visual (T, D) or maps (T, H, W, C), float32, and labels (T,).

    `length` counts segments, T unless clips have lengths of their own; `number` is that of the sample.

    Labels are class ids, background is the last; -1 where the events are not known, -2 after the clip's end.
    """

    audio: Tensor
    visual: Tensor
    labels: Tensor
    length: int
    number: int


class StagedSample(NamedTuple):
    """One sample of a store: frames uint8 (T, N, 3, H, W), log_mel (T, 96, 64), waveform, and labels.

    `labels`, `length` and `number` are as in CachedSample. The waveform is float32 (T * samples_per_segment,)
    from -1 to 1, or (0,) where it is not asked for.
    """

    frames: Tensor
    log_mel: Tensor
    waveform: Tensor
    labels: Tensor
    length: int
    number: int


class CacheDataset(Dataset[CachedSample]):
    """Samples of a split of a feature cache; a loader's batch is read at once."""

    def __init__(
        self, cache: FeatureCache, split: str | None = None, audio: str = "f_a", visual: str = "f_v"
    ) -> None:
        self.cache, self.names = cache, (audio.split("+"), visual.split("+"))
        self.samples = cache.samples.take(cache.places_of_split(split))
        self.labels = torch.from_numpy(cache.labels(self.samples))
        for names in self.names:  # now, and not in a loader's process
            cache.check_joins(names)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: int) -> CachedSample:
        return self.__getitems__([range(len(self))[place]])[0]

    def __getitems__(self, places: Sequence[int]) -> list[CachedSample]:
        """Returns several samples, as a loader asks for them."""
        chosen = list(places)
        videos, numbers = self.samples.video[chosen], self.samples.number[chosen].tolist()
        audio, visual = (self._read(names, videos) for names in self.names)
        lengths = self.cache.lengths[videos].tolist()
        return list(map(CachedSample, audio, visual, self.labels[chosen], lengths, numbers))

    def _read(self, names: Sequence[str], videos: NDArray[np.int64]) -> Tensor:
        return torch.cat([torch.from_numpy(self.cache.read(name, videos)).float() for name in names], -1)


class StoreDataset(Dataset[StagedSample]):
    """Samples of a split of a clip store whose video is staged."""

    def __init__(
        self, store: ClipStore, split: str | None = None, frames_per_segment: int = 1, waveform: bool = False
    ) -> None:
        if frames_per_segment < 1:
            raise ConfigError(f"frames_per_segment={frames_per_segment}", hint="take 1 or more")
        self.store, self.waveform = store, waveform
        every = store.dataset.samples
        staged = every.filter(every.is_one_of("video_id", store.staged))
        self.samples = staged if split is None else staged.filter(staged.is_one_of("split", (split,)))
        if not self.samples:
            raise no_sample(f"{store.location.url}: no staged sample", split, staged.texts("split"))
        length_of = store.lengths or dict.fromkeys(store.video_ids, store.grid.segments)
        self.lengths = np.array([length_of[name] for name in self.samples.texts("video_id")], np.int64)
        self.labels = torch.from_numpy(store.dataset.labels(store.grid, self.samples, self.lengths))
        own = evenly_spaced(store.grid.frames_per_segment, frames_per_segment)
        first = range(0, store.grid.frames, store.grid.frames_per_segment)
        self.frames = [start + frame for start in first for frame in own]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: int) -> StagedSample:
        sample, store = self.samples[place], self.store
        frames = torch.from_numpy(store.frames(sample.video_id, self.frames)).permute(0, 3, 1, 2)
        waveform = store.waveform(sample.video_id) if self.waveform else np.empty(0, np.int16)
        return StagedSample(
            frames.reshape(store.grid.segments, -1, *frames.shape[1:]),
            torch.from_numpy(store.log_mel(sample.video_id)),
            torch.from_numpy(waveform).float() / FULL_SCALE,
            self.labels[place],
            int(self.lengths[place]),
            sample.number,
        )
