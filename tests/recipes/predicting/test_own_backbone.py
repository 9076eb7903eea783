"""CNNs from outside avel with settings of their own: pretrained with, cached, recorded and predicted with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from torch import Tensor
from torchaudio.functional import resample

from avel.cli import cli
from avel.config import ComponentConfig, option
from avel.errors import ConfigError, StaleError, StoreError, UnknownNameError
from avel.heads.train import train_head
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES
from avel.pipeline.encoders.backbones import AudioBackbone, FrameInput, VisualBackbone, WaveformInput
from avel.pipeline.encoders.saved import load_encoder
from avel.pipeline.encoders.waveform import WindowConfig, windows
from avel.pipeline.encoders.weights import StateDict, load_into
from avel.pipeline.pretraining.augment import centre_crop
from avel.pipeline.pretraining.pretrain import pretrain
from avel.pipeline.staging.extract import extract
from avel.recipes.predicting.predict import predict
from avel.recipes.predicting.video_encoder import VideoEncoder
from avel.stores.clips import ClipStore
from avel.stores.features import FeatureCache
from avel.stores.runs import Run
from tests.pipeline.caching.small_stores import write_store
from tests.recipes.predicting.hued_clips import write_clips

T = 3
CHOSEN: dict[str, Any] = {
    "visual_backbone": "stripes",
    "visual_side": 12,
    "visual_weights": "random",
    "audio_backbone": "bands",
    "audio_side": 16,
    "audio_weights": "random",
}
SMALL: dict[str, Any] = {"projector": "8-8", "hidden": 4, "crop_size": 48, "epochs": 1, "device": "cpu"}


@VISUAL_BACKBONES.register("stripes")
class Stripes(VisualBackbone):
    """One strided convolution."""

    @dataclass(frozen=True)
    class Config(ComponentConfig):
        side: int = option(24, "Height and width of a patch in pixels.", low=1)

    width = 8

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.project = torch.nn.Conv2d(3, 8, config.side, config.side)

    def maps(self, frames: Tensor) -> Tensor:
        maps: Tensor = self.project(frames)
        return maps

    def load_published(self, state: StateDict, where: str) -> None:
        load_into(self, state, where)


@AUDIO_BACKBONES.register("bands")
class Bands(AudioBackbone):
    """Means over parts of the patch, of as many mel bands as `side` says."""

    @dataclass(frozen=True)
    class Config(ComponentConfig):
        side: int = option(8, "Mel bands of one part.", low=1)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.width = 64 // config.side
        self.scale = torch.nn.Parameter(torch.ones(self.width))

    def forward(self, log_mel: Tensor) -> Tensor:
        return log_mel.mean(1).unflatten(1, (self.width, -1)).mean(2) * self.scale

    def load_published(self, state: StateDict, where: str) -> None:
        load_into(self, state, where)


@VISUAL_BACKBONES.register("pairs")
class Pairs(Stripes):
    """The difference between the first and the last of four frames that it sees together."""

    @dataclass(frozen=True)
    class Config(Stripes.Config):
        """The same settings."""

    @classmethod
    def reads(cls, config: ComponentConfig) -> FrameInput:
        return FrameInput(frames=4, pixels=32)

    def maps(self, frames: Tensor) -> Tensor:
        return self.project(frames[:, -1] - frames[:, 0])


@AUDIO_BACKBONES.register("loudness")
class Loudness(AudioBackbone):
    """The mean magnitude of eight parts of a window at 4 kHz."""

    @dataclass(frozen=True)
    class Config(WindowConfig):
        """Window of the waveform."""

    width = 8

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(8))

    @classmethod
    def reads(cls, config: ComponentConfig) -> WaveformInput:
        return WaveformInput(4000, config.window_seconds)

    def forward(self, audio: Tensor) -> Tensor:
        return audio.unflatten(1, (8, -1)).abs().mean(2) * self.scale

    def load_published(self, state: StateDict, where: str) -> None:
        load_into(self, state, where)


def test_the_sound_after_the_end_of_a_clip_is_not_heard(tmp_path: Path) -> None:
    """A window of the last segment reaches past the end of a clip that is shorter than others."""
    lengths = {"-a": 3.0, "-b": 2.0, "-c": 1.0}
    store = write_store(tmp_path / "s.zarr", list(lengths), seconds=lengths)
    options = {"visual_backbone": "pairs", "audio_backbone": "loudness", "audio_window_seconds": 1.6}
    random = {"visual_weights": "random", "audio_weights": "random", "untrained": True, "keep_cnn": True}
    cache_features(store, tmp_path / "c.h5", **options, **random)
    cache, clips = FeatureCache.open(tmp_path / "c.h5"), ClipStore.open(store)
    for place, (name, seconds) in enumerate(lengths.items()):
        length = int(seconds)
        waveform = torch.from_numpy(clips.waveform(name).copy())
        waveform[length * 16000 :] = 0
        window = windows(waveform[None], 16000, 1.0, range(length), WaveformInput(4000, 1.6))[0]
        wanted = window.unflatten(1, (8, -1)).abs().mean(2)
        np.testing.assert_allclose(cache.read("cnn_a")[place, :length], wanted, rtol=1e-4, atol=1e-6)
        assert not cache.read("cnn_a")[place, length:].any()
        assert not cache.read("cnn_v")[place, length:].any()


def avel(*words: object) -> None:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)


def flags(settings: Mapping[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of two classes, staged, and a run of `avel pretrain` with the CNNs of this file."""
    folder = tmp_path_factory.mktemp("own")
    annotations = write_clips(folder, 6, T)
    extract(folder / "clips", folder / "s.zarr", annotations=annotations, segments=T, size=48, workers=1)
    avel("pretrain", folder / "s.zarr", folder / "avbt", *flags(CHOSEN | SMALL))
    return folder


