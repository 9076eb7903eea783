"""Tiny models of timm and transformers, made here: what the libraries compute; folders; the hub."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avel.config import resolve
from avel.errors import ConfigError, WeightsError
from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES, CacheConfig
from avel.pipeline.encoders.backbones import FrameInput, WaveformInput, load_backbone
from avel.pipeline.encoders.hub import HubBackbone
from avel.registry import Registry

FRAMES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def loaded(registry: Registry[Any], name: str, model: Path | str, **settings: Any) -> Any:
    backbone = registry[name](registry[name].Config(model=str(model), **settings)).eval()
    load_backbone(backbone, "published", "--some-weights")
    return backbone


def image(path: Path, size: int = 32, mean: float = 0.4) -> Path:
    """The preprocessing of an image model."""
    kept = {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": True,
        "size": {"shortest_edge": 40},
    }
    kept |= {"crop_size": {"height": size, "width": size}}
    kept |= {"image_mean": [mean, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (path / "preprocessor_config.json").write_text(json.dumps(kept))
    return path


def pixels() -> torch.Tensor:
    mean, std = torch.tensor([[0.4, 0.5, 0.6], [0.2, 0.3, 0.4]])[:, :, None, None]
    return (FRAMES - mean) / std


def check_one_pass(backbone: Any) -> None:
    """Vectors and maps together are those of `forward` and `maps`, and no layer runs twice."""
    expected, passes = (backbone(FRAMES), backbone.maps(FRAMES)), list[str]()
    for name, module in backbone.net.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: passes.append(name))
    backbone(FRAMES)
    once = sorted(passes)
    passes.clear()
    torch.testing.assert_close(backbone.vectors_and_maps(FRAMES), expected)
    assert sorted(passes) == once


@torch.no_grad()
@pytest.mark.parametrize(("name", "side"), [("test_vit", 2), ("test_efficientnet", 1)])
def test_timm_gives_its_pooled_vectors_and_maps(name: str, side: int, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="pip install 'avel[timm]'")
    torch.manual_seed(0)
    size = {"img_size": 32} if "vit" in name else {}
    net = timm.create_model(name, num_classes=7, **size).eval()
    timm.models.save_for_hf(net, tmp_path, model_args=size or None)
    kept = json.loads((tmp_path / "config.json").read_text())
    kept["pretrained_cfg"]["input_size"] = [3, 32, 32]
    (tmp_path / "config.json").write_text(json.dumps(kept))
    backbone = loaded(VISUAL_BACKBONES, "timm", tmp_path)
    assert backbone.pretrained
    assert backbone.reads(backbone.config) == FrameInput(pixels=32)
    mean, std = (torch.tensor(net.pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))
    features = net.forward_features((FRAMES - mean) / std)
    torch.testing.assert_close(backbone(FRAMES), net.forward_head(features, pre_logits=True))
    assert backbone(FRAMES).shape == (2, backbone.width)
    maps = backbone.maps(FRAMES)
    if features.dim() == 3:
        assert torch.equal(maps[:, :, 0, 1], features[:, -side * side + 1])
    else:
        assert torch.equal(maps, features)
    assert maps.shape == (2, net.num_features, side, side)
    check_one_pass(backbone)


def test_timm_knows_where_weights_are_without_making_a_model() -> None:
    pytest.importorskip("timm", reason="pip install 'avel[timm]'")
    timm_visual = VISUAL_BACKBONES["timm"]
    assert timm_visual.repository("test_vit") == "timm/test_vit.r160_in1k"
    assert timm_visual.reads(timm_visual.Config(model="test_vit")) == FrameInput(pixels=160)
    with pytest.raises(ConfigError, match="timm:no_such_net"):
        timm_visual(timm_visual.Config(model="no_such_net"))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2"])
def test_a_vision_tower_gives_what_transformers_gives(kind: str, tmp_path: Path) -> None:
    hf = pytest.importorskip("transformers", reason="pip install 'avel[hf]'")
    torch.manual_seed(0)
    vision, text = TINY | {"image_size": 32, "patch_size": 8}, TINY | {"vocab_size": 9}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    if kind == "clip":
        net = hf.CLIPModel(hf.CLIPConfig(vision_config=vision, text_config=text | ends)).eval()
    elif kind == "siglip":
        net = hf.SiglipModel(hf.SiglipConfig(vision_config=vision, text_config=text | ends)).eval()
    else:
        net = hf.Dinov2Model(hf.Dinov2Config(**vision)).eval()
    net.save_pretrained(tmp_path)
    backbone = loaded(VISUAL_BACKBONES, "hf", image(tmp_path))
    assert backbone.reads(backbone.config) == FrameInput(pixels=32)
    expected = getattr(net, "vision_model", net)(pixel_values=pixels())
    torch.testing.assert_close(backbone(FRAMES), expected.pooler_output)
    maps = backbone.maps(FRAMES)
    assert (backbone.width, maps.shape) == (16, (2, 16, 4, 4))
    assert torch.equal(maps[:, :, 3, 2], expected.last_hidden_state[:, -2])
    check_one_pass(backbone)


def audio_model(hf: Any, kind: str) -> tuple[Any, Any]:
    """A tiny model, and its feature extractor for windows of half a second."""
    if kind == "clap":
        audio = {"spec_size": 64, "patch_embeds_hidden_size": 16, "depths": [1, 1], "num_hidden_layers": 2}
        audio |= {"num_attention_heads": [2, 2], "hidden_size": 32, "window_size": 4, "num_mel_bins": 16}
        text = TINY | {"vocab_size": 9, "projection_dim": 8}
        net = hf.ClapModel(hf.ClapConfig(audio_config=audio, text_config=text, projection_dim=8))
        return net, hf.ClapFeatureExtractor(
            feature_size=16, sampling_rate=8000, hop_length=100, max_length_s=1, fft_window_size=256,
            frequency_max=4000, truncation="rand_trunc", padding="repeatpad",
        )  # fmt: skip
    if kind == "ast":
        shape = {"num_mel_bins": 16, "max_length": 64}
        strides = {"patch_size": 8, "frequency_stride": 8, "time_stride": 8}
        return hf.ASTModel(hf.ASTConfig(**TINY, **shape, **strides)), hf.ASTFeatureExtractor(**shape)
    convolutions = {"conv_dim": [16] * 3, "conv_stride": [5, 4, 4], "conv_kernel": [10, 8, 4]}
    places = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    net = hf.Wav2Vec2Model(hf.Wav2Vec2Config(**TINY, **convolutions, **places))
    return net, hf.Wav2Vec2FeatureExtractor(do_normalize=True)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "rate"), [("clap", 8000), ("ast", 16000), ("wav2vec2", 16000)])
def test_an_audio_model_gives_what_transformers_gives(kind: str, rate: int, tmp_path: Path) -> None:
    hf = pytest.importorskip("transformers", reason="pip install 'avel[hf]'")
    torch.manual_seed(0)
    net, extractor = audio_model(hf, kind)
    net.eval().save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    backbone = loaded(AUDIO_BACKBONES, "hf", tmp_path, window_seconds=0.5)
    assert backbone.reads(backbone.config) == WaveformInput(rate, 0.5)
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (2, rate // 2)).astype(np.float32)
    given = extractor([*audio], sampling_rate=rate, return_tensors="pt")
    found = getattr(net, "audio_model", net)(**given)
    expected = found.last_hidden_state.mean(1) if kind == "wav2vec2" else found.pooler_output
    torch.testing.assert_close(backbone(torch.from_numpy(audio)), expected)
    assert backbone.width == expected.shape[1]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder with a tiny CLIP."""
    hf = pytest.importorskip("transformers", reason="pip install 'avel[hf]'")
    torch.manual_seed(0)
    net = hf.CLIPVisionModel(hf.CLIPVisionConfig(**TINY, image_size=32, patch_size=8))
    net.save_pretrained(tmp_path / "clip")
    return image(tmp_path / "clip")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's folder on this machine, empty, where there is no network."""
    hub = pytest.importorskip("huggingface_hub", reason="pip install 'avel[hf]'")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@torch.no_grad()
