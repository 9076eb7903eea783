"""What the kill test runs in a process of its own: small parts, every read written down."""

import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from avel.pipeline.caching import cache, encode
from avel.stores import feature_parts as parts

READ = encode.PartEncoder.read
GATHER = parts.Gathered.__getitem__


def make_cache(store: Path, path: Path, run: Path, log: Path, pause_seconds: float = 0) -> None:
    """`cache_features` in parts of two videos, with pauses to be killed in."""
    torch.set_num_threads(1)  # threads that wait for each other on a busy machine cost minutes

    def logged(self: encode.PartEncoder, batch: tuple[int, tuple[str, ...]]) -> encode.Clips:
        with log.open("a") as file:
            file.write("".join(f"{video_id}\n" for video_id in batch[1]))
        time.sleep(pause_seconds)
        return READ(self, batch)

    with mock.patch.object(cache, "PART_VIDEOS", 2), mock.patch.object(encode.PartEncoder, "read", logged):
        cache.cache_features(store, path, encoder=run, batch_size=1)


def stop_in_merge(store: Path, path: Path, run: Path, log: Path, reached: Path, block: int) -> None:
    """`make_cache` that says so when it reads the given block for the merged file, and waits to be killed."""
    blocks = 0

    def waits(self: parts.Gathered, key: slice) -> Any:
        nonlocal blocks
        blocks += 1
        if blocks == block:
            reached.touch()
            time.sleep(600)
        return GATHER(self, key)

    with mock.patch.object(parts.Gathered, "__getitem__", waits):
        make_cache(store, path, run, log)
