"""Bi-LSTMs on the CNNs' vectors: AV-BT's encoders, but trained from labels."""

from torch import Tensor

from avel.heads.config import HEADS
from avel.heads.models.head import Head, HeadOutput, Widths
from avel.heads.models.mlp import MergeConfig, merge, merged_width
from avel.heads.models.parts import BiLSTM, ClassifierMLP

HIDDEN = 256


@HEADS.register("bilstm")
class BiLSTMHead(Head):
    """One Bi-LSTM a modality, then the three layers of `mlp` on one of them or on both."""

    Config = MergeConfig
    source = "the encoder of Ran et al. 2022, trained from labels"
    inputs = ("cnn",)
    takes_differing_lengths = True

    config: MergeConfig

    def __init__(self, widths: Widths, config: MergeConfig, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.audio = BiLSTM(widths.audio) if config.modality != "visual" else None
        self.visual = BiLSTM(widths.visual) if config.modality != "audio" else None
        self.mlp = ClassifierMLP(merged_width(HIDDEN, HIDDEN, config), widths.classes)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns scores of each segment, given the whole clip: (B, T, D), (B, T, D) -> logits (B, T, K)."""
        hidden_a = self.audio(audio, mask) if self.audio is not None else audio
        hidden_v = self.visual(visual, mask) if self.visual is not None else visual
        return HeadOutput(self.mlp(merge(hidden_a, hidden_v, self.config)), {})
