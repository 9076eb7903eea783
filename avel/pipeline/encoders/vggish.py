"""VGGish (Hershey et al. 2017): 128 features of a 96 x 64 log-mel patch."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from avel.config import ComponentConfig
from avel.pipeline.config import AUDIO_BACKBONES
from avel.pipeline.encoders.backbones import AudioBackbone
from avel.pipeline.encoders.weights import PublishedWeights

WIDTHS = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0)
"""Channels of each convolution; 0 is a max pooling."""


@AUDIO_BACKBONES.register("vggish")
class VGGish(AudioBackbone):
    """D = 128, before the PCA of the YouTube-8M release.

    State dict, as torchvggish publishes it: convolutions `features.{0,3,6,8,11,13}.{weight,bias}`, fully
    connected layers `embeddings.{0,2,4}.{weight,bias}` (4096, 4096, 128), each with a ReLU behind it.
    """

    width = 128
    unused = ("pproc.",)  # of the PCA
    published: ClassVar[Mapping[str, PublishedWeights]] = {
        "audioset": PublishedWeights(
            "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
            "10086976",
        )
    }

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        layers: list[nn.Module] = []
        channels = 1
        for wide in WIDTHS:
            if wide:
                layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.ReLU()]
                channels = wide
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        linear = (nn.Linear(512 * 6 * 4, 4096), nn.Linear(4096, 4096), nn.Linear(4096, self.width))
        self.embeddings = nn.Sequential(*(part for layer in linear for part in (layer, nn.ReLU())))

    def forward(self, log_mel: Tensor) -> Tensor:
        """Computes vectors of patches ln(mel + 0.01): (B, 96, 64) -> (B, 128)."""
        x = self.features(log_mel[:, None])
        # TensorFlow flattens (time, mel, channel); the published linear layers expect that order.
        embeddings: Tensor = self.embeddings(x.permute(0, 2, 3, 1).flatten(1))
        return embeddings
