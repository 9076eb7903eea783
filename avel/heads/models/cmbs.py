"""CMBS (Xia and Zhao 2022): CMRAN's network, in which each modality dampens what is background to it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from avel.config import option
from avel.heads.config import HEADS
from avel.heads.models.cmran import (
    CELL,
    HIDDEN,
    ChannelAttention,
    CrossAttention,
    Encoder,
    GuidedPooling,
    Interaction,
    cells_of,
)
from avel.heads.models.head import HeadOutput, Widths
from avel.heads.models.parts import BiLSTM, at_least_float32
from avel.heads.models.relevance import RelevanceConfig, RelevanceHead, category_loss, relevance_loss

TINY = 1e-6


@dataclass(frozen=True)
class SuppressionConfig(RelevanceConfig):
    """What CMBS and CACE-Net share, as in the code of both."""

    alpha: float = option(0.1, "How much a gate strengthens segments.", low=0)
    beta: float = option(0.4, "How much self-guided attention strengthens visual features.", low=0)
    gamma: float = option(0.3, "Weight of the modalities' own category scores in those of the clip.", low=0)
    gate_loss: Literal["published", "plain"] = option(
        "published", "Take the gates' product for a logit, as published, or for the probability that it is."
    )
    top_segments: int = option(4, "Segments that category scores are averaged over, a class.", low=1)
    dropout: float = option(0.1, "Fraction of activations dropped in attention layers.", low=0, high=0.99)
    input_dropout: float = option(0.2, "The same of the projected visual input.", low=0, high=0.99)
    cell_dropout: float = option(0.2, "The same of the attention between cells.", low=0, high=0.99)
    fusion_dropout: float = option(0.2, "Fraction of the fusion's attention dropped.", low=0, high=0.99)
    lr: float = 7e-4
    clip_norm: float = 0.5
    epochs: int = 200


class SuppressionHead(RelevanceHead):
    """CMBS under full supervision, which CACE-Net extends at `guided` and `localised`."""

    config: SuppressionConfig
    cross_width: ClassVar[int] = 1024
    """Width between the two layers that follow cross attention."""

    def __init__(
        self, widths: Widths, config: SuppressionConfig, weak: bool, beta: float, input_dropout: float
    ) -> None:
        super().__init__(widths, config, weak)
        self.project = nn.Sequential(nn.Linear(widths.visual, CELL), nn.ReLU(), nn.Dropout(input_dropout))
        self.watch = VisualAttention(widths, beta, config.cell_dropout)
        if not weak:
            self.audio_lstm, self.visual_lstm = BiLSTM(widths.audio), BiLSTM(CELL, CELL // 2)
        audio, encoder, n_heads = (widths.audio, 2048, 2) if weak else (HIDDEN, 1024, 4)
        classes = widths.classes if weak else widths.classes - 1
        self.encode_a = Encoder(audio, encoder, config.dropout)
        self.encode_v = Encoder(CELL, encoder, config.dropout)
        self.cross_a = CrossAttention(audio, self.cross_width, config.dropout)
        self.cross_v = CrossAttention(CELL, self.cross_width, config.dropout)
        self.gate_a, self.gate_v = nn.Linear(HIDDEN, 1), nn.Linear(HIDDEN, 1)
        self.category_a, self.category_v = nn.Linear(HIDDEN, classes), nn.Linear(HIDDEN, classes)
        self.fuse_a = Interaction(n_heads, config.fusion_dropout, config.dropout)
        self.fuse_v = Interaction(n_heads, config.fusion_dropout, config.dropout)
        if not weak:
            self.category, self.relevance = nn.Linear(HIDDEN, classes), nn.Linear(HIDDEN, 1)

    def forward(self, audio: Tensor, visual: Tensor) -> HeadOutput:
        """Scores: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> logits (B, T, K), attention maps.

        `gate` (B, T) is where both modalities take an event to be, `modal_category` (B, K - 1) what each by
        itself takes it for, averaged.
        """
        cells = self.project(cells_of(visual))
        seen, extras = self.watch(audio, cells)
        seen, heard = self.visual_lstm(seen), self.audio_lstm(self.guided(audio, cells, extras))
        encoded_a, encoded_v = self.encode_a(heard), self.encode_v(seen)
        a, extras["W_av"] = self.cross_a(heard, encoded_v)
        v, extras["W_va"] = self.cross_v(seen, encoded_a)
        gate_a, gate_v = torch.sigmoid(self.gate_a(encoded_a)), torch.sigmoid(self.gate_v(encoded_v))
        extras["gate"] = at_least_float32(gate_a * gate_v).squeeze(-1)
        v, a = v * (1 + self.config.alpha * gate_a), a * (1 + self.config.alpha * gate_v)
        modal = (self.top(self.category_v(v)) + self.top(self.category_a(a))) / 2
        extras["modal_category"] = at_least_float32(modal)
        fused = self.fused(v, a)
        category = self.category(fused.amax(1)) + self.config.gamma * modal
        return self.decided(self.relevance(self.localised(fused, extras)).squeeze(-1), category, extras)

    def guided(self, audio: Tensor, cells: Tensor, extras: dict[str, Tensor]) -> Tensor:
        """What the audio Bi-LSTM reads: (B, T, D), (B, T, N, 512) -> (B, T, D). It may add to the extras."""
        return audio

    def localised(self, fused: Tensor, extras: dict[str, Tensor]) -> Tensor:
        """What relevance is read from: (B, T, 256) -> (B, T, 256). It may add to the extras."""
        return fused

    def fused(self, v: Tensor, a: Tensor) -> Tensor:
        """Both modalities in one: twice (B, T, 256) -> (B, T, 256)."""
        one: Tensor = self.fuse_v(v, a)
        other: Tensor = self.fuse_a(a, one)
        return (one + other) / 2

    def top(self, scores: Tensor) -> Tensor:
        """Each class's mean over the segments where it scores highest: (B, T, C) -> (B, C)."""
        count = min(self.config.top_segments, scores.shape[1])
        largest: Tensor = scores.topk(count, dim=1).values
        return largest.mean(1)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """When and what: fused, by the gates, by each modality itself: (B, T, K), (B, T) -> scalar."""
        gate, classes = output.extras["gate"], self.widths.classes
        if self.config.gate_loss == "plain":
            gate = torch.logit(gate, TINY)
        modal = category_loss(output.extras["modal_category"], labels, classes)
        return super().loss(output, labels) + relevance_loss(gate, labels, classes) + modal


