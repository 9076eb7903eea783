"""ResNet-18, -34 and -50 without their classifier (He et al. 2016), torchvision's modules and layout."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torchvision import models

from avel.config import ComponentConfig
from avel.pipeline.config import VISUAL_BACKBONES
from avel.pipeline.encoders.backbones import Normalise, VisualBackbone
from avel.pipeline.encoders.weights import PublishedWeights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def torchvision_weights(file_name: str) -> PublishedWeights:
    """Returns weights that torchvision publishes; the file name ends in the first digits of its SHA-256."""
    digest = file_name.removesuffix(".pth").rsplit("-", 1)[-1]
    return PublishedWeights(f"https://download.pytorch.org/models/{file_name}", digest)


class ResNet(VisualBackbone):
    """torchvision's ResNet up to the last block. State dict: torchvision's, under `net.`, without `fc`."""

    published_part, unused = "net", ("fc.",)
    make: ClassVar[Callable[..., Any]]

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        net = type(self).make(weights=None)
        self.width = net.fc.in_features
        net.fc = nn.Identity()
        self.net: Any = net
        self.normalise = Normalise(IMAGENET_MEAN, IMAGENET_STD)

    def maps(self, frames: Tensor) -> Tensor:
        """Computes maps after the last block, a cell for 32 pixels: (B, 3, 224, 224) -> (B, D, 7, 7)."""
        net = self.net
        x = net.maxpool(net.relu(net.bn1(net.conv1(self.normalise(frames)))))
        result: Tensor = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        return result


@VISUAL_BACKBONES.register("resnet18")
class ResNet18(ResNet):
    """ResNet-18, D = 512."""

    make = models.resnet18
    published: ClassVar[Mapping[str, PublishedWeights]] = {
        "IMAGENET1K_V1": torchvision_weights("resnet18-f37072fd.pth")
    }


@VISUAL_BACKBONES.register("resnet34")
class ResNet34(ResNet):
    """ResNet-34, D = 512."""

    make = models.resnet34
    published: ClassVar[Mapping[str, PublishedWeights]] = {
        "IMAGENET1K_V1": torchvision_weights("resnet34-b627a593.pth")
    }


@VISUAL_BACKBONES.register("resnet50")
class ResNet50(ResNet):
    """ResNet-50, D = 2048: the paper's. V1, of the paper's time, is the default; V2 can be named."""

    make = models.resnet50
    published: ClassVar[Mapping[str, PublishedWeights]] = {
        "IMAGENET1K_V1": torchvision_weights("resnet50-0676ba61.pth"),
        "IMAGENET1K_V2": torchvision_weights("resnet50-11ad3fa6.pth"),
    }
