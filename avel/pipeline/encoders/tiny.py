"""Two small CNNs that train from scratch on a CPU: for the demo, for tests, and as the shortest examples."""

from dataclasses import dataclass

from torch import Tensor, nn

from avel.config import ComponentConfig, option
from avel.errors import ConfigError
from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES
from avel.pipeline.encoders.backbones import AudioBackbone, VisualBackbone


@dataclass(frozen=True)
class TinyConfig(ComponentConfig):
    """Settings of both small CNNs."""

    channels: tuple[int, ...] = option(
        (16, 32, 64, 128), "Channels of each convolution; each halves height and width.", low=1
    )


def strided_stack(channels: int, config: TinyConfig) -> nn.Sequential:
    """Returns 3x3 convolutions of stride 2, batch norm, ReLU: (B, C, H, W) -> (B, D, H/16, W/16) for four.

    Raises:
        ConfigError: no convolution.
    """
    if not config.channels:
        raise ConfigError("channels of a tiny backbone name no convolution", hint="for example 16,32,64")
    layers: list[nn.Module] = []
    for wide in config.channels:
        layers += [nn.Conv2d(channels, wide, 3, 2, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        channels = wide
    return nn.Sequential(*layers)


@VISUAL_BACKBONES.register("tiny")
class TinyVisual(VisualBackbone):
    """D = 128, 0.1 M parameters, unless other channels are set. State dict: `layers.{0..11}`."""

    Config = TinyConfig

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.layers = strided_stack(3, config)
        self.width = config.channels[-1]

    def maps(self, frames: Tensor) -> Tensor:
        """Computes maps, a cell for 16 pixels with four convolutions: (B, 3, H, W) -> (B, D, H/16, W/16)."""
        maps: Tensor = self.layers(frames * 2 - 1)
        return maps


@AUDIO_BACKBONES.register("tiny")
class TinyAudio(AudioBackbone):
    """D = 128, 0.1 M parameters, unless other channels are set. State dict: `layers.{0..11}`."""

    Config = TinyConfig

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.layers = strided_stack(1, config)
        self.width = config.channels[-1]

    def forward(self, log_mel: Tensor) -> Tensor:
        """Computes pooled vectors: (B, 96, 64) -> (B, D)."""
        maps: Tensor = self.layers(log_mel[:, None])
        return maps.mean((2, 3))