def test_a_model_of_the_hub_is_pinned_to_its_commit(clip: Path, offline: Path) -> None:
    """Its settings, too: the newest revision has other weights and takes other frames."""
    place, newer = offline / "models--some--clip", COMMIT[::-1]
    shutil.copytree(clip, place / "snapshots" / COMMIT)
    expected = loaded(VISUAL_BACKBONES, "hf", clip)(FRAMES)
    shutil.copytree(image(clip, size=40, mean=0.1), place / "snapshots" / newer)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(newer)
    (place / "refs" / "v1").write_text(COMMIT)
    backbone, any_revision = VISUAL_BACKBONES["hf"], VISUAL_BACKBONES["hf"].Config(model="some/clip")
    for weights in ("published", "random"):
        assert backbone.pinned(any_revision, weights) == replace(any_revision, revision=newer)
        config = backbone.pinned(replace(any_revision, revision="v1"), weights)
        assert config == replace(any_revision, revision=COMMIT)
    assert backbone.reads(config) == FrameInput(pixels=32)
    pinned = loaded(VISUAL_BACKBONES, "hf", "some/clip", revision=COMMIT)
    torch.testing.assert_close(pinned(FRAMES), expected, rtol=0, atol=0)
    with pytest.raises(WeightsError, match="some/clip at revision v2 is not on this machine"):
        backbone.pinned(replace(config, revision="v2"), "published")
    with pytest.raises(WeightsError, match="v1: no such weights file"):
        load_backbone(pinned, "v1", "--visual-weights")


