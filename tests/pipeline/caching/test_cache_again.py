"""What a later call finds: damaged clips that it need not look at again, other versions, hints that fix."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from avel.cli import cli
from avel.errors import StaleError, StoreError
from avel.pipeline.caching import cache as module
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.config import PretrainConfig
from avel.stores.cache_lock import lock_cache
from avel.stores.feature_parts import Parts
from avel.stores.features import FeatureCache
from avel.stores.runs import Run
from tests.pipeline.caching.small_stores import NAMES, RANDOM_TINY, encoder_run, write_store

TINY = {**RANDOM_TINY, "crop_size": 28}


def damage(store: Path, row: int) -> None:
    (chunk,) = (store / "log_mel").glob(f"c/{row}/0/0/0")
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)


def follow(error: pytest.ExceptionInfo[Any]) -> None:
    """Gives the command that a hint names."""
    words = shlex.split(error.value.hint)
    assert words[:2] == ["avel", "cache-features"]
    ends = [place for place, word in enumerate(words) if word in ("makes", "brings")]
    result = CliRunner().invoke(cli, words[1 : ends[0] if ends else None])
    assert result.exit_code == 0, result.output


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports what needs torch fails from now on."""
    monkeypatch.setitem(sys.modules, "avel.pipeline.caching.encode", None)
    monkeypatch.setitem(sys.modules, "avel.pipeline.caching.workers", None)


