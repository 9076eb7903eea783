"""A reconstruction of AVT (Lin & Wang 2020) from its outline: audio and map cells in one Transformer."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avel.config import option
from avel.heads.config import HEADS, HeadConfig
from avel.heads.models.cmran import AttentionLayer
from avel.heads.models.head import VGG, Head, HeadOutput, Published, Widths
from avel.heads.models.parts import AttentionMap, at_least_float32, cells_of, sinusoids

D = 256


@HEADS.register("avt_style")
class AVTStyle(Head):
    """Audio, map cells and both neighbouring segments attend to each other; layers and sizes are guesses."""

    @dataclass(frozen=True)
    class Config(HeadConfig):
        """Settings of the reconstruction; none is in the paper."""

        feedforward: int = option(1024, "Width within the attention layers.", low=1)
        dropout: float = option(0.1, "Fraction dropped in training, in attention layers.", low=0, high=0.99)

    source = "after Lin & Wang 2020; a reconstruction"
    published = (Published(76.8, "full", VGG, "Ran et al. 2022, Table 3, of AVT"),)
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (AttentionMap("cells", "audio", "cells"), AttentionMap("over_time", "both", "both"))
    takes_differing_lengths = True

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.audio, self.visual = nn.Linear(widths.audio, D), nn.Linear(widths.visual, D)
        self.segment = AttentionLayer(config.feedforward, config.dropout)
        self.merge = nn.Linear(2 * D, D)
        self.time = AttentionLayer(config.feedforward, config.dropout)
        self.classify = nn.Linear(D, widths.classes)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), attention.

        The tokens of a segment are its audio, the mean cells of the segments before and after (at the ends of
        the clip its own), and its cells, without positions.
        """
        cells = self.visual(cells_of(visual))
        mean = cells.mean(2)
        before, after = torch.cat((mean[:, :1], mean[:, :-1]), 1), torch.cat((mean[:, 1:], mean[:, -1:]), 1)
        if mask is not None:
            has_next = torch.cat((mask[:, 1:], torch.zeros_like(mask[:, :1])), 1)
            after = torch.where(has_next.unsqueeze(-1), after, mean)
        tokens = torch.cat((torch.stack((self.audio(audio), before, after), 2), cells), 2)
        flat = tokens.flatten(0, 1)
        mixed = self.segment(flat, flat)[0].view(tokens.shape)
        mixed_audio, mixed_cells = mixed[:, :, 0], mixed[:, :, 3:]
        scores = at_least_float32(mixed_cells @ mixed_audio.unsqueeze(-1)).squeeze(-1) / math.sqrt(D)
        weights = scores.softmax(-1)
        attended = torch.einsum("btn,btnc->btc", weights.to(mixed_cells.dtype), mixed_cells)
        hidden = self.merge(torch.cat((mixed_audio, attended), -1))
        hidden = hidden + sinusoids(hidden.shape[1], D).to(hidden)
        hidden, over_time = self.time(hidden, hidden, mask)
        return HeadOutput(self.classify(hidden), {"cells": weights, "over_time": over_time})
