"""Backbones: what they compute, the layouts they load, and what they say when weights are not there."""

import hashlib
import importlib.util
import io
import pickle
import re
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models

from avel.errors import UnknownNameError, WeightsError
from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES
from avel.pipeline.encoders.backbones import Backbone, FrameInput, WaveformInput, load_backbone
from avel.pipeline.encoders.weights import PublishedWeights, fetch
from avel.pipeline.encoders.yamnet import own_log_mel
from avel.registry import Registry
from avel.stores.tensors import read_state
from tests.pipeline.configs import made

IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]


def images(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def randomise(net: nn.Module) -> nn.Module:
    """Batch norms with statistics of their own, so that a wrong mode or order shows."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.rand(module.num_features, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return net.eval()


@pytest.mark.parametrize(
    ("name", "width", "cells"),
    [
        ("resnet18", 512, 2),
        ("resnet34", 512, 2),
        ("resnet50", 2048, 2),
        ("mobilenet_v2", 1280, 2),
        ("vgg19", 512, 2),
        ("tiny", 128, 4),
    ],
)
def test_a_visual_backbone_gives_maps_and_their_mean(name: str, width: int, cells: int) -> None:
    backbone = made(VISUAL_BACKBONES, name).eval()
    with torch.no_grad():
        maps, vectors = backbone.maps(images()), backbone(images())
    assert backbone.width == width
    assert maps.shape == (2, width, cells, cells)
    torch.testing.assert_close(vectors, maps.mean((2, 3)))


@pytest.mark.parametrize(("name", "width"), [("vggish", 128), ("yamnet", 1024), ("tiny", 128)])
def test_an_audio_backbone_gives_one_vector_a_patch(name: str, width: int) -> None:
    backbone = made(AUDIO_BACKBONES, name).eval()
    with torch.no_grad():
        assert backbone(torch.randn(2, 96, 64)).shape == (2, width)
    assert backbone.width == width


def published(net: nn.Module, path: Path, **more: torch.Tensor) -> str:
    """A file of weights as torchvision or the authors of a network publish them."""
    torch.save(net.state_dict() | more, path)
    return str(path)


@torch.no_grad()
def test_vgg19_is_torchvisions_up_to_pool5(tmp_path: Path) -> None:
    with torch.device("meta"):
        net = models.vgg19(weights=None, init_weights=False).eval()
    net.features.to_empty(device="cpu")
    for weight in net.features.parameters():
        weight.normal_(0, 0.05)
    backbone = made(VISUAL_BACKBONES, "vgg19").eval()
    features = {f"features.{name}": value for name, value in net.features.state_dict().items()}
    torch.save(features | {"classifier.0.bias": torch.zeros(1)}, tmp_path / "vgg.pth")
    load_backbone(backbone, str(tmp_path / "vgg.pth"), "--visual-weights")
    expected = net.features((images() - IMAGENET[:1]) / IMAGENET[1:])
    assert net.features[-1](torch.zeros(1, 1, 4, 4)).shape == (1, 1, 2, 2), "pool5 is the last layer"
    torch.testing.assert_close(backbone.maps(images()), expected)


@torch.no_grad()
def test_r2plus1d_sees_all_frames_of_a_segment_as_torchvision_does(tmp_path: Path) -> None:
    net = randomise(models.video.r2plus1d_18(weights=None))
    backbone = made(VISUAL_BACKBONES, "r2plus1d_18").eval()
    assert backbone.reads(backbone.config) == FrameInput(frames=16, pixels=112)
    load_backbone(backbone, published(net, tmp_path / "net.pth"), "--visual-weights")
    clips = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([[0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]])
    pictures = (clips.transpose(1, 2) - mean[:, None, None, None]) / std[:, None, None, None]
    net.fc = nn.Identity()
    torch.testing.assert_close(backbone(clips), net(pictures))
    assert backbone.maps(clips).shape == (2, 512, 2, 2)


def panns_log_mel(waveform: np.ndarray) -> np.ndarray:
    """PANNs' front end in float64: 1024 samples a window, 320 a hop, 64 of Slaney's mel bands, decibels."""
    padded = np.pad(waveform.astype(np.float64), 512, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    starts = range(0, len(waveform) + 1, 320)
    power = np.abs(np.fft.rfft([padded[at : at + 1024] * hann for at in starts])) ** 2

    def mel(hertz: float) -> float:
        return hertz / (200 / 3) if hertz < 1000 else 15 + np.log(hertz / 1000) / (np.log(6.4) / 27)

    def hertz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * np.exp((mel - 15) * np.log(6.4) / 27)

    edges = [hertz(step) for step in np.linspace(mel(50), mel(14000), 66)]
    bins = np.arange(513) * 32000 / 1024
    triangles = [
        np.clip(np.minimum((bins - low) / (top - low), (high - bins) / (high - top)), 0, None)
        * 2
        / (high - low)
        for low, top, high in zip(edges, edges[1:], edges[2:], strict=False)
    ]
    return 10 * np.log10(np.maximum(power @ np.array(triangles).T, 1e-10))


@torch.no_grad()
def test_cnn14_computes_what_panns_does_from_its_checkpoints_layout(tmp_path: Path) -> None:
    backbone = randomise(made(AUDIO_BACKBONES, "cnn14"))
    assert backbone.reads(backbone.config) == WaveformInput(32000, None)
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert {"bn0.weight", "conv_block1.conv1.weight", "conv_block6.bn2.running_var", "fc1.bias"} <= {*state}
    others = ("spectrogram_extractor.stft.conv_real.weight", "logmel_extractor.melW", "fc_audioset.weight")
    torch.save({"model": state | {name: torch.zeros(1) for name in others}}, tmp_path / "Cnn14.pth")
    loaded = made(AUDIO_BACKBONES, "cnn14").eval()
    load_backbone(loaded, str(tmp_path / "Cnn14.pth"), "--audio-weights")
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 11200)).astype(np.float32)
    log_mel = np.stack([panns_log_mel(clip) for clip in waveform])
    np.testing.assert_allclose(loaded.front_end(torch.from_numpy(waveform))[:, 0], log_mel, atol=2e-3)
    x = torch.from_numpy(log_mel).float()[:, None]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias)

    x = norm(x.transpose(1, 3), "bn0").transpose(1, 3)
    for block in range(1, 7):
        for number in (1, 2):
            convolved = F.conv2d(x, state[f"conv_block{block}.conv{number}.weight"], padding=1)
            x = F.relu(norm(convolved, f"conv_block{block}.bn{number}"))
        x = F.avg_pool2d(x, 2) if block < 6 else x
    pooled = x.mean(3).max(2).values + x.mean(3).mean(2)
    expected = F.relu(F.linear(pooled, state["fc1.weight"], state["fc1.bias"]))
    torch.testing.assert_close(loaded(torch.from_numpy(waveform)), expected, atol=1e-3, rtol=1e-3)


def test_an_unknown_backbone_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="resnet50"):
        VISUAL_BACKBONES["resnet5"]


def test_resnet_loads_torchvisions_file_with_its_classifier(tmp_path: Path) -> None:
    net = randomise(models.resnet18(weights=None))
    torch.save(net.state_dict(), tmp_path / "net.pth")
    backbone = made(VISUAL_BACKBONES, "resnet18").eval()
    load_backbone(backbone, str(tmp_path / "net.pth"), "--visual-weights")
    net.fc = nn.Identity()
    with torch.no_grad():
        expected = net((images() - IMAGENET[0]) / IMAGENET[1])
        torch.testing.assert_close(backbone(images()), expected)
    assert backbone.pretrained


def test_mobilenet_with_a_thousand_classes_is_torchvisions(tmp_path: Path) -> None:
    net = randomise(models.mobilenet_v2(weights=None))
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    backbone = made(VISUAL_BACKBONES, "mobilenet_v2").eval()
    load_backbone(backbone, str(tmp_path / "net.safetensors"), "--visual-weights")
    with torch.no_grad():
        expected = net.features((images() - IMAGENET[0]) / IMAGENET[1]).mean((2, 3))
        torch.testing.assert_close(backbone(images()), expected)
    assert backbone.variant == "default"


def test_mobilenet_without_classifier_is_refused(tmp_path: Path) -> None:
    save_file(models.mobilenet_v2(weights=None).features.state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match="classifier"):
        load_backbone(made(VISUAL_BACKBONES, "mobilenet_v2"), str(tmp_path / "net.safetensors"), "")


@pytest.mark.shared
def test_mobilenet_with_a_background_class_is_tensorflows(data: Path) -> None:
    path = data / "weights/mobilenet_v2_imagenet.safetensors"
    net = models.mobilenet_v2(num_classes=1001)
    net.load_state_dict(load_file(path))
    for module in net.modules():  # TensorFlow's SAME: one row below, one column to the right
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            module.padding = (0, 0)
            module.register_forward_pre_hook(lambda _, inputs: (F.pad(inputs[0], (0, 1, 0, 1)),))
    backbone = made(VISUAL_BACKBONES, "mobilenet_v2").eval()
    load_backbone(backbone, str(path), "--visual-weights")
    frames = images(size=224)
    with torch.no_grad():
        expected = net.eval().features(frames * 255 / 127.5 - 1).mean((2, 3))
        torch.testing.assert_close(backbone(frames), expected, rtol=1e-4, atol=1e-4)
    assert backbone.variant == "tensorflow"


def vggish_longhand(state: dict[str, torch.Tensor], patch: torch.Tensor) -> torch.Tensor:
    """VGGish layer by layer, the flattening in TensorFlow's order: (96, 64) -> (128,)."""
    x = patch[None, None]
    for number, pooled in ((0, True), (3, True), (6, False), (8, True), (11, False), (13, True)):
        x = F.relu(
            F.conv2d(x, state[f"features.{number}.weight"], state[f"features.{number}.bias"], padding=1)
        )
        x = F.max_pool2d(x, 2) if pooled else x
    flat = torch.stack([x[0, :, time, band] for time in range(6) for band in range(4)]).flatten()
    for number in (0, 2, 4):
        flat = F.relu(state[f"embeddings.{number}.weight"] @ flat + state[f"embeddings.{number}.bias"])
    return flat


def test_vggish_computes_torchvggishs_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = made(AUDIO_BACKBONES, "vggish").state_dict()
    assert {name: tuple(value.shape) for name, value in state.items() if name.endswith("weight")} == {
        "features.0.weight": (64, 1, 3, 3),
        "features.3.weight": (128, 64, 3, 3),
        "features.6.weight": (256, 128, 3, 3),
        "features.8.weight": (256, 256, 3, 3),
        "features.11.weight": (512, 256, 3, 3),
        "features.13.weight": (512, 512, 3, 3),
        "embeddings.0.weight": (4096, 12288),
        "embeddings.2.weight": (4096, 4096),
        "embeddings.4.weight": (128, 4096),
    }
    published = state | {"pproc.pca_means": torch.zeros(128, 1)}
    torch.save(published, tmp_path / "vggish.pth")
    backbone = made(AUDIO_BACKBONES, "vggish")
    load_backbone(backbone, str(tmp_path / "vggish.pth"), "--audio-weights")
    patches = torch.randn(2, 96, 64)
    with torch.no_grad():
        expected = torch.stack([vggish_longhand(state, patch) for patch in patches])
        torch.testing.assert_close(backbone(patches), expected, rtol=1e-4, atol=1e-6)


def test_staged_log_mel_becomes_yamnets() -> None:
    mel = np.array([0.0, 1e-4, 0.01, 0.5, 30.0])
    converted = own_log_mel(torch.from_numpy(np.log(mel + 0.01)).float())
    np.testing.assert_allclose(converted.numpy(), np.log(mel + 0.001), rtol=1e-4, atol=2e-5)


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.shared
def test_yamnet_equals_the_reference_network(data: Path) -> None:
    reference = load_module(data / "weights/yamnet.py")
    path = data / "weights/yamnet_audioset.safetensors"
    net = reference.load(path)
    backbone = made(AUDIO_BACKBONES, "yamnet").eval()
    load_backbone(backbone, str(path), "--audio-weights")
    wave = torch.sin(torch.arange(15600) * 0.2) * torch.linspace(0, 0.5, 15600)
    own = reference.log_mel(wave)[:96]
    staged = torch.log(own.exp() - 0.001 + 0.01)
    with torch.no_grad():
        torch.testing.assert_close(backbone(staged[None]), net(own[None])[0], rtol=1e-3, atol=1e-3)


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = made(VISUAL_BACKBONES, "tiny").state_dict()
    state["layers.0.weight"] = torch.zeros(1, 2, 3, 3)
    del state["layers.3.weight"]
    state["head.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_backbone(made(VISUAL_BACKBONES, "tiny"), str(tmp_path / "net.safetensors"), "")
    for part in ("1 missing (layers.3.weight)", "1 unknown (head.weight)", "(1, 2, 3, 3) for (16, 3, 3, 3)"):
        assert part in caught.value.message


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (open, (str(witness), "w"))  # type: ignore[return-value]

    (tmp_path / "net.pth").write_bytes(pickle.dumps({"weight": Payload()}))
    with pytest.raises(WeightsError):
        read_state(tmp_path / "net.pth")
    assert not witness.exists()


@pytest.mark.parametrize("is_old", [False, True])
def test_a_checkpoint_is_read_without_the_state_of_its_training(tmp_path: Path, is_old: bool) -> None:
    """As PANNs' script saves it, step and sampler beside the model; here also numpy's random states.

    Old ones are in torch's former format, and name a module as numpy did before its second version.
    """
    state = made(AUDIO_BACKBONES, "tiny").state_dict()
    sampler = {
        "indexes_per_class": [np.arange(5), np.array([2, 7], np.int32), np.array([None, "a"], object)],
        "queue": [3, np.int64(4), np.float32(0.5)],
        "pointers_of_classes": [0, 1],
        "random_states": [np.random.RandomState(0), np.random.default_rng(0)],
    }
    content = io.BytesIO()
    whole = {"iteration": 600000, "model": state, "sampler": sampler}
    torch.save(whole, content, _use_new_zipfile_serialization=not is_old)
    found = content.getvalue()
    (tmp_path / "net.pth").write_bytes(found.replace(b"numpy._core", b"numpy.core") if is_old else found)
    read = read_state(tmp_path / "net.pth")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], values) for name, values in state.items())


