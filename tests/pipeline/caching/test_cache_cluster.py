"""The feature cache on a dask cluster and on several devices: the file is the one made alone."""

import logging
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch

from avel.pipeline.caching import cache as module
from avel.pipeline.caching.cache import cache_features
from avel.stores.features import FeatureCache
from tests.pipeline.caching.small_stores import write_store

TINY = {"visual_backbone": "tiny", "audio_backbone": "tiny", "crop_size": 28, "workers": 1}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Here and in processes that are started from here."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_workers_of_a_cluster_make_the_same_file(tmp_path: Path) -> None:
    from distributed import LocalCluster

    store = write_store(tmp_path / "clips.zarr", [f"v{number}" for number in range(10)], failed=("v3",))
    alone, shared = tmp_path / "alone.h5", tmp_path / "shared.h5"
    with mock.patch.object(module, "PART_VIDEOS", 2):
        with LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=False,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        ) as cluster:
            summary = cache_features(store, shared, scheduler=cluster.scheduler_address, **TINY)
        cache_features(store, alone, **TINY)
    assert (summary.encoded, summary.videos) == (9, 9)
    assert FeatureCache.open(shared).digest == FeatureCache.open(alone).digest
    assert not list(tmp_path.glob(".*.parts"))


@pytest.mark.slow
def test_one_process_a_device_makes_the_same_file(tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips.zarr", [f"v{number}" for number in range(10)])
    alone, shared = tmp_path / "alone.h5", tmp_path / "shared.h5"
    with mock.patch.object(module, "PART_VIDEOS", 2):
        summary = cache_features(store, shared, device="cpu,cpu", **TINY)
        cache_features(store, alone, device="cpu", **TINY)
    assert summary.encoded == 10
    assert FeatureCache.open(shared).digest == FeatureCache.open(alone).digest
