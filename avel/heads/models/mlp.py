"""MLP probe of Table 2: the classification layer alone, on audio, on visual, or on both."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from avel.config import option
from avel.errors import ConfigError
from avel.heads.config import HEADS, HeadConfig
from avel.heads.models.head import Head, HeadOutput, Published, Widths
from avel.heads.models.parts import ClassifierMLP, PaperConfig


@dataclass(frozen=True)
class MergeConfig(HeadConfig):
    """Settings of heads on one modality, or on both, added or concatenated."""

    modality: Literal["both", "audio", "visual"] = option("both", "Use both modalities or one.")
    merge: Literal["add", "concatenate"] = option("add", "Add the two modalities or concatenate them.")

    @property
    def modalities(self) -> tuple[Literal["audio", "visual"], ...]:
        return ("audio", "visual") if self.modality == "both" else (self.modality,)


def merged_width(audio: int, visual: int, config: MergeConfig) -> int:
    """Returns the width of merged features.

    Raises:
        ConfigError: a single modality cannot be concatenated.
    """
    if config.modality != "both":
        if config.merge == "concatenate":
            raise ConfigError(
                f"cannot concatenate one modality, {config.modality}",
                hint="--set modality=both, or leave merge out",
            )
        return audio if config.modality == "audio" else visual
    return audio + visual if config.merge == "concatenate" else audio


def merge(audio: Tensor, visual: Tensor, config: MergeConfig) -> Tensor:
    """Returns one modality, or the sum or concatenation of both: (..., D), (..., D) -> (..., D)."""
    if config.modality != "both":
        return audio if config.modality == "audio" else visual
    return torch.cat((audio, visual), -1) if config.merge == "concatenate" else audio + visual


@HEADS.register("mlp")
class MLP(Head):
    """Three layers on f_a, on f_v, or on both, added or concatenated."""

    @dataclass(frozen=True)
    class Config(PaperConfig, MergeConfig):
        """Settings of the probe."""

        @property
        def equal_widths(self) -> bool:
            return self.modality == "both" and self.merge == "add"

    source = "Ran et al. 2022, Section 4.2.1"
    published = (Published(75.6, "full", "AV-BT", "Ran et al. 2022, Table 2"),)
    inputs = ("encoded", "cnn")
    tasks = ("single_label", "multi_label")
    stackable = True
    takes_differing_lengths = True

    config: Config

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        width = merged_width(widths.audio, widths.visual, config)
        self.mlp = ClassifierMLP(width, widths.classes, config.dropout)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns scores of each segment by itself: (B, T, D), (B, T, D) -> logits (B, T, K)."""
        return HeadOutput(self.mlp(merge(audio, visual, self.config)), {})
