"""The memory of `avel cache-features` is that of a few parts, whatever the number of clips."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avel.pipeline.caching.cache import cache_features
from avel.pipeline.pretraining.pretrain import pretrain
from avel.stores.features import FeatureCache
from tests.heads.synthetic import write_cache
from tests.pipeline.caching.small_stores import write_store

MAP_CELLS = 32
"""Maps are blown up from 2 to 32 cells a side: 3 x 32 x 32 x 128 float16 are 768 KiB a clip."""
CODE = """
import re, sys
from pathlib import Path
from unittest import mock
import torch
from avel.pipeline.caching import cache, encode
torch.set_num_threads(1)
real = encode.PartEncoder.encode
def larger(self, clips):
    values = real(self, clips)
    return values | {"maps": values["maps"].repeat(1, 1, 16, 16, 1)}
with mock.patch.object(cache, "PART_VIDEOS", 16), mock.patch.object(encode.PartEncoder, "encode", larger):
    cache.cache_features(
        sys.argv[1], sys.argv[2], visual_backbone="tiny", audio_backbone="tiny", visual_weights="random",
        audio_weights="random", crop_size=28, keep_maps=True, device="cpu",
    )
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def peak_mib(folder: Path, clips: int) -> float:
    store = write_store(folder / f"{clips}.zarr", [f"v{number}" for number in range(clips)])
    cache = folder / f"{clips}.h5"
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(store), str(cache)], capture_output=True, text=True, check=True
    )
    assert FeatureCache.open(cache).shapes["maps"] == (clips, 3, MAP_CELLS, MAP_CELLS, 128)
    return int(done.stdout) / 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_clips(tmp_path: Path) -> None:
    few, many = peak_mib(tmp_path, 176), peak_mib(tmp_path, 304)  # after a first growth that ends
    assert many < few + 40  # MiB; the features of the 128 clips more take 96


def peak_since(begin: bool = False) -> int:
    """Most memory of this process in MiB, since the last call with `begin`."""
    if begin:
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


def test_a_cache_made_of_vectors_is_not_held_in_memory(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).random((799, 6, 2048), np.float32)
    source = write_cache(tmp_path / "c.h5", samples=800, splits=(0.01, 0.5), cnn_a=vectors, cnn_v=vectors)
    pretrain(source, tmp_path / "run", epochs=1, warmup_epochs=0, projector="16-16", hidden=4, batch_size=4)
    before = peak_since(begin=True)
    cache_features(source, tmp_path / "made.h5", encoder=tmp_path / "run", keep_cnn=True, device="cpu")
    assert peak_since() < before + 50  # MiB; cnn_a and cnn_v take 75, twice that while they are joined
    np.testing.assert_array_equal(FeatureCache.open(tmp_path / "made.h5").read("cnn_v"), vectors)
    assert {path.name for path in tmp_path.iterdir()} == {"c.h5", "run", "made.h5"}