@HEADS.register("cmbs")
class CMBS(SuppressionHead):
    """Cross-modal background suppression: gates of one modality weigh the other's segments."""

    @dataclass(frozen=True)
    class Config(SuppressionConfig):
        """Settings of CMBS and its training, as in its code."""

        weak_alpha: float = option(0.2, "Share of gated segments under weak supervision.", low=0, high=1)
        weak_beta: float = option(0.5, "beta under weak supervision.", low=0)
        weak_input_dropout: float = option(
            0.1, "Of the projected visual input, under weak supervision.", low=0, high=0.99
        )

    source = "Xia and Zhao 2022"
    sources = ("maps", "cnn", "encoded")

    config: Config

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        beta = config.weak_beta if weak else config.beta
        super().__init__(
            widths, config, weak, beta, config.weak_input_dropout if weak else config.input_dropout
        )
        self.classify = nn.Linear(HIDDEN, widths.classes, bias=False) if weak else None

    def forward(self, audio: Tensor, visual: Tensor) -> HeadOutput:
        """Scores: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> logits (B, T, K), attention maps.

        The weak network scores all K classes, each segment by itself, weighed by what each modality scores;
        the mean gate of the modalities is the segment's relevance.
        """
        if self.classify is None:
            return super().forward(audio, visual)
        seen, extras = self.watch(audio, self.project(cells_of(visual)))
        encoded_a, encoded_v = self.encode_a(audio), self.encode_v(seen)
        a, extras["W_av"] = self.cross_a(audio, encoded_v)
        v, extras["W_va"] = self.cross_v(seen, encoded_a)
        # Each gate weighs the modality that it reads here, the other one under full supervision
        gate_v, gate_a = self.gate_a(encoded_v), self.gate_v(encoded_a)
        alpha = self.config.weak_alpha
        v = v * (1 - alpha + alpha * torch.sigmoid(gate_v))
        a = a * (1 - alpha + alpha * torch.sigmoid(gate_a))
        modal = torch.sigmoid(self.category_v(v)) + torch.sigmoid(self.category_a(a))
        category = self.top(self.classify(self.fused(v, a)) * modal / 2)
        return self.decided(mean_log_odds(gate_a, gate_v).squeeze(-1), category, extras)


def mean_log_odds(one: Tensor, other: Tensor) -> Tensor:
    """The logit of the mean of two probabilities, both given as logits: (...), (...) -> (...)."""
    one, other = at_least_float32(one), at_least_float32(other)
    against = torch.logaddexp(logsigmoid(-one), logsigmoid(-other))
    return torch.logaddexp(logsigmoid(one), logsigmoid(other)) - against


class SelfAttention(nn.Module):
    """Rows that ask each other, without scaling."""

    def __init__(self, width: int, keys: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, keys), nn.Linear(width, keys)
        self.value = nn.Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """What each row hears: (..., N, D) -> (..., N, D)."""
        scores = at_least_float32(self.query(rows) @ self.key(rows).transpose(-1, -2))
        value = self.value(rows)
        heard: Tensor = scores.softmax(-1).to(value.dtype) @ value
        return heard


class VisualAttention(nn.Module):
    """Which channels and cells sound and picture ask for; a vector has no cells to choose from."""

    def __init__(self, widths: Widths, beta: float, dropout: float) -> None:
        super().__init__()
        self.beta, self.has_cells = beta, bool(widths.cells)
        self.channels = ChannelAttention(widths.audio)
        if self.has_cells:
            self.relate, self.norm, self.dropout = (
                SelfAttention(CELL, 128),
                nn.LayerNorm(CELL),
                nn.Dropout(dropout),
            )
            self.by_audio, self.by_itself = GuidedPooling(widths.audio), GuidedPooling(CELL)

    def forward(self, audio: Tensor, cells: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, T, D), (B, T, N, 512) -> (B, T, 512), weights of cells (B, T, N) by who chose them."""
        if not self.has_cells:
            return (cells * (1 + self.channels(audio, cells))).squeeze(2), {}
        extras = {}
        related = self.related(cells, self.relate)
        weighted = cells * (1 + self.channels(audio, related))
        attended, extras["cells"] = self.by_audio(audio, weighted)
        own, extras["own_cells"] = self.by_itself(related.mean(2), related)
        return attended * (1 + self.beta * torch.sigmoid(own)), extras

    def related(self, cells: Tensor, relate: nn.Module) -> Tensor:
        """Cells in the light of each other: (B, T, N, 512) -> (B, T, N, 512)."""
        related: Tensor = self.norm(cells + self.dropout(relate(cells)))
        return related
