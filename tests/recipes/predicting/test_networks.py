"""New videos through the networks behind named features, and behind the vectors that AV-BT was trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avel.cli import cli
from avel.console import DONE, run
from avel.errors import MissingPathError, StaleError, StoreError
from avel.heads.train import train_head
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.config import VISUAL_BACKBONES
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.encoders.saved import save_encoder
from avel.pipeline.pretraining.pretrain import pretrain
from avel.pipeline.staging.extract import extract
from avel.recipes.predicting.predict import predict
from avel.recipes.predicting.video_encoder import VideoEncoder
from avel.stores.feature_adding import add_features
from avel.stores.features import FeatureCache
from avel.stores.named_features import NewFeatures
from avel.stores.tensors import save_tensors
from avel.views.reading import read_run
from tests.pipeline.caching.small_stores import RANDOM_TINY
from tests.pipeline.configs import pretrain_config
from tests.recipes.predicting.hued_clips import write_clips

T = 3
STAGING: dict[str, Any] = {"segments": T, "size": 48, "workers": 1}
HEAD: dict[str, Any] = {"head": "mlp", "merge": "concatenate", "epochs": 2, "device": "cpu"}
TINY: dict[str, Any] = {**RANDOM_TINY, "device": "cpu", "crop_size": 42}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips, staged twice; features under names by other seeds, frames, staging and weights."""
    folder = tmp_path_factory.mktemp("networks")
    annotations = write_clips(folder, 6, T)
    extract(folder / "clips", folder / "s.zarr", annotations=annotations, **STAGING)
    extract(
        folder / "clips",
        folder / "raw.zarr",
        annotations=annotations,
        frame_codec="raw",
        **STAGING | {"size": 40},
    )
    cache, tiny = folder / "c.h5", VISUAL_BACKBONES["tiny"]
    cache_features(folder / "s.zarr", cache, keep_cnn=True, **TINY)
    cache_features(
        folder / "s.zarr", cache, audio_name="sound", visual_name="seven", seed=7, keep_maps=True, **TINY
    )
    for seed in (8, 9):
        net = tiny(tiny.Config())
        for value in net.parameters():
            value.data += seed / 100
        save_tensors(folder / f"{seed}.safetensors", net.state_dict())
    visual = {"visual_backbone": "tiny", "device": "cpu", "frames_per_segment": 2, "crop_size": 35}
    for seed, store in ((8, "raw.zarr"), (9, "s.zarr")):
        weights = str(folder / f"{seed}.safetensors")
        cache_features(folder / store, cache, visual_name=f"w{seed}", visual_weights=weights, **visual)
    return folder


def weights(folder: Path) -> list[Path]:
    return [folder / "9.safetensors", folder / "8.safetensors"]


def test_a_video_passes_the_networks_of_every_name(folder: Path) -> None:
    cache = FeatureCache.open(folder / "c.h5")
    names = ["f_a", "sound", "seven", "seven.maps", "w8", "w9", "cnn_v"]
    encoder = VideoEncoder(cache, names, weights={"visual": weights(folder)})
    assert len(encoder.networks) == 5, "f_a and cnn_v are of one pair of CNNs, all others of one CNN each"
    assert [each.encoder.modalities for each in encoder.networks[:3]] == [
        ["visual", "audio"],
        ["audio"],
        ["visual"],
    ]
    features = encoder.encode(folder / "clips" / "4.mp4")
    windows = [{name: values[None] for name, values in each.items()} for each in features.vectors]
    place = cache.video_ids.index("4")
    for name, values in encoder.features(windows, None).items():
        held = cache.read(name)[place]
        np.testing.assert_allclose(values[0], held, atol=2e-3 if name.endswith("maps") else 1e-5)
        assert len(encoder.features(windows, None)) == len(names)


def check_predictions(folder: Path, path: Path, **options: Any) -> None:
    """Compares what a run predicts for the videos of test with its own predictions."""
    own = read_run(path)
    for place in own.places_of("test"):
        clip = folder / "clips" / f"{own.video_id[place]}.mp4"
        (found,) = predict(path, [clip], device="cpu", **options).found
        np.testing.assert_allclose(
            [probability for _, probability in found.segments], own.probability[0, place].max(1), atol=2e-4
        )