def test_a_damaged_clip_is_not_encoded_again_until_it_is_mended(
    store: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(store, 2)
    first = cache_features(store, tmp_path / "c.h5", encoder=run)
    before = (tmp_path / "c.h5").stat()
    assert FeatureCache.open(tmp_path / "c.h5").provenance["damaged"] == {"-v2": "-v2-1"}
    with monkeypatch.context() as patched:
        without_torch(patched)
        again = cache_features(store, tmp_path / "c.h5", encoder=run)
    assert (again.encoded, again.kept, again.failed) == (0, 9, first.failed)
    assert (tmp_path / "c.h5").stat() == before
    assert not list(tmp_path.glob(".*.parts"))
    write_store(store, ("-v2",))
    fixed = cache_features(store, tmp_path / "c.h5", encoder=run)
    assert (fixed.encoded, fixed.kept, fixed.failed) == (1, 9, {})
    assert FeatureCache.open(tmp_path / "c.h5").provenance["damaged"] == {}


def test_new_clips_leave_a_damaged_one_missing(store: Path, run: Path, tmp_path: Path) -> None:
    damage(store, 2)
    cache_features(store, tmp_path / "c.h5", encoder=run)
    write_store(store, [*NAMES[5:], "new"])
    summary = cache_features(store, tmp_path / "c.h5", encoder=run)
    assert (summary.encoded, summary.kept, list(summary.failed)) == (1, 9, ["-v2"])
    missing = FeatureCache.open(tmp_path / "c.h5").missing
    assert [item.video_id for item in missing if "damaged" in item.reason] == ["-v2"]


def test_a_hint_repeats_the_options_so_that_following_it_mends(
    store: Path, run: Path, tmp_path: Path
) -> None:
    path, asked = tmp_path / "c.h5", {"dtype": "bfloat16", "keep_maps": True, "frames_per_segment": 2}
    cache_features(store, path, encoder=run)
    with pytest.raises(StaleError) as error:
        cache_features(store, path, encoder=run, **asked)
    follow(error)
    assert cache_features(store, path, encoder=run, **asked).kept == 10


def test_a_cache_without_an_array_says_how_it_is_made_with_it(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "my cache.h5"
    cache_features(store, path, untrained=True, seed=3, dtype="bfloat16", **TINY)
    before = FeatureCache.open(path)
    with pytest.raises(StoreError, match="no 'maps' in this cache") as error:
        before.read("maps")
    follow(error)
    after = FeatureCache.open(path)
    np.testing.assert_array_equal(after.f_v, before.f_v)
    assert "maps" in after.shapes


def test_the_cache_is_looked_at_again_under_the_lock(
    store: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another call that ends between the look and the lock leaves nothing to encode."""

    def finished_by_another(path: Path) -> Any:
        monkeypatch.setattr(module, "lock_cache", lock_cache)
        cache_features(store, tmp_path / "c.h5", encoder=run)
        return lock_cache(path)

    monkeypatch.setattr(module, "lock_cache", finished_by_another)
    summary = cache_features(store, tmp_path / "c.h5", encoder=run)
    assert (summary.encoded, summary.kept) == (0, 10)


def test_versions_of_kept_clips_are_not_forgotten(
    store: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.h5"
    for number in range(3):
        monkeypatch.setattr(module, "library_versions", lambda used=number: {"torch": str(used)})
        write_store(store, [f"new{number}"])
        cache_features(store, path, encoder=run)
    told = FeatureCache.open(path).provenance
    assert told["versions"] == {"torch": "2"}
    assert told["earlier_versions"] == [{"torch": "0"}, {"torch": "1"}]
    cache_features(store, path, encoder=run, overwrite=True)
    assert FeatureCache.open(path).provenance["earlier_versions"] == []


def test_the_seed_of_the_pretraining_stands_beside_the_encoder(store: Path, tmp_path: Path) -> None:
    run = encoder_run(tmp_path / "run")
    cache_features(store, tmp_path / "c.h5", encoder=run)
    assert FeatureCache.open(tmp_path / "c.h5").provenance["pretraining_seed"] is None
    Run.create(tmp_path / "pretrained", "pretrain", PretrainConfig(seed=7), inputs={})
    shutil.copy(run / "encoder.safetensors", tmp_path / "pretrained")
    cache_features(store, tmp_path / "d.h5", encoder=tmp_path / "pretrained")
    assert FeatureCache.open(tmp_path / "d.h5").provenance["pretraining_seed"] == 7
    cache_features(store, tmp_path / "e.h5", **TINY)
    assert FeatureCache.open(tmp_path / "e.h5").provenance["pretraining_seed"] is None


def test_weights_that_changed_under_their_name_are_not_mixed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.h5"
    cache_features(store, path, **TINY)
    write_store(store, ["new"])
    with monkeypatch.context() as patched:
        patched.setattr("avel.pipeline.caching.encode.cnn_digest", lambda encoder: "0123456789abcdef")
        with pytest.raises(StaleError, match=r"other weights now .* 0123456789abcdef") as error:
            cache_features(store, path, **TINY)
        follow(error)
        assert FeatureCache.open(path).provenance["cnn"] == "0123456789abcdef"
        assert len(FeatureCache.open(path).video_ids) == 11


def test_parts_of_other_weights_are_not_mixed_either(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    cache_features(store, path, **TINY)
    made = FeatureCache.open(path)
    arrays = {name: made.read(name)[:1] for name in ("f_a", "f_v")}
    path.unlink()
    recipe = {name: made.provenance[name] for name in ("encoder", "staging", "preprocessing", "arrays")}
    Parts.of(path, recipe).write({"-v0": "-v0-1"}, arrays, cnn="0123456789abcdef", hardware="cpu")
    with pytest.raises(StaleError, match="other weights") as error:
        cache_features(store, path, **TINY)
    follow(error)
    assert FeatureCache.open(path).digest == made.digest


def test_a_cache_is_extended_in_the_number_format_that_it_was_made_in(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    cache_features(store, path, dtype="bfloat16", **TINY)
    assert cache_features(store, path, **TINY).kept == 10
    assert FeatureCache.open(path).provenance["preprocessing"]["dtype"] == "bfloat16"
    cache_features(store, path, overwrite=True, **TINY)
    provenance = FeatureCache.open(path).provenance
    assert provenance["preprocessing"]["dtype"] == "float32", "auto on a CPU"
    assert provenance["hardware"] == ["cpu"]
