"""YAMNet (MobileNet-v1 on AudioSet): 1024 features of a 96 x 64 log-mel patch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avel.config import ComponentConfig
from avel.pipeline.config import AUDIO_BACKBONES
from avel.pipeline.encoders.backbones import AudioBackbone

BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Width and stride of layers 2 to 14."""
STAGED_OFFSET, OWN_OFFSET = 0.01, 0.001
"""Added to the mel magnitude under the logarithm: by the staged patches (VGGish's), and by YAMNet."""


def own_log_mel(log_mel: Tensor) -> Tensor:
    """Converts staged ln(mel + 0.01) to YAMNet's ln(mel + 0.001): any shape -> the same."""
    mel = (log_mel.float().exp() - STAGED_OFFSET).clamp(min=0)
    return torch.log(mel + OWN_OFFSET)


def pad_same(x: Tensor, stride: int) -> Tensor:
    """Pads like TensorFlow's SAME for a 3x3 kernel on even sides: stride 2 pads right and below only."""
    return F.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))


class Separable(nn.Module):
    """Depthwise 3x3, then pointwise, each with ReLU; batch norms are folded into the weights."""

    def __init__(self, channels: int, wide: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.depthwise = nn.Conv2d(channels, channels, 3, stride, groups=channels)
        self.pointwise = nn.Conv2d(channels, wide, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Applies both convolutions: (B, C, H, W) -> (B, wide, H / stride, W / stride)."""
        return F.relu(self.pointwise(F.relu(self.depthwise(pad_same(x, self.stride)))))


@AUDIO_BACKBONES.register("yamnet")
class YAMNet(AudioBackbone):
    """D = 1024.

    State dict: `layer1.conv`, then `layer{2..14}.{depthwise,pointwise}`, each `.weight` and `.bias`, batch
    norms folded. Weights in this layout are named by path; none are downloaded.
    """

    unused = ("classifier.",)
    width = 1024

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        self.layer1 = nn.Module()
        self.layer1.conv = nn.Conv2d(1, 32, 3, 2)
        channels = 32
        for number, (wide, stride) in enumerate(BLOCKS, 2):
            self.add_module(f"layer{number}", Separable(channels, wide, stride))
            channels = wide

    def forward(self, log_mel: Tensor) -> Tensor:
        """Computes vectors of staged patches ln(mel + 0.01): (B, 96, 64) -> (B, 1024)."""
        x = F.relu(self.layer1.get_submodule("conv")(pad_same(own_log_mel(log_mel)[:, None], 2)))
        for number in range(2, len(BLOCKS) + 2):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean((2, 3))
