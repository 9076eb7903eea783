"""CNN vectors taken from another cache: the same features, or a refusal that names what differs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avel.errors import ConfigError, StaleError
from avel.pipeline.caching.cache import cache_features
from avel.stores.clips import ClipStore
from avel.stores.features import FeatureCache
from tests.pipeline.caching.small_stores import NAMES, encoder_run, write_store


def cnn_cache(store: Path, path: Path, encoder: Path, **options: Any) -> Path:
    cache_features(store, path, encoder=encoder, keep_cnn=True, **options)
    return path


def test_cnn_vectors_of_another_cache_give_the_same_features(
    store: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = cnn_cache(store, tmp_path / "vectors.h5", encoder_run(tmp_path / "start", hidden=4))
    cache_features(store, tmp_path / "whole.h5", encoder=run)
    whole = FeatureCache.open(tmp_path / "whole.h5")

    def unread(*args: Any) -> Any:
        raise AssertionError("a frame was read")

    monkeypatch.setattr(ClipStore, "frames", unread)
    summary = cache_features(store, tmp_path / "quick.h5", encoder=run, cnn_from=vectors)
    quick = FeatureCache.open(tmp_path / "quick.h5")
    assert summary.encoded == len(NAMES) - 1
    assert quick.provenance["cnn"] == whole.provenance["cnn"]
    np.testing.assert_allclose(quick.f_a, whole.f_a, atol=1e-6)
    np.testing.assert_allclose(quick.f_v, whole.f_v, atol=1e-6)
    assert cache_features(store, tmp_path / "quick.h5", encoder=run).encoded == 0, "the same cache to avel"


def test_cnn_vectors_of_other_cnns_are_refused(store: Path, run: Path, tmp_path: Path) -> None:
    vectors = cnn_cache(store, tmp_path / "vectors.h5", encoder_run(tmp_path / "other", seed=1))
    with pytest.raises(StaleError, match="other CNNs"):
        cache_features(store, tmp_path / "quick.h5", encoder=run, cnn_from=vectors)
    assert not (tmp_path / "quick.h5").exists()


def test_cnn_vectors_of_other_frames_or_fewer_clips_are_refused(
    store: Path, run: Path, tmp_path: Path
) -> None:
    vectors = cnn_cache(store, tmp_path / "vectors.h5", run, frames_per_segment=3)
    with pytest.raises(StaleError, match=r"preprocessing\.frames"):
        cache_features(store, tmp_path / "quick.h5", encoder=run, cnn_from=vectors)
    vectors = cnn_cache(store, tmp_path / "few.h5", run)
    write_store(store, [*NAMES, "new"])
    with pytest.raises(StaleError, match="has none of clips that are new or have changed: -v4, new"):
        cache_features(store, tmp_path / "quick.h5", encoder=run, cnn_from=vectors)
    without = tmp_path / "without.h5"
    cache_features(store, without, encoder=run)
    with pytest.raises(StaleError, match="no cnn_a"):
        cache_features(store, tmp_path / "quick.h5", encoder=run, cnn_from=without)


def test_maps_are_not_taken_from_vectors(store: Path, run: Path, tmp_path: Path) -> None:
    vectors = cnn_cache(store, tmp_path / "vectors.h5", run)
    with pytest.raises(ConfigError, match="maps"):
        cache_features(store, tmp_path / "quick.h5", encoder=run, cnn_from=vectors, keep_maps=True)
