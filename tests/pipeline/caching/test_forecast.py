"""What encoding takes is told beforehand where it is long, and refused where memory cannot hold it."""

from pathlib import Path
from typing import Any

import pytest

from avel import forecast as ground
from avel.errors import ConfigError
from avel.pipeline.caching import forecast
from avel.pipeline.caching.cache import cache_features
from tests.pipeline.caching.small_stores import RANDOM_TINY

BACKBONES: dict[str, Any] = {**RANDOM_TINY, "device": "cpu", "workers": 1}


def test_a_batch_that_does_not_fit_is_refused_with_the_one_that_does(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = 3 * 32**2  # bytes as it is read: of the batch that is encoded, and of three that are read ahead
    image = frame * 4 * 2  # bytes as floats, as read and as laid out for the CNN
    clip = 3 * 2 * (frame * (1 + 3) + image)  # three segments, two frames of each
    monkeypatch.setattr(forecast, "free_memory_gb", lambda: 5.5 * clip / 0.9 / 2**30)
    with pytest.raises(ConfigError, match="encoding 8 clips at once takes about") as caught:
        cache_features(store, tmp_path / "a.h5", **BACKBONES, frames_per_segment=2, crop_size=32)
    assert caught.value.hint == "--batch-size 5, or fewer --workers"
    made = cache_features(
        store, tmp_path / "a.h5", **BACKBONES, frames_per_segment=2, crop_size=32, batch_size=5
    )
    assert made.encoded == 10
    monkeypatch.setattr(forecast, "free_memory_gb", lambda: 0.5 * clip / 0.9 / 2**30)
    with pytest.raises(ConfigError) as caught:
        cache_features(store, tmp_path / "b.h5", **BACKBONES, frames_per_segment=2, crop_size=32)
    assert caught.value.hint == "a smaller --frames-per-segment, or fewer --workers"


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
