"""`avel predict` on the real way: staged, encoded, trained in the small; then the same and other videos."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from avel.cli import cli
from avel.console import DONE, run
from avel.errors import AvelError, ConfigError, MissingPathError, StaleError, StoreError, UnknownNameError
from avel.heads.train import sweep, train_head
from avel.heads.training.records import load_model
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.caching.encode import PartEncoder
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.encoders.saved import save_encoder
from avel.pipeline.staging.extract import extract
from avel.recipes.predicting import predict as predicting
from avel.recipes.predicting.predict import choose_trials, predict
from avel.recipes.predicting.video_encoder import VideoEncoder
from avel.stores.exchange import import_features
from avel.stores.features import FeatureCache
from avel.stores.runs import Run
from avel.views.reading import read_run
from tests.fake_cuda import CUDA, Watch, fake_cuda, move
from tests.heads.synthetic import write_cache
from tests.pipeline.caching.small_stores import RANDOM_TINY
from tests.pipeline.configs import pretrain_config
from tests.recipes.predicting.hued_clips import write_clips
from tests.stores.test_exchange import write_published
from tests.views.made import video

T = 4


@dataclass(frozen=True)
class World:
    folder: Path
    cache: Path
    encoder: Path
    run: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Nine clips of two classes, told apart by hue; an untrained encoder; a head that has learned them."""
    folder = tmp_path_factory.mktemp("world")
    annotations = write_clips(folder, 9, T, end=3, prefix="-")
    extract(folder / "clips", folder / "s.zarr", annotations=annotations, segments=T, size=48, workers=1)
    encoder = folder / "avbt"
    encoder.mkdir()
    save_encoder(build_encoder(pretrain_config(**RANDOM_TINY, crop_size=42)), encoder / "encoder.safetensors")
    cache, run = folder / "features.h5", folder / "run"
    cache_features(folder / "s.zarr", cache, encoder=encoder, keep_cnn=True, device="cpu")
    options = {"head": "tacma", "seeds": 2, "epochs": 40, "lr": 2e-3, "batch_size": 3, "device": "cpu"}
    sweep(cache, run, {"theta": [0.0, 0.03]}, **options)
    return World(folder, cache, encoder, run)


def test_a_clip_is_seen_as_its_cache_has_seen_it(world: World) -> None:
    cache = FeatureCache.open(world.cache)
    video_encoder = VideoEncoder(cache)
    for place, video_id in enumerate(cache.video_ids):
        features = video_encoder.encode(world.folder / "clips" / f"{video_id}.mp4")
        assert features.valid_seconds == pytest.approx(T, abs=0.1)
        for name in ("cnn_a", "cnn_v"):
            np.testing.assert_allclose(features.vectors[0][name], cache.read(name)[place], atol=1e-5)


def test_events_are_those_of_the_runs_own_predictions(world: World) -> None:
    run = read_run(world.run)
    trials = [kept.name for kept in choose_trials(run.run, None)]
    assert len(trials) == 2
    places = [run.trials.index(name) for name in trials]
    for place in run.places_of("test"):
        path = world.folder / "clips" / f"{run.video_id[place]}.mp4"
        predicted = predict(world.run, [path], device="cpu")
        assert predicted.trials == tuple(trials)
        mean = run.probability[places, place].mean(0)
        assert [name for name, _ in predicted.found[0].segments] == [
            run.task.class_names[k] for k in mean.argmax(1)
        ]
        probabilities = [probability for _, probability in predicted.found[0].segments]
        np.testing.assert_allclose(probabilities, mean.max(1), atol=2e-4)


def test_events_of_a_head_whose_bi_lstms_were_fine_tuned(world: World, tmp_path: Path) -> None:
    options = {"head": "mlp", "inputs": "fine_tuned", "epochs": 5, "batch_size": 3, "device": "cpu"}
    train_head(world.cache, tmp_path / "tuned", **options)
    run = read_run(tmp_path / "tuned")
    place = int(run.places_of("test")[0])
    path = world.folder / "clips" / f"{run.video_id[place]}.mp4"
    predicted = predict(tmp_path / "tuned", [path], device="cpu")
    own = run.probability[0, place].max(1)
    np.testing.assert_allclose(
        [probability for _, probability in predicted.found[0].segments], own, atol=2e-4
    )


