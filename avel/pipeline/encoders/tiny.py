"""Two small CNNs that learn from nothing on a CPU: for the demo, for tests, and as the shortest examples."""

from torch import Tensor, nn

from avel.pipeline.encoders.backbones import AUDIO_BACKBONES, VISUAL_BACKBONES, AudioBackbone, VisualBackbone
from avel.pipeline.encoders.weights import State, load_into

CHANNELS = (16, 32, 64, 128)


def strided_stack(channels: int) -> nn.Sequential:
    """Four 3x3 convolutions of stride 2 with batch norm and ReLU: (B, C, H, W) -> (B, 128, H/16, W/16)."""
    layers: list[nn.Module] = []
    for wide in CHANNELS:
        layers += [nn.Conv2d(channels, wide, 3, 2, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        channels = wide
    return nn.Sequential(*layers)


@VISUAL_BACKBONES.register("tiny")
class TinyVisual(VisualBackbone):
    """D = 128, 0.1 M parameters. State dict: `layers.{0..11}`."""

    width = CHANNELS[-1]

    def __init__(self) -> None:
        super().__init__()
        self.layers = strided_stack(3)

    def maps(self, frames: Tensor) -> Tensor:
        """Maps, one cell for 16 pixels: (B, 3, H, W) -> (B, 128, H/16, W/16)."""
        maps: Tensor = self.layers(frames * 2 - 1)
        return maps

    def load_published(self, state: State, where: str) -> None:
        """Takes the module's own state dict."""
        load_into(self, state, where)


@AUDIO_BACKBONES.register("tiny")
class TinyAudio(AudioBackbone):
    """D = 128, 0.1 M parameters. State dict: `layers.{0..11}`."""

    width = CHANNELS[-1]

    def __init__(self) -> None:
        super().__init__()
        self.layers = strided_stack(1)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Pooled vectors: (B, 96, 64) -> (B, 128)."""
        maps: Tensor = self.layers(log_mel[:, None])
        return maps.mean((2, 3))

    def load_published(self, state: State, where: str) -> None:
        """Takes the module's own state dict."""
        load_into(self, state, where)
