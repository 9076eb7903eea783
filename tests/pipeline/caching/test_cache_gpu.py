"""The feature cache on GPUs: the numbers of the CPU, whatever the dtype and however many devices."""

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from avel.pipeline.caching import cache as module
from avel.pipeline.caching.cache import cache_features
from avel.stores.features import FeatureCache
from tests.pipeline.caching.small_stores import RANDOM_TINY, write_store

pytestmark = pytest.mark.gpu
TINY = {**RANDOM_TINY, "crop_size": 28}


@pytest.fixture(autouse=True)
def as_float32() -> Iterator[None]:
    """Computes float32 as such, not as TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    with mock.patch.object(torch, "set_float32_matmul_precision"):
        yield
    torch.backends.cudnn.allow_tf32 = before


def features(store: Path, path: Path, encoder: Path, **options: str) -> FeatureCache:
    cache_features(store, path, encoder=encoder, keep_maps=True, **{"dtype": "float32"} | options)
    return FeatureCache.open(path)


def test_features_of_a_gpu_are_those_of_the_cpu(store: Path, run: Path, tmp_path: Path) -> None:
    there = features(store, tmp_path / "gpu.h5", run, device="cuda:0")
    here = features(store, tmp_path / "cpu.h5", run, device="cpu")
    assert there.video_ids == here.video_ids
    for name in ("f_a", "f_v", "cnn_a", "cnn_v"):
        np.testing.assert_allclose(there.read(name), here.read(name), atol=1e-4, rtol=1e-3, err_msg=name)
    np.testing.assert_allclose(there.read("maps"), here.read("maps"), atol=5e-3, rtol=5e-3)


def test_bfloat16_of_a_gpu_points_where_float32_does(store: Path, run: Path, tmp_path: Path) -> None:
    full = features(store, tmp_path / "float32.h5", run, device="cuda:0")
    half = features(store, tmp_path / "bfloat16.h5", run, device="cuda:0", dtype="bfloat16")
    for name in ("f_a", "f_v", "cnn_a", "cnn_v"):
        a, b = full.read(name).astype(np.float64), half.read(name).astype(np.float64)
        assert not np.array_equal(a, b), name
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        assert cosine.min() > 0.99, name


def test_auto_takes_a_gpu(store: Path, run: Path, tmp_path: Path) -> None:
    chosen = features(store, tmp_path / "auto.h5", run, device="auto")
    named = features(store, tmp_path / "named.h5", run, device="cuda:0")
    np.testing.assert_allclose(chosen.f_v, named.f_v, atol=1e-5)


@pytest.mark.slow
def test_two_gpus_make_the_file_of_one(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("fewer than two CUDA devices")
    store = write_store(tmp_path / "clips.zarr", [f"v{number}" for number in range(10)])
    with mock.patch.object(module, "PART_VIDEOS", 2):
        cache_features(store, tmp_path / "two.h5", device="cuda:0,cuda:1", **TINY)
        # In other processes, too: these compute in TF32, whatever is set here
        cache_features(store, tmp_path / "one.h5", device="cuda:0,cuda:0", **TINY)
    two, one = (FeatureCache.open(tmp_path / f"{name}.h5") for name in ("two", "one"))
    assert two.digest == one.digest
