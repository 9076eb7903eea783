"""AV-BT on the vectors of a feature cache, of whatever encoders; and its features for every clip there."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from avel.cli import cli
from avel.console import DONE, run
from avel.errors import AvelError, BusyError, ConfigError, StoreError, TrainingError
from avel.heads.train import train_head
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.caching.key import encoder_file_digest
from avel.pipeline.encoders.saved import load_encoder
from avel.pipeline.pretraining.pretrain import pretrain
from avel.stores.cache_lock import lock_cache
from avel.stores.feature_adding import add_features
from avel.stores.features import FeatureCache
from avel.stores.named_features import NewFeatures
from avel.stores.runs import Run
from tests.heads.synthetic import write_cache
from tests.pipeline.caching.small_stores import NAMES, RANDOM_TINY, write_store

SMALL: dict[str, Any] = {"projector": "16-16", "hidden": 4, "batch_size": 18, "warmup_epochs": 0}
NAMED = {"audio_features": "clap", "visual_features": "clip+cnn_v"}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = write_cache(tmp_path / "c.h5", arrays=("f_a", "f_v", "cnn_a", "cnn_v"))
    random = np.random.default_rng(1)
    new = {"clap": ("audio", 200), "clip": ("visual", 7)}
    add_features(
        path,
        {
            name: NewFeatures(modality, random.normal(size=(59, 6, width)).astype(np.float32), {"kind": name})  # type: ignore[arg-type]
            for name, (modality, width) in new.items()
        },
    )
    return path


def test_encoders_learn_from_named_vectors_and_encode_all_clips(cache: Path, tmp_path: Path) -> None:
    words = [
        "--quiet",
        "pretrain",
        str(cache),
        str(tmp_path / "run"),
        "--epochs",
        "3",
        "--optimizer",
        "adamw",
    ]
    for name, value in {**SMALL, **NAMED}.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    assert run(cli, words) == DONE
    kept = Run.open(tmp_path / "run", "pretrain")
    losses = [line["loss"] for line in kept.metrics()]
    assert losses[-1] < losses[0]
    assert kept.results["clips"] == 36  # videos of train samples
    found = FeatureCache.open(cache)
    assert kept.inputs["store_digest"] == found.digest_with(["clap", "clip", "cnn_v"])
    assert run(cli, words) == DONE  # finished: nothing to do

    words = ["--quiet", "cache-features", str(cache), str(tmp_path / "avbt.h5"), "--keep-cnn"]
    assert run(cli, [*words, "--encoder", str(tmp_path / "run")]) == DONE
    made, encoder = FeatureCache.open(tmp_path / "avbt.h5"), load_encoder(tmp_path / "run")
    visual = np.concatenate([found.read("clip"), found.read("cnn_v")], -1)
    with torch.inference_mode():
        audio = encoder.temporal.audio_linear(torch.from_numpy(found.read("clap")))  # 200 is wider than 128
        wanted = (
            encoder.temporal.audio_lstm(audio)[0],
            encoder.temporal.visual_lstm(torch.from_numpy(visual))[0],
        )
    np.testing.assert_allclose(made.f_a, wanted[0], atol=1e-6)
    np.testing.assert_allclose(made.f_v, wanted[1], atol=1e-6)
    np.testing.assert_array_equal(made.read("cnn_v"), visual)
    assert (made.video_ids, made.samples.split.tolist()) == (found.video_ids, found.samples.split.tolist())
    assert made.provenance["vectors"]["provenance"]["features"]["clap"]["made"] == {"kind": "clap"}
    assert made.provenance["encoder"]["kind"] == "run"
    train_head(tmp_path / "avbt.h5", tmp_path / "head", head="tacma", epochs=1)


def test_settings_of_clips_are_not_told_where_none_are_read(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", str(cache), str(tmp_path / "run"), "--epochs", "1"]
    for name, value in SMALL.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    assert run(cli, words) == DONE
    told = capsys.readouterr().err
    assert run(cli, ["cache-features", str(cache), str(tmp_path / "avbt.h5"), "--encoder", words[2]]) == DONE
    told += capsys.readouterr().err
    assert all(used in told for used in ("[pretrain.objective]", "hidden = 4", "batch_size = 8"))
    assert not any(idle in told for idle in ("resnet", "weights", "augmentation", "keep_maps", "compile"))


def test_what_is_no_encoder_is_named(cache: Path, tmp_path: Path) -> None:
    for path, message in (
        (cache, "is a feature cache, not a run of avel pretrain"),
        (write_store(tmp_path / "s.zarr", NAMES), "is a clip store, not a run"),
        (tmp_path / "none", "no encoder"),
    ):
        for read in (load_encoder, encoder_file_digest):
            with pytest.raises(AvelError, match=message):
                read(path)


def test_features_of_vectors_keep_the_hashes_of_the_videos_and_lock_their_cache(tmp_path: Path) -> None:
    cache = tmp_path / "c.h5"
    cache_features(write_store(tmp_path / "clips.zarr", NAMES), cache, **RANDOM_TINY)
    pretrain(cache, tmp_path / "run", epochs=1, **SMALL)
    made = tmp_path / "avbt.h5"
    with lock_cache(made), pytest.raises(BusyError, match="another process"):
        cache_features(cache, made, encoder=tmp_path / "run")
    cache_features(cache, made, encoder=tmp_path / "run", device="cpu,cpu")  # it takes the first
    sources = FeatureCache.open(cache).sources
    assert len(sources) == len(NAMES)
    assert FeatureCache.open(made).sources == sources
    assert not list(tmp_path.glob(".*.parts"))
    with h5py.File(made, "r+") as file:
        file["f_a"][0] += 1
    with pytest.raises(StoreError, match=r"damaged.*\n.*same avel cache-features or import-features"):
        FeatureCache.open(made).f_a  # noqa: B018


def test_clips_of_lengths_of_their_own_end_where_they_end(tmp_path: Path) -> None:
    lengths = np.arange(59) % 6 + 1
    cache = write_cache(tmp_path / "c.h5", arrays=("f_a", "f_v", "cnn_a", "cnn_v"), lengths=lengths)
    pretrain(cache, tmp_path / "run", epochs=1, standardise=True, **SMALL)
    cache_features(cache, tmp_path / "avbt.h5", encoder=tmp_path / "run")
    made = FeatureCache.open(tmp_path / "avbt.h5")
    assert made.lengths.tolist() == lengths.tolist()
    assert not made.f_a[np.arange(6) >= lengths[:, None]].any()


def test_what_is_not_finite_and_not_trained_on_does_not_matter(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(59, 6, 10)).astype(np.float32)
    values[-1] = np.nan  # a video of test alone
    pretrain(write_cache(tmp_path / "c.h5", f_a=values), tmp_path / "run", epochs=1, **SMALL)
    values[0, 3, 2] = np.inf
    with pytest.raises(StoreError, match="f_a of video '-video0' is not finite"):
        pretrain(write_cache(tmp_path / "d.h5", f_a=values), tmp_path / "other", epochs=1, **SMALL)
    assert not (tmp_path / "other").exists()
    values[0, 3, 2] = -1e5
    message = r"f_a of video '-video0' goes up to 100000, .* float16, which ends at 65504"
    with pytest.raises(TrainingError, match=message):
        pretrain(write_cache(tmp_path / "e.h5", f_a=values), tmp_path / "other", epochs=1, **SMALL)
    assert not (tmp_path / "other").exists()


def test_what_does_not_go_together_is_refused(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(tmp_path / "clips.zarr", NAMES)
    for source, options, error, message in (
        (cache, {"audio_features": "clip"}, StoreError, "no audio vectors named 'clip'"),
        (cache, {"visual_features": "siglip"}, StoreError, "no visual vectors named 'siglip'\n.*cnn_v, clip"),
        (cache, {"agva": True}, ConfigError, "--agva"),
        (cache, {"probe_every": 1}, ConfigError, "--probe-every"),
        (store, {"audio_features": "clap"}, ConfigError, "holds no vectors"),
        (store, {"visual_backbone": "vectors"}, ConfigError, "holds no vectors"),
    ):
        with pytest.raises(error, match=message):
            pretrain(source, tmp_path / "run", **{**SMALL, **options})
    idle: dict[str, Any] = {"visual_backbone": "resnet18", "blur": False, "clips_at_once": 1}
    pretrain(cache, tmp_path / "run", epochs=1, **idle, **SMALL, **NAMED)
    noted = [line for line in capsys.readouterr().err.splitlines() if "without effect" in line]
    assert noted == [
        "without effect, since vectors of a cache are read: clips_at_once, visual_backbone, blur"
    ]
    for source in (cache, store):
        with pytest.raises(
            StoreError, match=r"of another model: .*visual_features is 'clip\+cnn_v' there"
        ) as no:
            pretrain(source, tmp_path / "new", start_from=str(tmp_path / "run"), **SMALL)
        assert no.value.hint.startswith("give the STORE of that run")
    for options, error, message in (
        ({}, ConfigError, "no encoder to run on it"),
        ({"encoder": tmp_path / "run", "keep_maps": True}, ConfigError, "keep_maps beside a feature cache"),
        (
            {"encoder": tmp_path / "run", "scheduler": "tcp://a:1"},
            ConfigError,
            "--scheduler beside a feature",
        ),
    ):
        with pytest.raises(error, match=message):
            cache_features(cache, tmp_path / "out.h5", **options)
    with pytest.raises(StoreError, match="no 'clap' in this cache"):
        cache_features(write_cache(tmp_path / "c2.h5"), tmp_path / "out.h5", encoder=tmp_path / "run")
    with pytest.raises(ConfigError, match="reads vectors of a feature cache"):
        cache_features(store, tmp_path / "out.h5", encoder=tmp_path / "run")
    no_train = write_cache(tmp_path / "c3.h5", split=["test"] * 60)
    with pytest.raises(TrainingError, match="no train sample"):
        pretrain(no_train, tmp_path / "other", **SMALL)
