"""Reads frames, audio and videos of clips from the clip store of a feature cache."""

import os
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avel.errors import AvelError, StaleError
from avel.progress import note
from avel.stores.clips import ClipStore
from avel.stores.features import FeatureCache
from avel.stores.files import sha256_file
from avel.text import plural


@dataclass(frozen=True)
class Footage:
    """Frames, audio and videos of clips; None or empty where there is no store."""

    store: ClipStore | None
    segments: int

    @cached_property
    def videos(self) -> dict[str, Path]:
        """Returns video id -> its file, where there is one below the folder of the dataset."""
        if self.store is None:
            return {}
        # A store that somebody sent must not make a report link or copy other files of this machine
        root = os.path.abspath(self.store.dataset.root)
        paths = ((video.video_id, Path(video.path)) for video in self.store.dataset.videos if video.path)
        return {
            video_id: path
            for video_id, path in paths
            if Path(os.path.abspath(path)).is_relative_to(root) and path.is_file()
        }

    def is_original(self, video_id: str) -> bool:
        """Returns whether a video's file still has the SHA-256 with which the clip was staged."""
        if self.store is None or video_id not in self.staged:
            return False
        return sha256_file(self.videos[video_id]) == self.store.entries[video_id].source_sha256

    @cached_property
    def staged(self) -> frozenset[str]:
        """Returns the ids of the clips whose frames and audio can be shown."""
        return frozenset(self.store.staged) if self.store else frozenset()

    def frames(self, video_id: str) -> NDArray[np.uint8] | None:
        """Returns the middle frame of each segment, (T, H, W, C) uint8; None where the clip is not staged.

        There are fewer than T where clips have lengths of their own.
        """
        if self.store is None or video_id not in self.staged:
            return None
        count = self.store.grid.frames_per_segment
        return self.store.frames(video_id, range(count // 2, self._length(video_id) * count, count))

    def log_mel(self, video_id: str) -> NDArray[np.float32] | None:
        """Returns the log-mel patches, (T, 96, 64); None where the clip is not staged."""
        if self.store is None or video_id not in self.staged:
            return None
        return self.store.log_mel(video_id)[: self._length(video_id)]

    def _length(self, video_id: str) -> int:
        """Returns how many segments a clip has."""
        lengths = self.store.lengths if self.store is not None else None
        return self.segments if lengths is None else min(self.segments, lengths[video_id])


def open_footage(cache: FeatureCache, store: Path | str | None = None) -> Footage:
    """Opens the store that is given, or the one that a cache was made from; notes it if that one is gone.

    Raises:
        AvelError: `store` was given and cannot be opened, or its clips have other segments than the cache.
    """
    opened, place = None, cache.inputs.store
    if store is not None:
        opened = _open(store, cache)
    elif place is not None and "://" in place:
        # A file that somebody sent must not make this machine connect anywhere
        note(f"frames, audio and videos are left out: --store {shlex.quote(place)} reads them from there")
    elif place is not None:
        try:
            opened = _open(place, cache)
        except AvelError as error:
            note(f"frames, audio and videos are left out: {error.message}")
    return Footage(opened, cache.grid_segments)


def _open(place: Path | str, cache: FeatureCache) -> ClipStore:
    """Opens a store; its segments must be as long as those of the cache, and as many or more."""
    store = ClipStore.open(place)
    grid, seconds = store.grid, cache.segment_seconds
    if grid.segment_seconds != seconds or grid.segments < cache.grid_segments:
        raise StaleError(
            f"{place}: has {plural(grid.segments, 'segment')} of {grid.segment_seconds:g} s, "
            f"{cache.path} has {cache.grid_segments} of {seconds:g} s",
            hint="name the store that the cache was made from with --store",
        )
    return store