@pytest.mark.parametrize("state", [{"a": np.ones(2)}, {np.int64(1): torch.ones(2)}, {1: torch.ones(2)}])
def test_numpys_arrays_are_no_weights(tmp_path: Path, state: dict[object, object]) -> None:
    torch.save({"model": state}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="no state dict"):
        read_state(tmp_path / "net.pth")


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"<html>", b"\x80\x02]q\x00."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_weights_file_is_an_error_of_ours(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"net{suffix}").write_bytes(content)
    with pytest.raises(WeightsError, match="net") as caught:
        read_state(tmp_path / f"net{suffix}")
    assert "weights_only" not in str(caught.value), "torch advises to run the code in the file"


@pytest.mark.parametrize(
    ("name", "address", "digest", "file"),
    [
        (
            "vggish",
            "releases/download/v0.1/vggish-10086976.pth",
            "10086976",
            "checkpoints/vggish-10086976.pth",
        ),
        (
            "cnn14",
            "records/3987831/files/Cnn14_mAP%3D0.431.pth",
            "0dc499e4",
            "checkpoints/Cnn14_mAP=0.431.pth",
        ),
    ],
)
def test_without_network_the_error_says_which_file_to_put_where(
    name: str, address: str, digest: str, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        load_backbone(made(AUDIO_BACKBONES, name), "published", "--audio-weights")
    text = str(caught.value)
    for part in (address, f"starts with {digest}", str(tmp_path / file), "--audio-weights"):
        assert part in text


@pytest.mark.parametrize("content", [b"", b"<html>Sign in to go on</html>", pickle.dumps({})])
def test_a_file_put_there_by_hand_is_checked_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/vggish-10086976.pth").write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256"):
        load_backbone(made(AUDIO_BACKBONES, "vggish"), "published", "--audio-weights")


