"""What the kill test runs in a process of its own: small parts, every read written down."""

import time
from pathlib import Path
from unittest import mock

from avel.pipeline import cache, encode

READ = encode.PartEncoder.read


def make_cache(store: Path, path: Path, run: Path, log: Path) -> None:
    """`cache_features` in parts of two videos, slowly enough to be killed in the middle."""

    def logged(self: encode.PartEncoder, batch: tuple[int, tuple[str, ...]]) -> encode.Clips:
        with log.open("a") as file:
            file.write("".join(f"{video_id}\n" for video_id in batch[1]))
        time.sleep(0.01)
        return READ(self, batch)

    with mock.patch.object(cache, "PART_VIDEOS", 2), mock.patch.object(encode.PartEncoder, "read", logged):
        cache.cache_features(store, path, encoder=run, batch_clips=1)
