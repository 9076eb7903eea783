"""The feature cache on a dask cluster and on several devices: the file is the one made alone."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from distributed.comm import CommClosedError

from avel.config import as_dict
from avel.errors import ConfigError
from avel.pipeline.caching import cache as module
from avel.pipeline.caching import workers
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.caching.encode import Encoded, Work
from avel.pipeline.caching.request import make_request
from avel.pipeline.caching.workers import devices_of
from avel.pipeline.staging.cluster import SchedulerLostError
from avel.stores.clips import ClipStore
from avel.stores.feature_parts import Parts
from avel.stores.features import FeatureCache
from tests.pipeline.caching.small_stores import RANDOM_TINY, encoder_run, write_store
from tests.pipeline.configs import cache_config
from tests.pipeline.encoders.test_hub import COMMIT, image

TINY = {**RANDOM_TINY, "crop_size": 28, "workers": 1}


@pytest.fixture(autouse=True)
def one_thread_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes that are started from here."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@contextmanager
def local_cluster(workers: int, threads: int) -> Iterator[str]:
    """Address of a dask cluster in this process; each worker has `threads`."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        processes=False,
        dashboard_address=None,
        silence_logs=logging.ERROR,
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
def test_workers_of_a_cluster_make_the_same_file(tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips.zarr", [f"v{number}" for number in range(10)], failed=("v3",))
    alone, shared = tmp_path / "alone.h5", tmp_path / "shared.h5"
    with mock.patch.object(module, "PART_VIDEOS", 2):
        with local_cluster(2, 2) as address:
            summary = cache_features(store, shared, scheduler=address, **TINY)
        cache_features(store, alone, **TINY)
    assert (summary.encoded, summary.videos) == (9, 9)
    assert FeatureCache.open(shared).digest == FeatureCache.open(alone).digest
    assert not list(tmp_path.glob(".*.parts"))


@pytest.mark.slow
def test_a_second_call_on_a_cluster_reads_the_store_anew(tmp_path: Path) -> None:
    store, cache = write_store(tmp_path / "clips.zarr", ["v0", "v1"]), tmp_path / "c.h5"
    with local_cluster(1, 1) as address:
        cache_features(store, cache, scheduler=address, **TINY)
        write_store(store, ["new"])
        summary = cache_features(store, cache, scheduler=address, **TINY)
    assert (summary.encoded, summary.kept, summary.failed) == (1, 2, {})


@pytest.mark.slow
def test_workers_of_one_host_share_its_devices_and_need_no_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path / "clips.zarr", [f"v{number}" for number in range(10)])
    encoder_run(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    used, given = set(), []

    class Zeros:
        """In the place of an encoder."""

        def __init__(self, work: Work, device: str) -> None:
            used.add(device)
            given.extend([work.store, str(work.encoder), str(work.parts.folder)])

        def parts(self, parts: list[tuple[str, ...]]) -> Iterator[Encoded]:
            for names in parts:
                time.sleep(0.05)
                zeros = np.zeros((len(names), 3, 16), np.float32)
                yield Encoded(names, {"f_a": zeros, "f_v": zeros}, {}, "cnn", "cpu")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workers, "PartEncoder", Zeros)
    with mock.patch.object(module, "PART_VIDEOS", 2), local_cluster(2, 1) as address:
        cache_features(
            "clips.zarr", "c.h5", encoder="run", scheduler=address, device="cpu,cpu:0", crop_size=28
        )
    assert used == {"cpu", "cpu:0"}
    assert all(Path(path).is_absolute() for path in given)
    assert len(FeatureCache.open(tmp_path / "c.h5").video_ids) == 10


