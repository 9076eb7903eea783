"""Batch norms folded into convolutions: the same values and gradients as the CNN as it is written."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES
from avel.pipeline.encoders.folding import FoldedConv, folded
from tests.pipeline.configs import made

WIDTH = 4


def randomise(net: nn.Module) -> nn.Module:
    """Batch norms with weights and statistics of their own, in float64 and eval mode."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for value in (module.weight, module.running_var):
                if value is not None:
                    nn.init.uniform_(value, 0.5, 1.5)
            for value in (module.bias, module.running_mean):
                if value is not None:
                    nn.init.uniform_(value, -0.2, 0.2)
    return net.double().eval()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("method", ["forward", "maps"])
@pytest.mark.parametrize(
    ("name", "variant", "norms"),
    [
        ("resnet18", "default", 20),
        ("resnet50", "default", 53),
        ("mobilenet_v2", "default", 52),
        ("mobilenet_v2", "tensorflow", 52),
        ("tiny", "default", 4),
    ],
)
def test_a_folded_cnn_has_the_values_and_gradients_of_the_plain_one(
    name: str, variant: str, norms: int, method: str
) -> None:
    cnn = made(VISUAL_BACKBONES, name)
    cnn.become(variant)
    randomise(cnn)
    way = folded(cnn, method)
    assert isinstance(way, nn.Module)
    assert sum(isinstance(module, FoldedConv) for module in way.modules()) == norms
    frames = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    plain, through = getattr(cnn, method)(frames), way(frames)
    weights = torch.randn_like(plain)
    expected = torch.autograd.grad((plain * weights).sum(), list(cnn.parameters()))
    got = torch.autograd.grad((through * weights).sum(), list(cnn.parameters()))
    torch.testing.assert_close(through, plain)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8 * float(weights.norm()))


def test_convolutions_in_three_dimensions_are_folded_too() -> None:
    cnn = randomise(nn.Sequential(nn.Conv3d(3, WIDTH, (3, 1, 1)), nn.BatchNorm3d(WIDTH), nn.ReLU()))
    way, frames = folded(cnn), torch.rand(2, 3, 4, 8, 8, dtype=torch.float64)
    assert isinstance(way, nn.Module)
    assert sum(isinstance(module, FoldedConv) for module in way.modules()) == 1
    torch.testing.assert_close(way(frames), cnn(frames))


def test_an_audio_cnn_is_folded_too() -> None:
    cnn = randomise(made(AUDIO_BACKBONES, "tiny"))
    patches = torch.randn(3, 96, 64, dtype=torch.float64)
    torch.testing.assert_close(folded(cnn)(patches), cnn(patches))


def test_new_weights_and_statistics_reach_the_folded_cnn() -> None:
    cnn = made(VISUAL_BACKBONES, "tiny")
    way = folded(cnn.eval())
    frames = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    randomise(cnn)  # to another number format, which replaces buffers as a move to a GPU does
    torch.testing.assert_close(way(frames), cnn(frames))


def test_threads_share_a_folded_cnn() -> None:
    cnn = randomise(made(VISUAL_BACKBONES, "mobilenet_v2"))
    way = folded(cnn)
    frames = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        expected = cnn(frames)
        for got in pool.map(way, [frames] * 16):
            torch.testing.assert_close(got, expected)


class Branching(nn.Module):
    """What torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, WIDTH, 3), nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if x.sum() > 0 else x


class NormFirst(nn.Module):
    """A norm before its convolution, and one whose convolution is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, WIDTH, 3)
        self.second = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.first(x))
        return self.second(y) + y


class OwnWeight(nn.Module):
    """A weight that belongs to no module inside."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, WIDTH, 3), nn.BatchNorm2d(WIDTH)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) * self.gain


class PaddedConv(nn.Conv2d):
    """A convolution that does more than torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))


class ActiveNorm(nn.BatchNorm2d):
    """A norm that does more than torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def pair(
    conv: type[nn.Conv2d] = nn.Conv2d, norm: type[nn.BatchNorm2d] = nn.BatchNorm2d, **of: bool
) -> nn.Module:
    """A norm behind its convolution."""
    return nn.Sequential(conv(3, WIDTH, 3), norm(WIDTH, **of))


@pytest.mark.parametrize(
    "cnn",
    [
        Branching(),
        NormFirst(),
        OwnWeight(),
        pair(conv=PaddedConv),
        pair(norm=ActiveNorm),
        pair(affine=False),
        pair(track_running_stats=False),
    ],
    ids=["branching", "norm first", "own weight", "conv", "norm", "without weights", "without statistics"],
)
def test_what_cannot_be_folded_runs_as_it_is_written(cnn: nn.Module) -> None:
    way = folded(randomise(cnn))
    frames = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(way(frames), cnn(frames))


def test_fixed_weights_are_folded_once() -> None:
    cnn = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    following, fixed = folded(cnn), folded(cnn, is_fixed=True)
    before = cnn(x)
    torch.testing.assert_close(fixed(x), before)
    with torch.no_grad():
        for weight in cnn.parameters():
            weight.mul_(2)
    torch.testing.assert_close(following(x), cnn(x))
    torch.testing.assert_close(fixed(x), before)
