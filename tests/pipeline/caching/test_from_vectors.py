"""Features of CNN vectors that a cache holds: the same as of frames, or a refusal that names what differs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avel.errors import ConfigError, StaleError, StoreError
from avel.pipeline.caching.cache import cache_features
from avel.stores.clips import ClipStore
from avel.stores.diff import diff
from avel.stores.features import FeatureCache
from avel.stores.inspection import inspect
from tests.pipeline.caching.small_stores import NAMES, RANDOM_TINY, encoder_run, write_store
from tests.pipeline.caching.test_cache_again import damage, follow


def cnn_cache(store: Path, path: Path, encoder: Path, **options: Any) -> Path:
    cache_features(store, path, encoder=encoder, keep_cnn=True, **options)
    return path


@pytest.mark.parametrize("options", [{}, {"frames_per_segment": 3, "dtype": "bfloat16"}])
def test_cnn_vectors_of_a_cache_give_the_features_of_frames(
    store: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    vectors = tmp_path / "vectors.h5"
    cache_features(store, vectors, keep_cnn=True, crop_size=28, **RANDOM_TINY, **options)
    cache_features(store, tmp_path / "whole.h5", encoder=run, keep_cnn=True, **options)
    with monkeypatch.context() as patched:
        patched.setattr(ClipStore, "frames", None)
        summary = cache_features(vectors, tmp_path / "quick.h5", encoder=run, keep_cnn=True)
    assert summary.encoded == len(NAMES) - 1
    whole, quick = (FeatureCache.open(tmp_path / f"{name}.h5") for name in ("whole", "quick"))
    for name in ("f_a", "f_v", "cnn_a", "cnn_v"):
        np.testing.assert_allclose(quick.read(name), whole.read(name), atol=1e-6)
    assert quick.read_temporal().keys() == whole.read_temporal().keys()
    assert (quick.samples.split.tolist(), quick.missing) == (whole.samples.split.tolist(), whole.missing)
    assert {**quick.provenance, "options": ""} == {**whole.provenance, "options": ""}
    assert inspect(quick.path).facts.keys() == inspect(whole.path).facts.keys()
    assert not diff(quick.path, whole.path).provenance_differs


def test_the_store_brings_features_of_vectors_up_to_date(store: Path, run: Path, tmp_path: Path) -> None:
    damage(store, 2)
    vectors = cnn_cache(store, tmp_path / "vectors.h5", encoder_run(tmp_path / "start", hidden=4))
    quick = tmp_path / "quick.h5"
    cache_features(vectors, quick, encoder=run)
    again = cache_features(store, quick, encoder=run)
    assert (again.encoded, again.kept, list(again.failed)) == (0, 9, ["-v2"])
    with pytest.raises(StoreError, match="exists"):
        cache_features(vectors, quick, encoder=run)
    write_store(store, ["-v2", "new"])
    fixed = cache_features(store, quick, encoder=run)
    assert (fixed.encoded, fixed.kept, fixed.failed) == (2, 9, {})


def test_the_command_that_a_cache_of_vectors_names_makes_it_of_clips(
    store: Path, run: Path, tmp_path: Path
) -> None:
    vectors = cnn_cache(store, tmp_path / "vectors.h5", run, frames_per_segment=3)
    quick = tmp_path / "quick.h5"
    cache_features(vectors, quick, encoder=run)
    before = FeatureCache.open(quick)
    with pytest.raises(StoreError, match="no 'cnn_v'") as error:
        before.read("cnn_v")
    follow(error)
    after = FeatureCache.open(quick)
    np.testing.assert_allclose(after.f_v, before.f_v, atol=1e-6)
    assert "cnn_v" in after.shapes


def test_cnn_vectors_of_other_cnns_are_refused(store: Path, run: Path, tmp_path: Path) -> None:
    vectors, quick = tmp_path / "vectors.h5", tmp_path / "quick.h5"
    cnn_cache(store, vectors, encoder_run(tmp_path / "other", seed=1))
    with pytest.raises(StaleError, match="other CNNs") as error:
        cache_features(vectors, quick, encoder=run)
    assert not quick.exists()
    follow(error)
    assert len(FeatureCache.open(quick)) == len(NAMES) - 1


def test_cnn_vectors_of_other_crops_or_none_are_refused(store: Path, run: Path, tmp_path: Path) -> None:
    vectors, quick = tmp_path / "vectors.h5", tmp_path / "quick.h5"
    cache_features(store, vectors, **RANDOM_TINY, crop_size=32)
    with pytest.raises(StaleError, match="read crops of 32 pixels, this encoder's read 28") as other:
        cache_features(vectors, quick, encoder=run)
    follow(other)
    with pytest.raises(StoreError, match="no 'cnn_a'") as none:
        cache_features(vectors, quick, encoder=run)
    follow(none)
    assert cache_features(vectors, quick, encoder=run).encoded == len(NAMES) - 1


def test_maps_and_settings_of_cnns_are_refused_beside_vectors(store: Path, run: Path, tmp_path: Path) -> None:
    vectors, quick = cnn_cache(store, tmp_path / "vectors.h5", run), tmp_path / "quick.h5"
    for options, message in (
        ({"encoder": run, "keep_maps": True}, "keep_maps beside a feature cache"),
        ({"encoder": run, "frames_per_segment": 3}, "frames_per_segment beside a feature cache"),
        ({"encoder": run, "visual_backbone": "vgg19"}, "visual_backbone=vgg19 beside an encoder"),
        ({"encoder": encoder_run(tmp_path / "agva", agva=True)}, "attends over visual maps"),
    ):
        with pytest.raises(ConfigError, match=message):
            cache_features(vectors, quick, **options)