def test_a_head_on_joined_names_predicts_what_it_did_on_the_cache(folder: Path, tmp_path: Path) -> None:
    train_head(folder / "c.h5", tmp_path / "run", audio="sound+f_a", visual="w8+seven+w9", **HEAD)
    check_predictions(folder, tmp_path / "run", visual_weights=weights(folder))
    clip = str(folder / "clips" / "4.mp4")
    words = ["predict", str(tmp_path / "run"), clip, "--device", "cpu"]
    for path in weights(folder):
        words += ["--visual-weights", str(path)]
    assert run(cli, words) == DONE
    with pytest.raises(MissingPathError, match="'w8': was made with visual weights of hash"):
        predict(tmp_path / "run", [clip], device="cpu")
    with pytest.raises(StaleError, match=r"9\.safetensors: has hash .*'w8' was made with visual"):
        predict(tmp_path / "run", [clip], visual_weights=folder / "9.safetensors", device="cpu")


@pytest.mark.parametrize("trained_cnns", [False, True])
def test_avbt_on_cached_vectors_predicts_what_it_did_on_the_cache(
    folder: Path, tmp_path: Path, trained_cnns: bool
) -> None:
    """Vectors of backbones under names, and f_a and f_v of an encoder whose run lies elsewhere."""
    source, names = folder / "c.h5", {"audio_features": "sound", "visual_features": "w8+cnn_v"}
    options: dict[str, Any] = {"visual_weights": weights(folder)}
    if trained_cnns:
        (tmp_path / "first").mkdir()
        built = build_encoder(pretrain_config(**RANDOM_TINY, crop_size=42, hidden=4))
        save_encoder(built, tmp_path / "first" / "encoder.safetensors")
        source, names, options = (
            tmp_path / "first.h5",
            {"audio_features": "f_a", "visual_features": "f_v"},
            {},
        )
        cache_features(folder / "s.zarr", source, encoder=tmp_path / "first", device="cpu")
    small = {"projector": "8-8", "hidden": 4, "epochs": 1, "batch_size": 2 * T, "device": "cpu"}
    pretrain(source, tmp_path / "avbt", **small, **names)
    cache_features(source, tmp_path / "avbt.h5", encoder=tmp_path / "avbt")
    train_head(tmp_path / "avbt.h5", tmp_path / "run", **HEAD)
    check_predictions(folder, tmp_path / "run", **options)
    moved = "first" if trained_cnns else "avbt"
    (tmp_path / moved).rename(tmp_path / "moved")
    clip = folder / "clips" / "4.mp4"
    with pytest.raises(MissingPathError, match=f"{moved}: the encoder that .* is not there"):
        predict(tmp_path / "run", [clip], device="cpu", **options)
    check_predictions(folder, tmp_path / "run", encoder=tmp_path / "moved", **options)


def test_a_head_on_features_of_cached_cnn_vectors_predicts_what_it_did_on_the_cache(
    folder: Path, tmp_path: Path
) -> None:
    encoder = tmp_path / "avbt" / "encoder.safetensors"
    encoder.parent.mkdir()
    save_encoder(build_encoder(pretrain_config(**RANDOM_TINY, crop_size=42, hidden=4)), encoder)
    cache_features(folder / "c.h5", tmp_path / "avbt.h5", encoder=tmp_path / "avbt")
    train_head(tmp_path / "avbt.h5", tmp_path / "run", **HEAD)
    check_predictions(folder, tmp_path / "run")


def test_what_no_network_of_avels_made_is_named(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "c.h5"
    cache_features(folder / "s.zarr", cache, **TINY)
    values = np.zeros((6, T, 5), np.float32)
    old = {"kind": "backbone", "network": {}, "seed": 0}
    add_features(
        cache,
        {
            "clap": NewFeatures("audio", values, {"kind": "imported"}),
            "old": NewFeatures("audio", values, old),
        },
    )
    opened = FeatureCache.open(cache)
    with pytest.raises(StoreError, match="'clap': avel did not make these features"):
        VideoEncoder(opened, ["clap", "f_v"])
    with pytest.raises(StoreError, match="'old' does not say which weights made it"):
        VideoEncoder(opened, ["old", "f_v"])
    encoder = tmp_path / "encoder.safetensors"
    save_encoder(build_encoder(pretrain_config(**RANDOM_TINY, crop_size=42, hidden=4)), encoder)
    with pytest.raises(StaleError, match="was made with backbones alone"):
        VideoEncoder(opened, encoder=encoder)