def test_a_run_and_its_encoder_record_the_settings(folder: Path) -> None:
    record = json.loads((folder / "avbt" / "run.json").read_text())["config"]
    assert record["visual"] == {"backbone": "stripes", "stripes": {"side": 12}, "weights": "random"}
    assert record["audio"] == {"backbone": "bands", "bands": {"side": 16}, "weights": "random"}
    with safe_open(folder / "avbt" / "encoder.safetensors", framework="pt") as file:
        spec = json.loads(file.metadata()["encoder"])
    assert spec["visual"] == {"backbone": "stripes", "stripes": {"side": 12}, "variant": "default"}
    encoder = load_encoder(folder / "avbt")
    assert (encoder.visual.config, encoder.audio.config) == (Stripes.Config(side=12), Bands.Config(side=16))
    assert encoder.visual.project.kernel_size == (12, 12)
    assert encoder.audio.width == 4


def test_runs_with_other_settings_are_other_runs(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"visual\.stripes\.side was 12, is now 24"):
        pretrain(folder / "s.zarr", folder / "avbt", **CHOSEN | SMALL | {"visual_side": 24})
    start = {"start_from": str(folder / "avbt")}
    with pytest.raises(StoreError, match="visual_side is 12 there and 24 here") as caught:
        pretrain(folder / "s.zarr", tmp_path / "run", **CHOSEN | SMALL | start | {"visual_side": 24})
    assert caught.value.hint == "--set visual_side=12"
    pretrain(folder / "s.zarr", tmp_path / "run", **CHOSEN | SMALL | start)
    assert Run.open(tmp_path / "run").finished


@pytest.mark.parametrize("trained", [True, False])
def test_a_cache_records_the_settings_and_predicts_with_them(
    folder: Path, tmp_path: Path, trained: bool
) -> None:
    path, given = tmp_path / "c.h5", {"encoder": folder / "avbt"} if trained else CHOSEN
    cache_features(folder / "s.zarr", path, device="cpu", keep_cnn=True, **given)
    cache = FeatureCache.open(path)
    assert cache.provenance["encoder"]["visual"]["stripes"] == {"side": 12}
    assert cache.provenance["encoder"]["audio"]["bands"] == {"side": 16}
    features = VideoEncoder(cache).encode(folder / "clips" / "4.mp4")
    place = cache.video_ids.index("4")
    for name in ("cnn_a", "cnn_v"):
        np.testing.assert_allclose(features.vectors[0][name], cache.read(name)[place], atol=1e-5)
    train_head(path, tmp_path / "run", head="mlp", merge="concatenate", epochs=1, device="cpu")
    assert len(predict(tmp_path / "run", [folder / "clips" / "4.mp4"], device="cpu").found) == 1


OTHER_INPUTS: dict[str, Any] = {
    "visual_backbone": "pairs",
    "visual_side": 8,
    "visual_weights": "random",
    "audio_backbone": "loudness",
    "audio_weights": "random",
}


