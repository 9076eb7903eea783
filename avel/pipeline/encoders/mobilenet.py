"""MobileNetV2 (Sandler et al. 2018): torchvision's weights, or TensorFlow's in torchvision's layout."""

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from avel.config import ComponentConfig
from avel.errors import WeightsError
from avel.pipeline.config import VISUAL_BACKBONES
from avel.pipeline.encoders.backbones import Normalise, VisualBackbone
from avel.pipeline.encoders.resnet import IMAGENET_MEAN, IMAGENET_STD, torchvision_weights
from avel.pipeline.encoders.weights import PublishedWeights, StateDict, load_into

TENSORFLOW_CLASSES = 1001
"""TensorFlow's ImageNet classifiers count background as class 0; torchvision's have 1000 classes."""


class StridedConv(nn.Conv2d):
    """A 3x3 convolution of stride 2 with the weights of another; `padding` 0 stands for TensorFlow's SAME."""

    def __init__(self, conv: nn.Conv2d) -> None:
        channels = conv.in_channels, conv.out_channels
        super().__init__(*channels, 3, 2, 1, groups=conv.groups, bias=False, device="meta")
        self.weight = conv.weight

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padded = input if any(self.padding) else F.pad(input, (0, 1, 0, 1))
        result: Tensor = super()._conv_forward(padded, weight, bias)
        return result


@VISUAL_BACKBONES.register("mobilenet_v2")
class MobileNetV2(VisualBackbone):
    """D = 1280. State dict: torchvision's `features`, under `features.`.

    The variant `tensorflow` is recognised by its 1001-class classifier. It wants inputs in [-1, 1] and
    TensorFlow's SAME padding: a stride-2 convolution on an even side pads right and below only.
    """

    published: ClassVar[Mapping[str, PublishedWeights]] = {
        "IMAGENET1K_V2": torchvision_weights("mobilenet_v2-7ebf99e0.pth"),
        "IMAGENET1K_V1": torchvision_weights("mobilenet_v2-b0353104.pth"),
    }

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        net = models.mobilenet_v2(weights=None)
        self.features: nn.Sequential = net.features
        self.width = net.last_channel
        self.normalise = Normalise(IMAGENET_MEAN, IMAGENET_STD)
        for parent in list(self.features.modules()):
            for name, module in parent.named_children():
                if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                    setattr(parent, name, StridedConv(module))

    def become(self, variant: str) -> None:
        """Sets the padding of the stride-2 convolutions to that of `default` or `tensorflow`."""
        super().become(variant)
        for module in self.features.modules():
            if isinstance(module, StridedConv):
                module.padding = (0, 0) if variant == "tensorflow" else (1, 1)

    def maps(self, frames: Tensor) -> Tensor:
        """Computes maps of the last convolution: (B, 3, 224, 224) -> (B, 1280, 7, 7).

        TensorFlow's form needs sides that are divisible by 32.
        """
        maps: Tensor = self.features(self.scaled(frames))
        return maps

    def scaled(self, frames: Tensor) -> Tensor:
        """Scales frames in [0, 1] to what the weights were trained on: (B, 3, H, W) -> the same."""
        return frames * 2 - 1 if self.variant == "tensorflow" else self.normalise(frames)

    def load_published(self, state: StateDict, where: str) -> None:
        """Takes torchvision's layout with a classifier of 1000 classes, or of 1001 (TensorFlow's).

        Raises:
            WeightsError: no classifier, so that the form cannot be told.
        """
        classifier = state.get("classifier.1.bias")
        if classifier is None:
            raise WeightsError(
                f"{where}: no classifier.1.bias, so torchvision's form or TensorFlow's is unknown",
                hint="save the weights with their classifier, of 1000 classes or of 1001",
            )
        self.become("tensorflow" if len(classifier) == TENSORFLOW_CLASSES else "default")
        features = {name: value for name, value in state.items() if name.startswith("features.")}
        load_into(self, features, where)
