"""Features of further backbones, added to a cache under names: the numbers of a cache of their own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avel.cli import cli
from avel.console import DONE, run
from avel.errors import ConfigError, MissingPathError, StaleError, StoreError
from avel.pipeline.caching.cache import cache_features
from avel.stores.features import FeatureCache
from tests.pipeline.caching.small_stores import NAMES, RANDOM_TINY, write_store

OTHER: dict[str, Any] = {"visual_backbone": "tiny", "visual_weights": "random", "seed": 7, "crop_size": 32}


@pytest.fixture
def cache(store: Path, tmp_path: Path) -> Path:
    cache_features(store, tmp_path / "c.h5", crop_size=32, **RANDOM_TINY)
    return tmp_path / "c.h5"


def test_a_named_backbone_stands_beside_with_its_numbers_and_provenance(
    store: Path, cache: Path, tmp_path: Path
) -> None:
    before = FeatureCache.open(cache)
    words = ["--quiet", "cache-features", str(store), str(cache), "--visual-name", "tiny7", "--keep-maps"]
    for key, value in OTHER.items():
        words += [f"--{key.replace('_', '-')}", str(value)]
    assert run(cli, words) == DONE
    both = RANDOM_TINY | OTHER
    cache_features(store, tmp_path / "own.h5", keep_maps=True, **both)
    own, found = FeatureCache.open(tmp_path / "own.h5"), FeatureCache.open(cache)
    assert found.digest == before.digest
    assert set(found.shapes) - set(before.shapes) == {"tiny7", "tiny7.maps"}
    np.testing.assert_array_equal(found.read("tiny7"), own.f_v)
    np.testing.assert_array_equal(found.read("tiny7.maps"), own.read("maps"))
    np.testing.assert_array_equal(found.f_v, before.f_v)
    made = found.named["tiny7"].made
    assert (made["encoder"]["visual"]["backbone"], made["encoder"]["seed"]) == ("tiny", 7)
    assert made["staging"] == before.provenance["staging"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".c")]
    summary = cache_features(store, cache, audio_name="sound", visual_name="other", **both)
    assert (summary.videos, summary.arrays["sound"][0]) == (10, 10)
    np.testing.assert_array_equal(FeatureCache.open(cache).read("sound"), own.f_a)


def test_what_cannot_be_added_is_refused_before_networks_run(
    store: Path, cache: Path, tmp_path: Path
) -> None:
    for options, error, message in (
        ({"visual_name": "f_v"}, ConfigError, "avel's own"),
        ({"visual_name": "x", "audio_name": "x"}, ConfigError, "both named 'x'"),
        ({"visual_name": "x", "encoder": tmp_path}, ConfigError, "--encoder or --cnn-from"),
        ({"visual_name": "x", "untrained": True}, ConfigError, "--untrained"),
    ):
        with pytest.raises(error, match=message):
            cache_features(store, cache, **{**OTHER, **options})
    with pytest.raises(MissingPathError, match="no feature cache to which 'x'"):
        cache_features(store, tmp_path / "none.h5", visual_name="x", **OTHER)
    cache_features(store, cache, visual_name="x", **OTHER)
    with pytest.raises(StoreError, match="holds features named 'x'"):
        cache_features(store, cache, visual_name="x", **OTHER)
    cache_features(store, cache, visual_name="x", overwrite=True, **OTHER)


def test_new_clips_are_refused_where_named_features_lack_them(store: Path, cache: Path) -> None:
    cache_features(store, cache, visual_name="x", **OTHER)
    assert cache_features(store, cache, crop_size=32, **RANDOM_TINY).kept == 10
    write_store(store, ("new",))
    with pytest.raises(StaleError, match="holds x of 10 videos, and 1 clips, the first is 'new'"):
        cache_features(store, cache, crop_size=32, **RANDOM_TINY)
    assert cache_features(store, cache, overwrite=True, crop_size=32, **RANDOM_TINY).videos == 11
    assert not FeatureCache.open(cache).named


def test_a_store_of_other_clips_is_refused(store: Path, cache: Path, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other.zarr", NAMES[:3])
    with pytest.raises(StaleError, match="7 of 10 videos are not in the store"):
        cache_features(other, cache, visual_name="x", **OTHER)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".c")]  # nothing was computed
    write_store(store, ("-v7",), version="2")
    with pytest.raises(StaleError, match=r"1 of 10 videos .* the first is '-v7'"):
        cache_features(store, cache, visual_name="x", **OTHER)
