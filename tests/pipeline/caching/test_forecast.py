"""What encoding takes is told beforehand where it is long, and refused where memory cannot hold it."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from avel import forecast as ground
from avel.errors import ConfigError
from avel.pipeline.caching import forecast
from avel.pipeline.caching.cache import cache_features
from tests.pipeline.caching.small_stores import RANDOM_TINY, write_store

BACKBONES: dict[str, Any] = {**RANDOM_TINY, "device": "cpu", "workers": 1}


@pytest.mark.parametrize(("crop_size", "resized"), [(32, False), (48, True)])
def test_a_batch_that_does_not_fit_is_refused_with_the_one_that_does(
    crop_size: int, resized: bool, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {**BACKBONES, "frames_per_segment": 2, "crop_size": crop_size}
    frame, patch = 3 * 32**2, 4 * 96 * 64  # bytes as they are read
    image = 3 * crop_size**2
    prepared = 4 * (frame + 3 * image) if resized else 2 * image
    read = (2 * frame + patch) * (1 + 3)  # of the batch that is encoded, and of three that are read ahead
    clip = 3 * (read + 2 * prepared)  # three segments, two frames of each
    in_cnns = needed(store, tmp_path, monkeypatch, options | {"batch_size": 1}) - clip
    assert needed(store, tmp_path, monkeypatch, options | {"batch_size": 4}) == in_cnns + 4 * clip

    monkeypatch.setattr(forecast, "free_memory", lambda: (in_cnns + 5.5 * clip) / 0.9)
    with pytest.raises(ConfigError, match=r"encoding 8 clips at once takes about .* MB of memory") as caught:
        cache_features(store, tmp_path / "a.h5", **options)
    assert caught.value.hint == "--batch-size 5, or fewer --workers"
    assert cache_features(store, tmp_path / "a.h5", **options, batch_size=5).encoded == 10
    monkeypatch.setattr(forecast, "free_memory", lambda: (in_cnns + 0.5 * clip) / 0.9)
    with pytest.raises(ConfigError) as caught:
        cache_features(store, tmp_path / "b.h5", **options)
    assert caught.value.hint == "a smaller --frames-per-segment, or fewer --workers"


def needed(store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> float:
    """The bytes that a batch is said to take."""
    found: list[float] = []

    def shortage(work: str, needed_bytes: float, free_bytes: float) -> str:
        found.append(needed_bytes)
        return "too much"

    with monkeypatch.context() as patch:
        patch.setattr(forecast, "shortage", shortage)
        with pytest.raises(ConfigError):
            cache_features(store, folder / "needed.h5", **options)
    return found[0]


def test_what_the_cnns_hold_is_counted(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (
        needed(store, tmp_path, monkeypatch, {**BACKBONES, "crop_size": 32, "batch_size": 1} | backbone)
        for backbone in ({}, {"visual_backbone": "mobilenet_v2"})
    )
    at_once = 8 * 224**2 // 32**2
    assert large - small > at_once * 4 * 2 * 96 * 16**2, "in and out of the activation of its widest layer"


def test_the_largest_operation_is_found() -> None:
    layer = torch.nn.Linear(10, 1000)
    values = torch.zeros(8, 10)
    with torch.inference_mode():
        found = ground.largest_operation_bytes(lambda: layer(values).relu(), layer.parameters())
    assert found == 4 * 8 * 1000 * 2


def test_a_short_first_clip_stands_for_as_many_seconds_as_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"short": 1.0, "b": 3.0, "c": 2.0, "d": 2.0}
    store = write_store(tmp_path / "clips.zarr", tuple(seconds), seconds=seconds)
    monkeypatch.setattr(forecast, "LONG_CLIPS", 1)
    monkeypatch.setattr(forecast, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    told: list[Any] = []
    monkeypatch.setattr(forecast, "note_long", lambda *given: told.extend(given[:2]))
    cache_features(store, tmp_path / "c.h5", **BACKBONES)
    assert told == [8.0, "4 clips, 2.0 s each"], "as a segment took 1 s"


def test_long_encoding_is_told_beforehand_and_changes_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = cache_features(store, tmp_path / "plain.h5", **BACKBONES)
    assert "on this CPU" not in capsys.readouterr().err
    monkeypatch.setattr(forecast, "LONG_CLIPS", 1)
    monkeypatch.setattr(ground, "LONG_SECONDS", 0.0)
    told = cache_features(store, tmp_path / "told.h5", **BACKBONES)
    assert "on this CPU for 10 clips, " in capsys.readouterr().err
    assert told.digest == plain.digest
