"""After AVT (Lin & Wang 2020), known to avel in outline: sound and image regions in one Transformer."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avel.config import option
from avel.heads.config import HEADS, HeadConfig
from avel.heads.models.cmran import AttentionLayer, cells_of
from avel.heads.models.head import Head, HeadOutput, Widths
from avel.heads.models.parts import at_least_float32, sinusoids

D = 256


@HEADS.register("avt_style")
class AVTStyle(Head):
    """A guess at AVT: sound, cells and the segments beside attend to each other; its sizes are unknown."""

    @dataclass(frozen=True)
    class Config(HeadConfig):
        """Settings of a reconstruction; none is in the paper."""

        feedforward: int = option(1024, "Width within the attention layers.", low=1)
        dropout: float = option(0.1, "Fraction dropped in training, in attention layers.", low=0, high=0.99)

    source = "after Lin & Wang 2020; a reconstruction"
    sources = ("maps", "cnn", "encoded")

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.audio, self.visual = nn.Linear(widths.audio, D), nn.Linear(widths.visual, D)
        self.segment = AttentionLayer(config.feedforward, config.dropout)
        self.merge = nn.Linear(2 * D, D)
        self.time = AttentionLayer(config.feedforward, config.dropout)
        self.classify = nn.Linear(D, widths.classes)

    def forward(self, audio: Tensor, visual: Tensor) -> HeadOutput:
        """Scores: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> logits (B, T, K), attention.

        The tokens of a segment are its sound, the means of the cells before and after (its own at the ends of
        the clip), and its cells, which have no positions.
        """
        cells = self.visual(cells_of(visual))
        mean = cells.mean(2)
        before, after = torch.cat((mean[:, :1], mean[:, :-1]), 1), torch.cat((mean[:, 1:], mean[:, -1:]), 1)
        tokens = torch.cat((torch.stack((self.audio(audio), before, after), 2), cells), 2)
        flat = tokens.flatten(0, 1)
        mixed = self.segment(flat, flat)[0].view(tokens.shape)
        sound, instances = mixed[:, :, 0], mixed[:, :, 3:]
        scores = at_least_float32(instances @ sound.unsqueeze(-1)).squeeze(-1) / math.sqrt(D)
        weights = scores.softmax(-1)
        attended = torch.einsum("btn,btnc->btc", weights.to(instances.dtype), instances)
        hidden = self.merge(torch.cat((sound, attended), -1))
        hidden = hidden + sinusoids(hidden.shape[1], D).to(hidden)
        hidden, over_time = self.time(hidden, hidden)
        return HeadOutput(self.classify(hidden), {"instances": weights, "over_time": over_time})
