"""Samples of caches and stores for code of others: torch datasets, tables and what a notebook shows."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

import avel
from avel.errors import ConfigError, StoreError
from avel.heads.train import train_head
from avel.stores.clips import ClipStore
from avel.stores.datasets.labels import PADDED
from avel.stores.feature_align import GivenFeatures
from avel.stores.features import FeatureCache, write_features
from tests.heads.synthetic import write_cache
from tests.pipeline.caching.small_stores import CONFIG, NAMES, write_store
from tests.samples import cached_samples


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache.open(write_cache(tmp_path / "c.h5", arrays=("f_a", "f_v", "cnn_v", "maps")))


def test_a_loader_reads_the_samples_of_a_split(cache: FeatureCache) -> None:
    chosen = np.flatnonzero(cache.samples.split == "test")
    videos, labels = cache.samples.video[chosen], cache.labels()[chosen]
    data = avel.as_torch(cache, "test", visual="f_v+cnn_v")
    loader = DataLoader(pickle.loads(pickle.dumps(data)), batch_size=5)
    batches = list(loader)
    assert [len(batch.number) for batch in batches] == [5, 5, 2]
    audio, visual, found, lengths, numbers = (
        torch.cat([getattr(batch, name) for batch in batches]).numpy() for name in batches[0]._fields
    )
    np.testing.assert_array_equal(audio, cache.read("f_a")[videos])
    joined = np.concatenate([cache.read("f_v"), cache.read("cnn_v")], -1)
    np.testing.assert_array_equal(visual, joined[videos])
    np.testing.assert_array_equal(found, labels)
    assert lengths.tolist() == [6] * 12
    assert numbers.tolist() == cache.samples.number[chosen].tolist()
    assert torch.equal(data[-1].audio, torch.from_numpy(audio[-1]))
    assert avel.as_torch(cache, visual="maps")[0].visual.dtype == torch.float32
    assert len(avel.as_torch(cache.path)) == len(cache.samples)
    with pytest.raises(IndexError):
        data[len(data)]
    with pytest.raises(StoreError, match="no 'clip' in this cache"):
        avel.as_torch(cache, "test", visual="clip")
    with pytest.raises(StoreError, match=r"maps \(.*\) cannot be joined"):
        avel.as_torch(cache, "test", visual="f_v+maps")
    with pytest.raises(StoreError, match=r"no sample of split 'tests'\n.*train 36, val 12, test 12"):
        avel.as_torch(cache, "tests")
    empty = write_cache(cache.path.with_name("empty.h5"), samples=0)
    with pytest.raises(StoreError, match=r"no sample\n.*none"):
        avel.as_torch(empty)


def test_a_loader_reads_staged_clips(tmp_path: Path) -> None:
    store = ClipStore.open(write_store(tmp_path / "s.zarr", NAMES, failed=NAMES[4:5]))
    data = avel.as_torch(store, "train", frames_per_segment=2, waveform=True)
    names = [sample.video_id for sample in store.dataset.samples if sample.split == "train"]
    assert [sample.video_id for sample in data.samples] == [name for name in names if name in store.staged]
    batch = next(iter(DataLoader(data, batch_size=3)))
    size, grid = CONFIG.size, store.grid
    assert batch.frames.shape == (3, grid.segments, 2, 3, size, size)
    numbers = [4 * segment + frame for segment in range(grid.segments) for frame in (1, 3)]
    wanted = store.frames(data.samples[1].video_id, numbers)
    np.testing.assert_array_equal(batch.frames[1].flatten(0, 1).permute(0, 2, 3, 1), wanted)
    np.testing.assert_array_equal(batch.log_mel[1], store.log_mel(data.samples[1].video_id))
    np.testing.assert_allclose(batch.waveform[1], store.waveform(data.samples[1].video_id) / 2**15)
    np.testing.assert_array_equal(batch.labels, store.dataset.labels(grid, data.samples[:3]))
    assert avel.as_torch(store)[0].waveform.shape == (0,)
    with pytest.raises(StoreError, match="no staged sample of split 'tests'"):
        avel.as_torch(store, "tests")
    with pytest.raises(ConfigError, match="frames_per_segment=0"):
        avel.as_torch(store, frames_per_segment=0)


def test_staged_clips_of_lengths_of_their_own_keep_them(tmp_path: Path) -> None:
    seconds = {name: 1.0 + place % 3 for place, name in enumerate(NAMES)}
    data = avel.as_torch(write_store(tmp_path / "s.zarr", NAMES, seconds=seconds))
    lengths = [sample.length for sample in data]
    assert lengths == [seconds[sample.video_id] for sample in data.samples]
    assert [int((sample.labels != PADDED).sum()) for sample in data] == lengths


def test_a_split_is_an_array_or_a_table(cache: FeatureCache) -> None:
    chosen = np.flatnonzero(cache.samples.split == "val")
    np.testing.assert_array_equal(cache.of_split("val", "f_a"), cache.f_a[cache.samples.video[chosen]])
    table = avel.as_table(cache, "val", "f_a", "f_v")
    assert table.column_names[-3:] == ["classes", "f_a", "f_v"]
    assert table.schema.field("f_a").type == pa.list_(pa.float32(), 12)
    assert len(table) == len(chosen) * 6
    vectors = np.array(table["f_v"].to_pylist(), np.float32)
    np.testing.assert_array_equal(vectors, cache.of_split("val", "f_v").reshape(-1, 12))
    names = [*([category] for category in cache.categories), []]
    assert table["classes"].to_pylist() == [names[label] for label in cache.labels()[chosen].ravel()]
    assert table["segment"].to_pylist() == list(range(6)) * len(chosen)
    with pytest.raises(StoreError, match="maps holds maps"):
        avel.as_table(cache, "val", "maps")
    with pytest.raises(StoreError, match="the table has another column named 'split'"):
        avel.as_table(cache, "val", "split")


def test_a_cache_without_event_classes_is_a_table_too(tmp_path: Path) -> None:
    arrays = {name: np.zeros((2, 3, 4), np.float32) for name in ("f_a", "f_v")}
    samples = cached_samples(np.zeros((2, 3), np.int64), 0)
    write_features(tmp_path / "c.h5", video_ids=("a", "b"), categories=(), samples=samples, arrays=arrays)
    assert avel.as_table(tmp_path / "c.h5")["classes"].to_pylist() == [[]] * 6


def test_clips_of_lengths_of_their_own_keep_them(tmp_path: Path) -> None:
    lengths = np.arange(59) % 6 + 1
    cache = FeatureCache.open(write_cache(tmp_path / "c.h5", lengths=lengths))
    videos = cache.samples.video
    assert [sample.length for sample in avel.as_torch(cache)] == lengths[videos].tolist()
    table = avel.as_table(cache, None, "f_a")
    assert len(table) == lengths[videos].sum()
    last = [cache.f_a[video, lengths[video] - 1].tolist() for video in videos]
    ends = np.cumsum(lengths[videos]) - 1
    assert [table["f_a"][int(end)].as_py() for end in ends] == last
    (tmp_path / "clap").mkdir()
    for place, video_id in enumerate(cache.video_ids):
        np.save(tmp_path / "clap" / f"{video_id}.npy", np.full((2 * lengths[place], 3), place + 1.0))
    given = GivenFeatures(tmp_path / "clap", "clap", hop_seconds=0.5)
    avel.import_features(None, cache.path, audio=given)
    found = FeatureCache.open(cache.path)
    assert found.digest == cache.digest
    within = np.arange(6) < lengths[:, None]
    np.testing.assert_array_equal(found.read("clap")[..., 0], np.where(within, np.arange(59)[:, None] + 1, 0))


def test_what_a_notebook_shows_says_what_one_wants_to_know(cache: FeatureCache, tmp_path: Path) -> None:
    store = ClipStore.open(write_store(tmp_path / "s.zarr", NAMES, failed=NAMES[4:5]))
    results = train_head(cache.path, tmp_path / "<run>", head="mlp", epochs=1)
    run = avel.open(tmp_path / "<run>")
    for shown, *facts in (
        (cache, ">59<", "6 segments of 1 s", "train 36, val 12, test 12", "59 x 6 x 2 x 2 x 14"),
        (store, "10 staged of 11", "3 segments of 1 s", "bark, bell, horn"),
        (run, "avel train-head", "finished on"),
        (results, "&lt;run&gt;", results.headline()[:12]),
    ):
        text = shown._repr_html_()
        assert not [fact for fact in facts if fact not in text], text
    assert repr(results) == f"<Evaluation {tmp_path / '<run>'}, test: {results.headline()}>"
