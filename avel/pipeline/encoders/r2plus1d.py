"""R(2+1)D-18 without its classifier (Tran et al. 2018), torchvision's modules and layout."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torchvision.models.video import r2plus1d_18

from avel.config import ComponentConfig
from avel.pipeline.config import VISUAL_BACKBONES
from avel.pipeline.encoders.backbones import FrameInput, Normalise, VisualBackbone
from avel.pipeline.encoders.resnet import torchvision_weights
from avel.pipeline.encoders.weights import PublishedWeights

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)


@VISUAL_BACKBONES.register("r2plus1d_18")
class R2Plus1D18(VisualBackbone):
    """D = 512; sees 16 frames together. State dict: torchvision's, under `net.`, without `fc`."""

    width = 512
    published_part, unused = "net", ("fc.",)
    published: ClassVar[Mapping[str, PublishedWeights]] = {
        "KINETICS400_V1": torchvision_weights("r2plus1d_18-91a641e6.pth")
    }

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        net: Any = r2plus1d_18(weights=None)
        net.fc = nn.Identity()
        self.net = net
        self.normalise = Normalise(KINETICS_MEAN, KINETICS_STD)

    @classmethod
    def reads(cls, config: ComponentConfig) -> FrameInput:
        """Returns 16 frames of 112 x 112 pixels, as it was trained with."""
        return FrameInput(frames=16, pixels=112)

    def maps(self, frames: Tensor) -> Tensor:
        """Computes maps, averaged over time, a cell for 16 pixels: (B, N, 3, 112, 112) -> (B, 512, 7, 7)."""
        net = self.net
        x = net.stem(self.normalise(frames).transpose(1, 2))
        maps: Tensor = net.layer4(net.layer3(net.layer2(net.layer1(x)))).mean(2)
        return maps