@pytest.mark.parametrize("seconds", [None, 2.0])
def test_waveforms_and_several_frames_are_cached_and_predicted_alike(
    folder: Path, tmp_path: Path, seconds: float | None
) -> None:
    path, wave = tmp_path / "c.h5", {"audio_window_seconds": seconds}
    cache_features(folder / "s.zarr", path, device="cpu", batch_size=4, **OTHER_INPUTS | wave)
    cache, clips = FeatureCache.open(path), ClipStore.open(folder / "s.zarr")
    assert cache.provenance["preprocessing"]["frames"] == [2, 6, 10, 14]
    assert cache.provenance["preprocessing"]["crop_size"] == 32
    assert cache.provenance["preprocessing"]["waveform"] == {"sample_rate": 4000, "seconds": seconds}
    place = cache.video_ids.index("4")
    waveform = torch.from_numpy(clips.waveform("4")).float()[None] / 32768
    half = round(2000 * (seconds or 1))
    padded = torch.nn.functional.pad(resample(waveform, 16000, 4000), (half, half))[0]
    middles = [half + 2000 + segment * 4000 for segment in range(T)]
    cut = torch.stack([padded[middle - half : middle + half] for middle in middles])
    f_a = cut.unflatten(1, (8, -1)).abs().mean(2)
    np.testing.assert_allclose(cache.read("f_a")[place], f_a, atol=1e-5)
    encoder = VideoEncoder(cache)
    frames = torch.from_numpy(clips.frames("4", [2, 14, 18, 30, 34, 46])).permute(0, 3, 1, 2)
    shown = centre_crop(frames[None], 32)[0]
    f_v = encoder.networks[0].encoder.encoder.visual.project(shown[1::2] - shown[::2]).mean((2, 3)).detach()
    np.testing.assert_allclose(cache.read("f_v")[place], f_v, atol=1e-5)
    features = encoder.encode(folder / "clips" / "4.mp4")
    np.testing.assert_allclose(features.vectors[0]["cnn_a"], f_a, atol=1e-5)
    np.testing.assert_allclose(features.vectors[0]["cnn_v"], f_v, atol=1e-5)


def test_what_pretraining_does_not_feed_is_refused(folder: Path, tmp_path: Path) -> None:
    for name, message in (
        ("visual_backbone", "pairs sees several frames"),
        ("audio_backbone", "loudness reads"),
    ):
        other = {key: value for key, value in CHOSEN.items() if not key.endswith("side")}
        with pytest.raises(ConfigError, match=message) as caught:
            pretrain(folder / "s.zarr", tmp_path / "run", **other | SMALL | {name: OTHER_INPUTS[name]})
        assert "avel cache-features" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_store_without_waveforms_says_how_to_get_them(folder: Path, tmp_path: Path) -> None:
    annotations, store = folder / "events.csv", tmp_path / "s.zarr"
    extract(folder / "clips", store, annotations=annotations, segments=T, size=48, workers=1, waveform=False)
    with pytest.raises(StoreError, match="holds no waveforms") as caught:
        cache_features(store, tmp_path / "c.h5", device="cpu", **OTHER_INPUTS)
    assert "without --no-waveform" in caught.value.hint


def test_a_cache_made_with_other_settings_is_stale_and_the_hint_makes_it(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "c.h5"
    cache_features(folder / "s.zarr", path, device="cpu", **CHOSEN)
    other = CHOSEN | {"visual_side": 24, "audio_side": 32}
    with pytest.raises(StaleError, match=r"encoder\.visual\.stripes\.side was 12, is now 24") as caught:
        cache_features(folder / "s.zarr", path, device="cpu", **other)
    command = caught.value.hint.partition(" makes it again")[0].split()
    assert command[:2] == ["avel", "cache-features"]
    assert "audio_side=32" in command
    assert "visual_side=24" not in command, "which is its default"
    avel(*command[1:])
    assert FeatureCache.open(path).provenance["encoder"]["visual"]["stripes"] == {"side": 24}
    assert cache_features(folder / "s.zarr", path, device="cpu", **other).encoded == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"visual_side": 0}, ConfigError, "visual_side=0 must be at least 1"),
        ({"visual_stripes": 3}, UnknownNameError, "no setting named 'visual_stripes'"),
    ],
)
def test_a_backbones_settings_are_checked(
    folder: Path, tmp_path: Path, options: dict[str, Any], error: type[ConfigError], message: str
) -> None:
    with pytest.raises(error, match=message):
        pretrain(folder / "s.zarr", tmp_path / "run", **CHOSEN | SMALL | options)
    assert not (tmp_path / "run").exists()
