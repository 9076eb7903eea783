"""A reconstruction of AVRB (Ramaswamy & Das 2020) from its outline: fusion, then attention over time."""

from torch import Tensor, nn

from avel.heads.config import HEADS
from avel.heads.models.avin import HIDDEN, BilinearConfig, BilinearPooling, weighted
from avel.heads.models.head import VGG, Head, HeadOutput, Published, Widths
from avel.heads.models.parts import AttentionMap, BiLSTM


@HEADS.register("avrb_style")
class AVRBStyle(Head):
    """Bilinear fusion of two Bi-LSTMs, then segment-wise attention; the layers and sizes are guesses."""

    Config = BilinearConfig
    source = "after Ramaswamy & Das 2020; a reconstruction"
    published = (Published(74.8, "full", VGG, "Ran et al. 2022, Table 3, of AVRB"),)
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (AttentionMap("segments", "clip", "both"),)
    takes_differing_lengths = True

    def __init__(self, widths: Widths, config: BilinearConfig, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.audio, self.visual = BiLSTM(widths.audio), BiLSTM(widths.visual)
        self.fuse = BilinearPooling(config.factors, config.dropout)
        self.classify = nn.Linear(HIDDEN, widths.classes)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), weights (B, T)."""
        visual = visual.mean((2, 3)) if visual.ndim == 5 else visual
        fused = self.fuse(self.audio(audio, mask), self.visual(visual, mask))
        own, weights = weighted(fused, fused, mask)
        return HeadOutput(self.classify(fused + own), {"segments": weights})
