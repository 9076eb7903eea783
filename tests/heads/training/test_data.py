"""What the heads read of a cache, in memory or streamed; and what they refuse before training."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from avel.errors import StoreError, TrainingError
from avel.heads.config import TrainConfig
from avel.heads.training.data import choose_inputs
from avel.stores.features import FeatureCache
from tests.heads.synthetic import load_data, train_config, write_cache

CPU = torch.device("cpu")
ALL = ("f_a", "f_v", "cnn_a", "cnn_v", "maps")


def load(path: Path, config: TrainConfig | None = None, **changes: Any) -> Any:
    cache = FeatureCache.open(write_cache(path / "c.h5", **changes))
    return load_data(cache, config or train_config())


def test_samples_that_share_a_video_share_its_features_not_its_labels(tmp_path: Path) -> None:
    test = load(tmp_path).splits["test"]
    assert test.videos[-1] == test.videos[-2]
    assert not torch.equal(test.labels[-1], test.labels[-2])
    assert test.number.tolist() == list(range(148, 160))
    assert test.leaked.tolist() == [False] * 11 + [True]


@pytest.mark.parametrize("head", ["tacma", "psp", "bilstm"])
def test_streamed_features_equal_those_in_memory(head: str, tmp_path: Path) -> None:
    held = load(tmp_path, train_config(head=head), arrays=ALL)
    streamed = load(tmp_path, train_config(head=head, memory_gb=0), arrays=ALL)
    assert held.features.tensors is not None
    assert streamed.features.tensors is None
    assert held.widths == streamed.widths
    assert held.widths.segments == 6
    chunks = [torch.tensor([5, 2, 5]), torch.tensor([[0, 1], [7, 3]])]
    for one, other in zip(held.features.batches(chunks), streamed.features.batches(chunks), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("memory_gb", [None, 0.0], ids=["held", "streamed"])
def test_features_are_read_in_small_blocks(
    memory_gb: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, most = FeatureCache.read, 4000
    blocks: list[np.ndarray] = []

    def noted(self: FeatureCache, name: str, videos: np.ndarray | None = None) -> np.ndarray:
        blocks.append(read(self, name, videos))
        return blocks[-1]

    monkeypatch.setattr(FeatureCache, "read", noted)
    monkeypatch.setattr("avel.heads.training.data.BLOCK_BYTES", most)
    joined = train_config(audio="f_a+cnn_a", visual="f_v", memory_gb=memory_gb)
    features = load(tmp_path, joined, arrays=ALL).features
    assert 0 < max(block.nbytes for block in blocks) <= most
    monkeypatch.undo()
    cache = features.cache
    audio, visual = features.of(torch.arange(len(cache)))
    assert audio.numpy().tolist() == np.concatenate([cache.f_a, cache.read("cnn_a")], -1).tolist()
    assert visual.numpy().tolist() == cache.f_v.tolist()


def test_a_head_takes_the_best_inputs_that_are_there(tmp_path: Path) -> None:
    caches = {
        arrays: FeatureCache.open(write_cache(tmp_path / f"{len(arrays)}.h5", arrays=arrays))
        for arrays in (ALL, ALL[:4], ALL[:2])
    }
    psp = train_config(head="psp")
    assert [choose_inputs(cache, psp) for cache in caches.values()] == ["maps", "cnn", "encoded"]
    chosen = train_config(head="psp", inputs="encoded")
    assert choose_inputs(caches[ALL], chosen) == "encoded"
    with pytest.raises(TrainingError, match="needs cnn_a and cnn_v, the cache holds f_a, f_v"):
        choose_inputs(caches[ALL[:2]], train_config(head="bilstm"))
    with pytest.raises(TrainingError, match="cannot read 'maps'"):
        choose_inputs(caches[ALL], train_config(head="mlp", inputs="maps"))


def unknown(*samples: int) -> np.ndarray:
    """Which samples' events are known: all but these."""
    return ~np.isin(np.arange(60), samples)


def broken_features(samples: int = 60, segments: int = 6) -> np.ndarray:
    values = np.zeros((samples - 1, segments, 12), np.float32)
    values[17, 3, 1] = np.nan
    return values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"f_v": broken_features()}, "f_v of video '-video17' is not finite"),
        (
            {"known": unknown(7, 9, 59)},
            r"events of 2 of 36 train samples are not known, the first is sample 107 \(-video7\)",
        ),
        ({"known": unknown(40)}, r"events of 1 of 12 val samples are not known, the first is sample 140"),
        ({"label": np.full((60, 6), 3)}, "one class only, 'background'"),
        ({"splits": (0.8, 0.8)}, "no sample of split 'val'"),
        ({"splits": (0.0, 0.5)}, "no sample of split 'train'"),
        ({"samples": 0}, "no labels"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=message):
        load(tmp_path, **changes)


@pytest.mark.parametrize("memory_gb", [None, 0.0])
def test_features_are_checked_whether_held_or_streamed(memory_gb: float | None, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="f_v of video '-video17' is not finite"):
        load(tmp_path, train_config(memory_gb=memory_gb), f_v=broken_features())


def test_held_features_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, int]] = []
    real = FeatureCache.read

    def counted(cache: FeatureCache, name: str, videos: Any) -> Any:
        read.append((name, len(videos)))
        return real(cache, name, videos)

    monkeypatch.setattr(FeatureCache, "read", counted)
    load(tmp_path)
    assert [item for item in read if item[1] != 0] == [("f_a", 59), ("f_v", 59)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_maps_count_in_the_number_format_of_the_cache(dtype: Any, tmp_path: Path) -> None:
    maps = np.zeros((59, 6, 2, 2, 14), dtype)
    mb = (59 * 6 * 10 * 4 + maps.nbytes) / 1e6
    arrays = (*ALL[:4], "maps")
    held = {
        limit: load(
            tmp_path, train_config(head="psp", memory_gb=limit / 1e3), arrays=arrays, maps=maps
        ).features.tensors
        for limit in (0.99 * mb, 1.01 * mb)
    }
    assert [value is None for value in held.values()] == [True, False]


def test_videos_of_one_class_teach_nothing_when_only_their_class_is_known(tmp_path: Path) -> None:
    label = np.full((60, 6), 3)
    label[:, 2:4] = np.where(np.arange(60) < 36, 1, 2)[:, None]
    load(tmp_path, label=label)
    with pytest.raises(TrainingError, match="videos of one class only, 'event 1'"):
        load(tmp_path, train_config(supervision="weak"), label=label)


def test_arrays_of_another_number_of_segments_are_refused(tmp_path: Path) -> None:
    path = write_cache(tmp_path / "c.h5")
    with h5py.File(path, "r+") as file:
        values = file["f_v"][:, :4]
        del file["f_v"]
        file["f_v"] = values
    with pytest.raises(StoreError, match=r"f_v is \(59, 4, 12\), not \(59, 6, ...\)"):
        FeatureCache.open(path)