def test_paths_are_whole_in_what_other_processes_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path / "clips.zarr", ["a"])
    (tmp_path / "weights.pth").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    config = cache_config(visual_weights="weights.pth", audio_weights="random")
    task = make_request(ClipStore.open("clips.zarr"), Path("c.h5"), None, config)
    work = task.work(Parts(tmp_path))
    assert work.store == str(tmp_path / "clips.zarr")
    assert work.config.visual.weights == str(tmp_path / "weights.pth")
    assert work.config.audio.weights == "random"
    (tmp_path / "clip").mkdir()
    models = cache_config(visual_backbone="hf:clip", audio_backbone="hf:its/name-on-the-hub")
    recorded = {"visual": {"hf": {"revision": "folder-12ab"}}, "audio": {"hf": {"revision": COMMIT}}}
    request = replace(task, config=models, recipe={"encoder": recorded})
    config = request.work(Parts(tmp_path)).config
    assert as_dict(config.visual)["hf"] == {"model": str(tmp_path / "clip"), "revision": "folder-12ab"}
    audio = as_dict(config.audio)["hf"]
    assert (audio["model"], audio["revision"]) == ("its/name-on-the-hub", COMMIT)


def test_all_workers_take_the_revision_that_was_the_newest_when_the_call_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers", reason="pip install 'avel[hf]'")
    hub = pytest.importorskip("huggingface_hub", reason="pip install 'avel[hf]'")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    newest = tmp_path / "hub" / "models--some--clip" / "refs" / "main"
    newest.parent.mkdir(parents=True)
    for commit in (COMMIT, COMMIT[::-1]):
        kept = newest.parents[1] / "snapshots" / commit
        kept.mkdir(parents=True)
        (image(kept) / "config.json").write_text("{}")
        (kept / "model.safetensors").touch()
    newest.write_text(COMMIT)
    write_store(tmp_path / "clips.zarr", ["a"])
    config = cache_config(visual_backbone="hf:some/clip", audio_backbone="tiny", audio_weights="random")
    request = make_request(ClipStore.open(tmp_path / "clips.zarr"), tmp_path / "c.h5", None, config)
    newest.write_text(COMMIT[::-1])  # what another machine would find
    sent = as_dict(request.work(Parts(tmp_path)).config.visual)
    assert sent["hf"]["revision"] == request.recipe["encoder"]["visual"]["hf"]["revision"] == COMMIT


class LostClient:
    """In the place of a client whose scheduler has no worker, and then goes."""

    cluster = None
    scheduler = SimpleNamespace(address="tcp://127.0.0.1:1")

    def wait_for_workers(self, count: int, timeout: float) -> None:
        raise TimeoutError

    def map(self, *_: object, **__: object) -> None:
        raise CommClosedError("closed")


def test_a_scheduler_without_workers_is_named_and_one_that_goes_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(tmp_path / "clips.zarr", ["a"])
    monkeypatch.setattr(
        "avel.pipeline.staging.cluster.cluster", lambda threads, scheduler: nullcontext(LostClient())
    )
    with pytest.raises(SchedulerLostError, match=r"tcp://127\.0\.0\.1:1 is gone: closed"):
        cache_features(store, tmp_path / "c.h5", scheduler="tcp://127.0.0.1:1", **TINY)
    assert "tcp://127.0.0.1:1 has no worker yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("gpu", "no device"),
        ("cpu,tpu", "no device named 'tpu'"),
        ("cuda:99", "'cuda:99' is not there: torch finds"),
    ],
)
def test_a_device_that_is_not_there_is_named(tmp_path: Path, asked: str, words: str) -> None:
    store = write_store(tmp_path / "clips.zarr", ["a"])
    with pytest.raises(ConfigError, match=words):
        cache_features(store, tmp_path / "c.h5", device=asked, **TINY)


def test_auto_is_every_gpu_or_the_cpu() -> None:
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    assert devices_of("auto") == (gpus or ["cpu"])
    if not gpus:
        with pytest.raises(ConfigError, match="'cuda' is not there: torch finds no GPU"):
            devices_of("cuda")


@pytest.mark.slow
def test_one_process_a_device_makes_the_same_file(tmp_path: Path) -> None:
    store = write_store(tmp_path / "clips.zarr", [f"v{number}" for number in range(10)])
    alone, shared = tmp_path / "alone.h5", tmp_path / "shared.h5"
    with mock.patch.object(module, "PART_VIDEOS", 2):
        summary = cache_features(store, shared, device="cpu,cpu", **TINY)
        cache_features(store, alone, device="cpu", **TINY)
    assert summary.encoded == 10
    assert FeatureCache.open(shared).digest == FeatureCache.open(alone).digest
