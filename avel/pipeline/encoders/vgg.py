"""VGG-19 without its classifier (Simonyan and Zisserman 2015), torchvision's modules and layout."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from avel.config import ComponentConfig
from avel.pipeline.config import VISUAL_BACKBONES
from avel.pipeline.encoders.backbones import Normalise, VisualBackbone
from avel.pipeline.encoders.resnet import IMAGENET_MEAN, IMAGENET_STD, torchvision_weights
from avel.pipeline.encoders.weights import PublishedWeights


@VISUAL_BACKBONES.register("vgg19")
class VGG19(VisualBackbone):
    """D = 512. State dict: torchvision's, `features.{0..34}`, without `classifier`.

    Its maps are pool5, as AVE's published visual features are. AVE's were computed with Keras' weights, which
    take BGR that is not divided by a std. They were averaged over 16 frames of a segment
    (`--frames-per-segment 16`).
    """

    width = 512
    unused = ("classifier.",)
    published: ClassVar[Mapping[str, PublishedWeights]] = {
        "IMAGENET1K_V1": torchvision_weights("vgg19-dcbb9e9d.pth")
    }

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        self.features = make_layers(cfgs["E"])
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.normalise = Normalise(IMAGENET_MEAN, IMAGENET_STD)

    def maps(self, frames: Tensor) -> Tensor:
        """Computes pool5, one cell for 32 pixels: (B, 3, 224, 224) -> (B, 512, 7, 7)."""
        maps: Tensor = self.features(self.normalise(frames))
        return maps
