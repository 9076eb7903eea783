"""The MLP probe of Table 2: the classification layer alone, on audio, on visual, or on both."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from avel.errors import ConfigError
from avel.heads.config import HeadConfig
from avel.heads.models.head import HEADS, Head, HeadOutput, Widths
from avel.heads.models.parts import PAPER_OPTIMISER, ClassifierMLP


def merged_width(audio: int, visual: int, config: HeadConfig) -> int:
    """Width of what `merge` gives.

    Raises:
        ConfigError: features of unlike width cannot be added, one modality not be concatenated.
    """
    if config.modality != "both":
        if config.merge == "concatenate":
            raise ConfigError(
                f"merge='concatenate' of one modality, {config.modality}",
                hint="--modality both, or no --merge",
            )
        return audio if config.modality == "audio" else visual
    if config.merge == "concatenate":
        return audio + visual
    if audio != visual:
        raise ConfigError(
            f"audio and visual features, {audio} and {visual} wide, cannot be added",
            hint="--merge concatenate",
        )
    return audio


def merge(audio: Tensor, visual: Tensor, config: HeadConfig) -> Tensor:
    """One modality, the sum or the concatenation of both: (..., D), (..., D) -> (..., D)."""
    if config.modality != "both":
        return audio if config.modality == "audio" else visual
    return torch.cat((audio, visual), -1) if config.merge == "concatenate" else audio + visual


@HEADS.register("mlp")
class MLP(Head):
    """Three layers on f_a, on f_v, or on f_a + f_v (Section 4.2.1)."""

    defaults: ClassVar[Mapping[str, Any]] = {"modality": "both", "merge": "add", **PAPER_OPTIMISER}
    sources = ("encoded", "cnn")
    stackable = True

    def __init__(self, widths: Widths, config: HeadConfig) -> None:
        super().__init__(widths, config)
        self.mlp = ClassifierMLP(merged_width(widths.audio, widths.visual, config), widths.classes)

    def forward(self, audio: Tensor, visual: Tensor) -> HeadOutput:
        """Scores of each segment by itself: (B, T, D), (B, T, D) -> logits (B, T, K)."""
        return HeadOutput(self.mlp(merge(audio, visual, self.config)), {})
