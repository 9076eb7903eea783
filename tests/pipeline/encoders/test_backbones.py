"""Backbones: what they compute, the layouts they load, and what they say when weights are not there."""

import hashlib
import importlib.util
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
from avel.pipeline.encoders.backbones import Backbone, load_backbone
from avel.pipeline.encoders.weights import PublishedWeights, fetch, read_state
from avel.pipeline.encoders.yamnet import own_log_mel
from avel.registry import Registry
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


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"<html>", b"\x80\x02]q\x00."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_weights_file_is_an_error_of_ours(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"net{suffix}").write_bytes(content)
    with pytest.raises(WeightsError, match="net") as caught:
        read_state(tmp_path / f"net{suffix}")
    assert "weights_only" not in str(caught.value), "torch advises to run the code in the file"


def test_without_network_the_error_says_which_file_to_put_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        load_backbone(made(AUDIO_BACKBONES, "vggish"), "published", "--audio-weights")
    text = str(caught.value)
    for part in (
        "releases/download/v0.1/vggish-10086976.pth",
        "starts with 10086976",
        str(tmp_path / "checkpoints/vggish-10086976.pth"),
        "--audio-weights",
    ):
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
    [(registry, name) for registry in (VISUAL_BACKBONES, AUDIO_BACKBONES) for name in registry],
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
    page = (Path(__file__).parents[3] / "docs/pretrain.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    assert "tiny" in VISUAL_BACKBONES
    monkeypatch.setattr(VISUAL_BACKBONES, "_entries", dict(VISUAL_BACKBONES._entries))
    for block in blocks:
        exec(compile(block, "docs/pretrain.md", "exec"), {})
    with torch.no_grad():
        assert made(VISUAL_BACKBONES, "patches", side=16)(images()).shape == (2, 64)
