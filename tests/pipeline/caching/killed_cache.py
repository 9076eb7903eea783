"""What the kill test runs in a process of its own: small parts, every read written down."""

import time
from pathlib import Path
from unittest import mock

import torch

from avel.pipeline.caching import cache, encode

READ = encode.PartEncoder.read


def make_cache(store: Path, path: Path, run: Path, log: Path, pause_seconds: float = 0) -> None:
    """`cache_features` in parts of two videos, with pauses to be killed in."""
    torch.set_num_threads(1)  # threads that wait for each other on a busy machine cost minutes

    def logged(self: encode.PartEncoder, batch: tuple[int, tuple[str, ...]]) -> encode.Clips:
        with log.open("a") as file:
            file.write("".join(f"{video_id}\n" for video_id in batch[1]))
        time.sleep(pause_seconds)
        return READ(self, batch)

    with mock.patch.object(cache, "PART_VIDEOS", 2), mock.patch.object(encode.PartEncoder, "read", logged):
        cache.cache_features(store, path, encoder=run, batch_clips=1)
