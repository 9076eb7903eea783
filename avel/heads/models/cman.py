"""CMAN (Xuan et al. 2020): where in the map, when in the clip, and which modality to trust."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.heads.config import HEADS, HeadConfig
from avel.heads.models.head import VGG, Head, HeadOutput, Published, Widths
from avel.heads.models.parts import CROSS_MAPS, AttentionMap, at_least_float32
from avel.nn import mean_over_time, only_inside

D = 256


@HEADS.register("cman")
class CMAN(Head):
    """Spatial, temporal and modality attention in turn, with a sentinel; the paper leaves sizes open."""

    @dataclass(frozen=True)
    class Config(HeadConfig):
        """Settings of CMAN's training; none is in its paper."""

    source = "Xuan et al. 2020; sizes are avel's"
    published = (
        Published(73.3, "full", VGG, "Ran et al. 2022, Table 3"),
        Published(75.7, "weak", "VGGish, ResNet", "JustinYuu.github.io, notes on Xuan et al. 2020"),
    )
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (
        AttentionMap("where", "audio", "cells"),
        AttentionMap("when_a", "audio", "audio"),
        AttentionMap("when_v", "visual", "visual"),
        *CROSS_MAPS,
    )
    takes_differing_lengths = True

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.where = CellAttention(widths.audio, widths.visual) if widths.cells else None
        self.when_a, self.when_v = ContextAttention(widths.audio), ContextAttention(widths.visual)
        self.which_a, self.which_v = SentinelAttention(), SentinelAttention()
        self.classify = nn.Linear(2 * D, widths.classes)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), attention weights."""
        extras = {}
        if self.where is not None:
            visual, extras["where"] = self.where(audio, visual.flatten(2, 3))
        A, extras["when_a"] = self.when_a(audio, mask)
        V, extras["when_v"] = self.when_v(visual, mask)
        h_a, extras["W_av"], extras["sentinel_a"] = self.which_a(A, V, mask)
        h_v, extras["W_va"], extras["sentinel_v"] = self.which_v(V, A, mask)
        return HeadOutput(self.classify(torch.cat((h_v, h_a), -1)), extras)


class CellAttention(nn.Module):
    """Attention over cells by their cosine with the audio, in a common space of 256 values."""

    def __init__(self, audio: int, visual: int) -> None:
        super().__init__()
        self.audio, self.visual = nn.Linear(audio, D, bias=False), nn.Linear(visual, D, bias=False)

    def forward(self, audio: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the weighted sum of cells: (B, T, D), (B, T, N, C) -> (B, T, C), weights (B, T, N)."""
        a = at_least_float32(self.audio(audio)).unsqueeze(2)
        weights = functional.cosine_similarity(a, at_least_float32(self.visual(cells)), dim=-1).softmax(-1)
        return torch.einsum("btn,btnc->btc", weights.to(cells.dtype), cells), weights


class ContextAttention(nn.Module):
    """Self-attention over time whose queries and keys mix each segment with the mean of its clip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key = ContextProjection(width), ContextProjection(width)
        self.value, self.out = nn.Linear(width, D, bias=False), nn.Linear(D, D)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attends: (B, T, D) -> (B, T, 256), weights (B, T, T)."""
        scores = self.query(features, mask) @ self.key(features, mask).mT / math.sqrt(D)
        weights = only_inside(at_least_float32(scores), mask).softmax(-1)
        value = self.value(features)
        return self.out(weights.to(value.dtype) @ value), weights


class ContextProjection(nn.Module):
    """Projections of each segment and of the clip's mean, mixed by one gate a segment."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own, self.context = nn.Linear(width, D, bias=False), nn.Linear(width, D, bias=False)
        self.gate_own, self.gate_context = nn.Linear(D, 1, bias=False), nn.Linear(D, 1, bias=False)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Projects: (B, T, D) -> (B, T, 256)."""
        own, context = self.own(features), self.context(mean_over_time(features, mask).unsqueeze(1))
        gate = torch.sigmoid(self.gate_own(own) + self.gate_context(context))
        mixed: Tensor = (1 - gate) * own + gate * context
        return mixed


class SentinelAttention(nn.Module):
    """Attention from an LSTM over one modality to the other, or to the LSTM's own memory: the sentinel."""

    def __init__(self) -> None:
        super().__init__()
        # An LSTM of Linears, because the sentinel needs every cell state, and nn.LSTM returns only the last
        self.step, self.recur = nn.Linear(D, 4 * D), nn.Linear(D, 4 * D, bias=False)
        self.gate_step, self.gate_recur = nn.Linear(D, D), nn.Linear(D, D, bias=False)
        self.attend_other, self.attend_own = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.attend_sentinel, self.score = nn.Linear(D, D), nn.Linear(D, 1, bias=False)

    def forward(
        self, own: Tensor, other: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attends: twice (B, T, 256) -> (B, T, 256), weights on `other` (B, T, T), on the sentinel (B, T)."""
        hidden, sentinel = self.recurrent(own)
        query = self.attend_own(hidden)
        # (B, T, T, D): rows are segments of `own`, columns those of `other`
        pairs = torch.tanh(self.attend_other(other).unsqueeze(1) + query.unsqueeze(2))
        scores = only_inside(at_least_float32(self.score(pairs).squeeze(-1)), mask)
        own_score = at_least_float32(self.score(torch.tanh(self.attend_sentinel(sentinel) + query)))
        weights = scores.softmax(-1)
        beta = torch.cat((scores, own_score), -1).softmax(-1)[..., -1:]
        mixed = beta * sentinel + (1 - beta) * (weights.to(other.dtype) @ other)
        return mixed + hidden, weights, beta.squeeze(-1)

    def recurrent(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns hidden states and sentinels of all segments: (B, T, 256) -> (B, T, 256), (B, T, 256)."""
        hidden = cell = torch.zeros_like(features[:, 0])
        states, sentinels = [], []
        for step, gate in zip(self.step(features).unbind(1), self.gate_step(features).unbind(1), strict=True):
            sentinel_gate = torch.sigmoid(gate + self.gate_recur(hidden))
            i, f, g, o = (step + self.recur(hidden)).chunk(4, -1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            states.append(hidden)
            sentinels.append(sentinel_gate * torch.tanh(cell))
        return torch.stack(states, 1), torch.stack(sentinels, 1)
