"""Features of further backbones, added to a cache under names: the numbers of a cache of their own."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avel.cli import cli
from avel.console import DONE, run
from avel.errors import BusyError, ConfigError, MissingPathError, StaleError, StoreError
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES
from avel.stores.cache_lock import lock_cache
from avel.stores.clips import ClipStore
from avel.stores.diff import diff
from avel.stores.features import FeatureCache
from avel.stores.tensors import save_tensors
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
    assert (summary.videos, summary.encoded, summary.arrays["sound"][0]) == (10, 10, 10)
    added, clips = FeatureCache.open(cache), ClipStore.open(store)
    np.testing.assert_array_equal(added.read("other"), own.f_v)
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(7)
        net = AUDIO_BACKBONES["tiny"](AUDIO_BACKBONES["tiny"].Config()).eval()
        for place in (0, 9):
            vectors = net(torch.from_numpy(clips.log_mel(added.video_ids[place])))
            np.testing.assert_allclose(added.read("sound")[place], vectors, atol=1e-5)


def test_each_name_tells_of_its_own_network_alone(
    store: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {**RANDOM_TINY, **OTHER, "frames_per_segment": 2}
    alone = tmp_path / "alone.h5"
    shutil.copy(cache, alone)
    cache_features(store, cache, audio_name="sound", visual_name="look", keep_maps=True, **both)
    cache_features(store, alone, visual_name="look", keep_maps=True, **both)
    with monkeypatch.context() as patched:
        patched.setattr(ClipStore, "frames", pytest.fail)
        cache_features(store, alone, audio_name="sound", **both)
    together, apart = FeatureCache.open(cache).named, FeatureCache.open(alone).named
    assert together == apart, "whichever other network was named in the same call"
    sound, look = together["sound"].made, together["look"].made
    assert sound["encoder"].keys() == {"kind", "digest", "audio", "seed"}
    assert look["encoder"].keys() == {"kind", "digest", "visual", "seed"}
    assert sound["encoder"]["audio"] == {
        "backbone": "tiny",
        "weights": "random",
        "tiny": {"channels": [16, 32, 64, 128]},
    }
    assert sound["preprocessing"] == {"dtype": "float32", "own_lengths": False}
    assert look["preprocessing"].keys() == {"dtype", "own_lengths", "frames", "crop", "crop_size"}
    assert look["preprocessing"]["frames"] == [1, 3]
    assert sound["cnn"] != look["cnn"]
    assert sound["encoder"]["digest"] != look["encoder"]["digest"]
    assert together["look.maps"].made == look
    pretrained = tmp_path / "tiny.safetensors"
    save_tensors(pretrained, VISUAL_BACKBONES["tiny"](VISUAL_BACKBONES["tiny"].Config()).state_dict())
    given = {**both, "visual_weights": str(pretrained)}
    cache_features(store, cache, audio_name="sound2", visual_name="look2", **given)
    named = FeatureCache.open(cache).named
    assert named["look2"].made["encoder"].keys() == {"kind", "digest", "visual"}, (
        "no seed of the audio network"
    )
    assert named["sound2"].made == sound
    assert run(cli, ["--quiet", "inspect", str(cache), "--verify"]) == DONE
    assert diff(cache, arrays={"sound": "sound2"}).arrays["sound, sound2"].largest_difference == 0


def test_an_interrupted_call_goes_on_where_it_stopped(
    store: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {**RANDOM_TINY, **OTHER}

    def fail(*args: Any) -> Any:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(ClipStore, "frames", fail)
        with pytest.raises(RuntimeError, match="killed"):  # when the audio is done
            cache_features(store, cache, audio_name="sound", visual_name="look", **both)
    assert not FeatureCache.open(cache).named
    with monkeypatch.context() as patched:
        patched.setattr(ClipStore, "log_mel", fail)
        summary = cache_features(store, cache, audio_name="sound", visual_name="look", **both)
    assert (summary.encoded, summary.resumed) == (10, 0), "the frames of all clips were still to be read"
    assert {*FeatureCache.open(cache).named} == {"sound", "look"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".c")]
    with lock_cache(cache), pytest.raises(BusyError):
        cache_features(store, cache, audio_name="third", **both)


def test_finished_parts_of_an_interrupted_call_outlive_other_calls(
    store: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {**RANDOM_TINY, **OTHER}
    with monkeypatch.context() as patched:
        patched.delattr(ClipStore, "frames")
        with pytest.raises(AttributeError):  # when the audio is done
            cache_features(store, cache, audio_name="sound", visual_name="look", **both)
    cache_features(store, cache, visual_name="other", **OTHER)
    cache_features(store, cache, overwrite=True, crop_size=32, **RANDOM_TINY)
    summary = cache_features(store, cache, audio_name="sound", **both)
    assert (summary.encoded, summary.resumed) == (0, 10)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".c")]


def test_a_cache_of_other_videos_that_comes_meanwhile_is_refused(
    store: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.h5"
    cache_features(write_store(tmp_path / "other.zarr", NAMES[::-1], failed=NAMES[4:5]), other, **RANDOM_TINY)
    log_mel = ClipStore.log_mel

    def replace(clips: ClipStore, video_id: str) -> Any:
        if other.exists():
            other.replace(cache)
        return log_mel(clips, video_id)

    monkeypatch.setattr(ClipStore, "log_mel", replace)
    with pytest.raises(StaleError, match="was replaced meanwhile") as error:
        cache_features(store, cache, audio_name="sound", **RANDOM_TINY)
    assert error.value.hint == "give the command again"
    assert not FeatureCache.open(cache).named
    summary = cache_features(store, cache, audio_name="sound", **RANDOM_TINY)
    assert (summary.encoded, summary.resumed) == (0, 10)


def test_names_have_the_number_format_of_the_cache_unless_another_is_given(
    store: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "c.h5"
    cache_features(store, cache, crop_size=32, dtype="bfloat16", **RANDOM_TINY)
    cache_features(store, cache, audio_name="sound", **RANDOM_TINY)
    cache_features(store, cache, audio_name="exact", dtype="float32", **RANDOM_TINY)
    named = FeatureCache.open(cache).named
    assert [named[name].made["preprocessing"]["dtype"] for name in ("sound", "exact")] == [
        "bfloat16",
        "float32",
    ]


def test_settings_that_change_nothing_under_a_name_are_noted(
    store: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache_features(store, cache, audio_name="sound", keep_cnn=True, **{**RANDOM_TINY, **OTHER})
    noted = "keep_cnn, visual_backbone, visual_weights"
    assert f"without effect on the features that are named: crop_size, {noted}" in capsys.readouterr().err
    cache_features(store, cache, visual_name="look", audio_backbone="yamnet", **OTHER)
    assert "without effect on the features that are named: audio_backbone\n" in capsys.readouterr().err
    cache_features(store, cache, visual_name="plain", **OTHER)
    assert "without effect" not in capsys.readouterr().err


def test_a_clip_that_is_damaged_in_the_store_is_named(
    store: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_mel = ClipStore.log_mel

    def damaged(clips: ClipStore, video_id: str) -> Any:
        if video_id == "-v7":
            raise StoreError("its bytes are damaged")
        return log_mel(clips, video_id)

    monkeypatch.setattr(ClipStore, "log_mel", damaged)
    with pytest.raises(
        StaleError, match=r"1 of 10 videos cannot be read .* '-v7': damaged in the store: its"
    ):
        cache_features(store, cache, audio_name="sound", **RANDOM_TINY)
    assert not FeatureCache.open(cache).named
    monkeypatch.undo()
    summary = cache_features(store, cache, audio_name="sound", **RANDOM_TINY)
    assert (summary.encoded, summary.resumed) == (1, 9)


def test_what_cannot_be_added_is_refused_before_networks_run(
    store: Path, cache: Path, tmp_path: Path
) -> None:
    for options, error, message in (
        ({"visual_name": "f_v"}, ConfigError, "avel's own"),
        ({"visual_name": "x", "audio_name": "x"}, ConfigError, "both named 'x'"),
        ({"visual_name": "x", "encoder": tmp_path}, ConfigError, "--encoder beside --audio-name"),
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


def test_who_makes_a_cache_anew_is_told_which_named_features_that_drops(
    store: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache_features(store, cache, audio_name="y", visual_name="x", **{**RANDOM_TINY, **OTHER})
    with pytest.raises(StaleError, match="made otherwise") as error:
        cache_features(store, cache, crop_size=28, **RANDOM_TINY)
    assert "--overwrite makes it again, which drops x, y: add them again; or name another" in error.value.hint
    assert not capsys.readouterr().err.count("drops")
    cache_features(store, cache, overwrite=True, crop_size=28, **RANDOM_TINY)
    assert f"{cache} is made again, which drops x, y: add them again\n" in capsys.readouterr().err
    assert not FeatureCache.open(cache).named
    cache.write_bytes(b"damaged")
    cache_features(store, cache, overwrite=True, **RANDOM_TINY)
    assert "drops" not in capsys.readouterr().err


def test_a_call_that_fails_leaves_no_folder_of_parts(store: Path, cache: Path, tmp_path: Path) -> None:
    cache_features(store, cache, visual_name="x", **OTHER)
    write_store(store, ("new",))
    with pytest.raises(StaleError, match="holds x"):
        cache_features(store, cache, crop_size=32, **RANDOM_TINY)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".c")]


def test_new_clips_are_refused_where_named_features_lack_them(store: Path, cache: Path) -> None:
    cache_features(store, cache, visual_name="x", **OTHER)
    assert cache_features(store, cache, crop_size=32, **RANDOM_TINY).kept == 10
    write_store(store, ("new",))
    missing = "holds x of 10 videos, and not of clips that are new or have changed: new\n"
    with pytest.raises(StaleError, match=missing) as error:
        cache_features(store, cache, crop_size=32, **RANDOM_TINY)
    assert error.value.hint.endswith("--overwrite makes it again, which drops x: add them again")
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