def test_published_weights_are_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state = made(VISUAL_BACKBONES, "tiny").state_dict()
    torch.save(state, tmp_path / "published.pth")
    digest = hashlib.sha256((tmp_path / "published.pth").read_bytes()).hexdigest()
    published = PublishedWeights((tmp_path / "published.pth").as_uri(), digest[:8])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for _ in range(2):
        assert all(torch.equal(value, state[name]) for name, value in fetch(published, "").items())
        (tmp_path / "published.pth").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        (registry, name)
        for registry in (VISUAL_BACKBONES, AUDIO_BACKBONES)
        for name in registry
        if name not in ("timm", "hf")  # which wrap a model that is to be named
    ],
)
def test_without_a_word_no_backbone_stays_random(
    registry: Registry[type[Backbone]], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Published weights are fetched, or it is an error; `random` is for whoever says so."""

    def no_network(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match="--some-weights") as caught:
        load_backbone(made(registry, name), "published", "--some-weights")
    assert "--some-weights random" in caught.value.hint
    backbone = made(registry, name)
    load_backbone(backbone, "random", "--some-weights")
    assert not backbone.pretrained


def test_another_backbones_published_name_is_answered_with_its_own() -> None:
    with pytest.raises(WeightsError, match="IMAGENET1K_V2: no such weights file") as caught:
        load_backbone(made(VISUAL_BACKBONES, "resnet18"), "IMAGENET1K_V2", "--visual-weights")
    assert "IMAGENET1K_V1, random" in caught.value.hint


def test_the_example_of_a_backbone_in_the_docs_works(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs/extending.md").read_text().split("## A backbone")[1]
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert "tiny" in VISUAL_BACKBONES
    monkeypatch.setattr(VISUAL_BACKBONES, "_entries", dict(VISUAL_BACKBONES._entries))
    exec(compile(block, "docs/extending.md", "exec"), {})
    with torch.no_grad():
        assert made(VISUAL_BACKBONES, "patches", side=16)(images()).shape == (2, 64)