def test_without_a_network_the_error_says_what_to_put_where(offline: Path) -> None:
    backbone = VISUAL_BACKBONES["hf"]
    with pytest.raises(WeightsError, match="org/net is not on this machine") as caught:
        backbone(backbone.Config(model="org/net"))
    assert "hf download org/net" in caught.value.hint
    assert "hf:FOLDER" in caught.value.hint


def test_a_folders_weights_are_named_by_what_is_in_them(clip: Path) -> None:
    backbone, config = VISUAL_BACKBONES["hf"], VISUAL_BACKBONES["hf"].Config(model=str(clip))
    before = backbone.weights_name(config, "published")
    load_backbone(backbone(config), before, "--visual-weights")
    assert backbone.weights_name(config, "random") == "random"
    (clip / "model.safetensors").write_bytes((clip / "model.safetensors").read_bytes()[:-4] + b"\0\0\0\1")
    now = backbone.weights_name(config, "published")
    assert now != before
    image(clip, size=40)  # other frames are other features, too
    assert backbone.weights_name(config, "published") not in (before, now)
    (clip / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="no weights, neither"):
        load_backbone(backbone(config), "published", "--visual-weights")


@pytest.mark.parametrize("text", ["timm:test_vit", "timm"])
def test_a_model_is_named_after_a_colon(text: str) -> None:
    pytest.importorskip("timm", reason="pip install 'avel[timm]'")
    options = {"visual_backbone": text} | ({} if ":" in text else {"visual_model": "test_vit"})
    config = resolve(CacheConfig, "cache-features", options=options)
    assert config.visual.backbone == VISUAL_BACKBONES["timm"].Config(model="test_vit")
    assert resolve(CacheConfig, "cache-features", base=config) == config


def test_a_backbone_that_wraps_no_model_refuses_one() -> None:
    with pytest.raises(ConfigError, match="resnet18 wraps no models"):
        resolve(CacheConfig, "cache-features", options={"visual_backbone": "resnet18:small"})


def test_a_model_must_be_named(offline: Path) -> None:
    for registry in (VISUAL_BACKBONES, AUDIO_BACKBONES):
        assert issubclass(registry["hf"], HubBackbone)
        with pytest.raises(ConfigError, match="none is named") as caught:
            registry["hf"](registry["hf"].Config())
        assert caught.value.hint == "hf:NAME"


def test_timm_needs_a_name_or_a_folder_with_its_settings(tmp_path: Path) -> None:
    backbone = VISUAL_BACKBONES["timm"]
    with pytest.raises(ConfigError, match="none is named"):
        backbone.reads(backbone.Config())
    with pytest.raises(WeightsError, match="no settings of a model of timm"):
        backbone.reads(backbone.Config(model=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"hidden_size": 16}')
    with pytest.raises(WeightsError, match="'input_size'"):
        backbone.reads(backbone.Config(model=str(tmp_path)))