def test_one_trial_by_name(world: World) -> None:
    run = read_run(world.run)
    place = int(run.places_of("test")[0])
    path = world.folder / "clips" / f"{run.video_id[place]}.mp4"
    predicted = predict(world.run, [path], trial="theta=0.03,seed=1", device="cpu")
    own = run.probability[run.trials.index("theta=0.03,seed=1"), place].max(1)
    np.testing.assert_allclose(
        [probability for _, probability in predicted.found[0].segments], own, atol=2e-4
    )
    with pytest.raises(StoreError, match="no trained trial"):
        predict(world.run, [path], trial="seed=7")


def test_a_video_is_predicted_on_a_gpu(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Run.open(world.run, "heads")
    video_encoder = VideoEncoder(FeatureCache.open(world.cache))
    models = {trial.name: load_model(opened, trial) for trial in choose_trials(opened, None)}
    encode, precisions = PartEncoder.cnn, []

    def cnn(*inputs: Any) -> dict[str, Tensor]:
        precisions.append(torch.get_float32_matmul_precision())
        vectors = encode(*inputs)
        assert {values.device for values in vectors.values()} == {CUDA}
        return vectors

    monkeypatch.setattr(PartEncoder, "cnn", cnn)
    monkeypatch.setattr(predicting, "choose_device", lambda name: CUDA)
    monkeypatch.setattr(predicting, "VideoEncoder", lambda *_, **__: video_encoder)
    monkeypatch.setattr(predicting, "load_model", lambda run, trial, device: move(models[trial.name], device))
    monkeypatch.setattr(FakeTensor, "numpy", lambda values: np.zeros(values.shape))  # it has no numbers
    with fake_cuda(), Watch() as watch:
        (networks,) = video_encoder.networks
        move(networks.encoder.encoder, CUDA)
        networks.encoder.device = CUDA
        (found,) = predict(world.run, [world.folder / "clips" / "-0.mp4"], device="cuda").found
    assert len(found.segments) == T
    assert precisions == ["high"], "TF32, as caching takes it"
    assert sum(watch.reads.values()) == 2 + len(models), f"vectors, probabilities of each head: {watch.reads}"


@pytest.mark.parametrize(("seconds", "segments"), [(1, 1), (2, 2), (11, 11)])
def test_videos_of_any_length(world: World, tmp_path: Path, seconds: int, segments: int) -> None:
    video(tmp_path / "v.mp4", seconds, 250)
    (found,) = predict(world.run, [tmp_path / "v.mp4"], device="cpu").found
    assert len(found.segments) == segments
    assert found.valid_seconds == pytest.approx(seconds, abs=0.15)
    assert all(0 <= event.start_seconds < event.end_seconds <= found.valid_seconds for event in found.events)


def test_a_long_video_is_encoded_once_a_segment(world: World, tmp_path: Path) -> None:
    video(tmp_path / "v.mp4", 23, 100)
    video_encoder = VideoEncoder(FeatureCache.open(world.cache))
    pieces = [video_encoder.encode(tmp_path / "v.mp4").vectors[0]["cnn_v"]]
    assert pieces[0].shape[0] == 23
    assert torch.isfinite(pieces[0]).all()
    changes = (pieces[0][1:] - pieces[0][:-1]).abs().amax(1)
    assert (changes > 0).all()  # every second has another red


def test_files_and_failures(world: World, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    good = world.folder / "clips" / "-6.mp4"
    predicted = predict(
        world.run, [tmp_path / "broken.mp4", good], out=tmp_path / "events.json", device="cpu"
    )
    words = ["predict", str(world.run), str(good), "--out", str(tmp_path / "x.json"), "--device", "cpu"]
    assert run(cli, [*words, "--format", "activitynet"]) == DONE
    events = json.loads((tmp_path / "x.json").read_text())["database"]["-6"]["annotations"]
    assert [each["label"] for each in events] == [each.category for each in predicted.found[0].events]
    assert list(predicted.failed) == [str(tmp_path / "broken.mp4")]
    (read,) = json.loads((tmp_path / "events.json").read_text())
    assert read["video"] == str(good)
    assert predicted.written == (str(tmp_path / "events.json"),)
    assert predicted.lines()[0].startswith("video")
    lost = replace(predicted, found=())
    assert lost.lines() == [f"{video}: {why}" for video, why in lost.failed.items()], "no empty table"
    why = re.escape(predicted.failed[str(tmp_path / "broken.mp4")])
    with pytest.raises(AvelError, match=f"x.png: the video cannot be read: {why}"):
        predict(world.run, [tmp_path / "broken.mp4"], preview=tmp_path / "x.png", device="cpu")


def test_previews(world: World, tmp_path: Path) -> None:
    video(tmp_path / "v.mp4", 6, 250)
    for name in ("p.png", "p.mp4"):
        predict(world.run, [tmp_path / "v.mp4"], preview=tmp_path / name, device="cpu")
    assert Image.open(tmp_path / "p.png").size[0] > 1000
    with av.open(str(tmp_path / "v.mp4")) as source, av.open(str(tmp_path / "p.mp4")) as copy:
        assert copy.streams.video[0].width == source.streams.video[0].width
        assert copy.streams.video[0].height > source.streams.video[0].height
        wanted = [float(frame.time) for frame in source.decode(video=0)]
        times = [float(frame.time) for frame in copy.decode(video=0)]
    np.testing.assert_allclose(times, wanted, atol=0.002)
    with av.open(str(tmp_path / "p.mp4")) as copy:
        assert float(copy.streams.audio[0].duration * copy.streams.audio[0].time_base) == pytest.approx(
            6, abs=0.15
        )


def test_an_encoder_that_is_another_or_gone_is_refused(world: World, tmp_path: Path) -> None:
    good = world.folder / "clips" / "-6.mp4"
    save_encoder(
        build_encoder(pretrain_config(**RANDOM_TINY, crop_size=42, seed=1)), tmp_path / "encoder.safetensors"
    )
    with pytest.raises(StaleError, match="was made with"):
        predict(world.run, [good], encoder=tmp_path)
    with pytest.raises(MissingPathError, match="is not there"):
        predict(world.run, [good], encoder=tmp_path / "nowhere")


def test_staging_that_cannot_be_repeated_is_refused(world: World) -> None:
    cache = FeatureCache.open(world.cache)
    cache.provenance["staging"]["settings"]["size"] = 64
    with pytest.raises(StaleError, match="cannot stage clips as its clips were"):
        VideoEncoder(cache)


def test_a_cache_not_made_by_avel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="avel did not make these features"):
        VideoEncoder(FeatureCache.open(write_cache(tmp_path / "features.h5")))


def test_a_head_on_imported_features_has_no_encoder_to_see_with(world: World, tmp_path: Path) -> None:
    write_published(tmp_path / "ave", maps=False)
    import_features(tmp_path / "ave", tmp_path / "ave.h5")
    options = {"head": "mlp", "merge": "concatenate", "seeds": 1, "epochs": 1, "device": "cpu"}
    sweep(tmp_path / "ave.h5", tmp_path / "run", {}, **options)
    with pytest.raises(StoreError, match=r"cannot encode a video like them\n  next: .*avel cache-features"):
        predict(tmp_path / "run", [world.folder / "clips" / "-0.mp4"], device="cpu")


def test_what_cannot_be_asked_for(world: World, tmp_path: Path) -> None:
    two = [world.folder / "clips" / "-6.mp4", world.folder / "clips" / "-7.mp4"]
    with pytest.raises(ConfigError, match="no videos"):
        predict(world.run, [])
    with pytest.raises(ConfigError, match="holds one video"):
        predict(world.run, two, preview=tmp_path / "x.png")
    with pytest.raises(ConfigError, match="must end in"):
        predict(world.run, two, out=tmp_path / "x.doc")
    for out, kind in (("x.txt", "auto"), ("x", "vtt")):
        with pytest.raises(ConfigError, match="holds one video"):
            predict(world.run, two, out=tmp_path / out, format=kind)
    with pytest.raises(UnknownNameError, match="no format named 'srt'"):
        predict(world.run, two, out=tmp_path / "x.srt", format="srt")
    with pytest.raises(ConfigError, match="several videos are named '-6'"):
        predict(world.run, [two[0], tmp_path / "-6.mkv"], out=tmp_path / "x.tsv")
    (tmp_path / "link.mp4").symlink_to(two[0])
    before = two[0].read_bytes()
    for preview in (two[0], tmp_path / "link.mp4"):
        with pytest.raises(ConfigError, match="is one of the videos, and would be overwritten"):
            predict(world.run, two[:1], preview=preview)
    assert two[0].read_bytes() == before


def test_backbones_alone_are_known_by_the_hash_of_their_weights(world: World, tmp_path: Path) -> None:
    cache = tmp_path / "raw.h5"
    cache_features(world.folder / "s.zarr", cache, device="cpu", crop_size=42, **RANDOM_TINY)
    opened = FeatureCache.open(cache)
    features = VideoEncoder(opened).encode(world.folder / "clips" / f"{opened.video_ids[0]}.mp4")
    np.testing.assert_allclose(features.vectors[0]["cnn_v"], opened.f_v[0], atol=1e-5)
    opened.provenance["encoder"]["visual"]["weights"] = "0" * 64
    with pytest.raises(MissingPathError, match=r"visual weights of hash 0000.*; they must be given"):
        VideoEncoder(opened)
    with pytest.raises(StaleError, match="hash"):
        VideoEncoder(opened, weights={"visual": [world.cache]})


def test_cnns_that_a_seed_or_a_name_gives_otherwise_now_are_refused(world: World, tmp_path: Path) -> None:
    cache = tmp_path / "raw.h5"
    cache_features(world.folder / "s.zarr", cache, device="cpu", crop_size=42, **RANDOM_TINY)
    opened = FeatureCache.open(cache)
    opened.provenance["encoder"]["seed"] = 1
    with pytest.raises(StaleError, match=r"made with CNNs of weights [\s\S]*cache-features .*--overwrite"):
        VideoEncoder(opened)


def test_a_bilstm_predicts_in_bfloat16(world: World, tmp_path: Path) -> None:
    """Features and head in bfloat16, on whatever processor this is; near the run's own predictions."""
    cache, run = tmp_path / "c.h5", tmp_path / "run"
    options = {"keep_cnn": True, "device": "cpu", "dtype": "bfloat16"}
    cache_features(world.folder / "s.zarr", cache, encoder=world.encoder, **options)
    sweep(cache, run, {}, head="bilstm", epochs=20, batch_size=3, dtype="bfloat16", device="cpu")
    own = read_run(run)
    place = int(own.places_of("test")[0])
    predicted = predict(run, [world.folder / "clips" / f"{own.video_id[place]}.mp4"], device="cpu")
    probabilities = [probability for _, probability in predicted.found[0].segments]
    np.testing.assert_allclose(probabilities, own.probability[0, place].max(1), atol=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("head", ["tacma", "avel"])
def test_a_gpu_predicts_what_the_cpu_does(world: World, tmp_path: Path, head: str, dtype: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    sweep(world.cache, tmp_path / "run", {}, head=head, epochs=20, batch_size=3, dtype=dtype, device="cuda")
    clip = world.folder / "clips" / "-7.mp4"
    there, here = (predict(tmp_path / "run", [clip], device=device).found[0] for device in ("cuda", "cpu"))
    probabilities = [[probability for _, probability in found.segments] for found in (there, here)]
    np.testing.assert_allclose(probabilities[0], probabilities[1], atol=2e-3 if dtype == "float32" else 0.03)
