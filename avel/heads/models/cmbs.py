"""CMBS (Xia and Zhao 2022): CMRAN's network, with gates by which each modality suppresses background."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from avel.config import option
from avel.heads.config import HEADS
from avel.heads.models.cmran import (
    CELL,
    CHANNEL_NAMES,
    HIDDEN,
    INTERACTION_NAMES,
    POOLING_NAMES,
    UNUSED_TEMPLATES,
    ChannelAttention,
    CrossModalEncoder,
    GuidedPooling,
    Interaction,
    SelfEncoder,
    relation_names,
)
from avel.heads.models.head import VGG, HeadOutput, Published, Widths
from avel.heads.models.layout import Layout, nested
from avel.heads.models.parts import CROSS_MAPS, AttentionMap, BiLSTM, at_least_float32, cells_of
from avel.heads.models.relevance import RelevanceConfig, RelevanceHead, category_loss, relevance_loss
from avel.nn import amax_over_time, mask_of, mean_over_time, only_inside

TINY = 1e-6


@dataclass(frozen=True)
class SuppressionConfig(RelevanceConfig):
    """Settings of both CMBS and CACE-Net, as in the code of both."""

    alpha: float = option(
        0.1, "How much a gate strengthens features; if weak, the fraction of a feature that it scales.", low=0
    )
    beta: float = option(0.4, "How much self-guided attention strengthens visual features.", low=0)
    gamma: float = option(0.3, "Weight of the modalities' own category scores in those of the clip.", low=0)
    gate_loss: Literal["published", "plain"] = option(
        "published", "How the loss reads the gates' product; published: as a logit, plain: as a probability."
    )
    top_segments: int = option(4, "Highest-scoring segments that each class's score is averaged over.", low=1)
    dropout: float = option(0.1, "Fraction of activations dropped in attention layers.", low=0, high=0.99)
    input_dropout: float = option(0.2, "The same of the projected visual input.", low=0, high=0.99)
    cell_dropout: float = option(0.2, "The same of the attention between cells.", low=0, high=0.99)
    fusion_dropout: float = option(0.2, "Fraction of the fusion's attention dropped.", low=0, high=0.99)
    lr: float = 7e-4
    clip_norm: float = 0.5
    epochs: int = 200


class SuppressionHead(RelevanceHead):
    """Base of CMBS and CACE-Net; subclasses may override `guided` and `relevance_input`.

    Only CMBS has a weak network, with fewer layers and a `forward` of its own.
    """

    config: SuppressionConfig
    cross_width: ClassVar[int] = 1024
    """Width between the two layers that follow cross attention."""

    def __init__(self, widths: Widths, config: SuppressionConfig, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.project = nn.Sequential(
            nn.Linear(widths.visual, CELL), nn.ReLU(), nn.Dropout(config.input_dropout)
        )
        self.watch = VisualAttention(widths, config.beta, config.cell_dropout)
        if not weak:
            self.audio_lstm, self.visual_lstm = BiLSTM(widths.audio), BiLSTM(CELL, CELL // 2)
        audio, feedforward, n_heads = (widths.audio, 2048, 2) if weak else (HIDDEN, 1024, 4)
        classes = widths.classes if weak else widths.classes - 1
        self.encode_a = SelfEncoder(audio, feedforward, config.dropout)
        self.encode_v = SelfEncoder(CELL, feedforward, config.dropout)
        self.cross_a = CrossModalEncoder(audio, self.cross_width, config.dropout)
        self.cross_v = CrossModalEncoder(CELL, self.cross_width, config.dropout)
        self.gate_a, self.gate_v = nn.Linear(HIDDEN, 1), nn.Linear(HIDDEN, 1)
        self.category_a, self.category_v = nn.Linear(HIDDEN, classes), nn.Linear(HIDDEN, classes)
        self.fuse_a = Interaction(n_heads, config.fusion_dropout, config.dropout)
        self.fuse_v = Interaction(n_heads, config.fusion_dropout, config.dropout)
        if not weak:
            self.category, self.relevance = nn.Linear(HIDDEN, classes), nn.Linear(HIDDEN, 1)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), attention maps.

        Of the extras, `gate` (B, T) is the product of both modalities' probabilities of an event, and
        `modal_category` (B, K - 1) the mean of their own category scores.
        """
        cells = self.project(cells_of(visual))
        visual, extras = self.watch(audio, cells)
        audio = self.guided(audio, cells, extras, mask)
        visual, audio = self.visual_lstm(visual, mask), self.audio_lstm(audio, mask)
        encoded_a, encoded_v = self.encode_a(audio, mask), self.encode_v(visual, mask)
        a, extras["W_av"] = self.cross_a(audio, encoded_v, mask)
        v, extras["W_va"] = self.cross_v(visual, encoded_a, mask)
        gate_a, gate_v = torch.sigmoid(self.gate_a(encoded_a)), torch.sigmoid(self.gate_v(encoded_v))
        extras["gate"] = at_least_float32(gate_a * gate_v).squeeze(-1)
        v, a = v * (1 + self.config.alpha * gate_a), a * (1 + self.config.alpha * gate_v)
        modal = (self.top(self.category_v(v), mask) + self.top(self.category_a(a), mask)) / 2
        extras["modal_category"] = at_least_float32(modal)
        fused = self.fused(v, a, mask)
        category = self.category(amax_over_time(fused, mask)) + self.config.gamma * modal
        relevance = self.relevance(self.relevance_input(fused, extras)).squeeze(-1)
        return self.decided(relevance, category, extras)

    def suppression_names(self) -> dict[str, str]:
        """Returns the published names of the layers that CMBS and CACE-Net share."""
        names = relation_names() | {"watch.norm": "spatial_channel_att.norm"}
        for own, theirs in (
            ("channels", CHANNEL_NAMES),
            ("relate", {"query": "video_query", "key": "video_key", "value": "video_value"}),
            ("by_audio", POOLING_NAMES),
            ("by_itself", {"cells": "affine_video_3", "guide": "affine_video_ave", "score": "ave_v_att"}),
        ):
            names |= nested("spatial_channel_att.", theirs, own=f"watch.{own}.")
        names |= nested("AVInter.", INTERACTION_NAMES, own="fuse_v.")
        names |= nested("VAInter.", INTERACTION_NAMES, own="fuse_a.")
        for own, modality in (("a", "audio"), ("v", "video")):
            names |= {f"gate_{own}": f"{modality}_gated.0", f"category_{own}": f"{modality}_cas"}
        return names | {
            "audio_lstm.lstm": "audio_visual_rnn_layer.audio_rnn",
            "visual_lstm.lstm": "audio_visual_rnn_layer.visual_rnn",
            "relevance": "localize_module.classifier",
            "category": "localize_module.event_classifier",
        }

    def guided(self, audio: Tensor, cells: Tensor, extras: dict[str, Tensor], mask: Tensor | None) -> Tensor:
        """Returns the input of the audio Bi-LSTM, may add extras: (B, T, D), (B, T, N, 512) -> (B, T, D)."""
        return audio

    def relevance_input(self, fused: Tensor, extras: dict[str, Tensor]) -> Tensor:
        """Returns the input of the relevance layer, may add extras: (B, T, 256) -> (B, T, 256)."""
        return fused

    def fused(self, v: Tensor, a: Tensor, mask: Tensor | None) -> Tensor:
        """Fuses both modalities: twice (B, T, 256) -> (B, T, 256)."""
        one: Tensor = self.fuse_v(v, a, mask)
        other: Tensor = self.fuse_a(a, one, mask)
        return (one + other) / 2

    def top(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        """Averages each class over the segments where it scores highest: (B, T, C) -> (B, C)."""
        count = min(self.config.top_segments, scores.shape[1])
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(-1), -torch.inf)
        largest = scores.topk(count, dim=1).values
        return mean_over_time(largest, None if mask is None else mask_of(mask.sum(1), count))

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Adds losses of the gates and of single modalities to `RelevanceHead.loss`: -> scalar."""
        gate, classes = output.extras["gate"], self.widths.classes
        if self.config.gate_loss == "plain":
            gate = torch.logit(gate, TINY)
        modal = category_loss(output.extras["modal_category"], labels, classes)
        return super().loss(output, labels) + relevance_loss(gate, labels, classes, output.mask) + modal


@HEADS.register("cmbs")
class CMBS(SuppressionHead):
    """Cross-modal background suppression: the gates of one modality scale the segments of the other."""

    @dataclass(frozen=True)
    class Config(SuppressionConfig):
        """Settings of CMBS and its training, as in its code."""

        weak_defaults: ClassVar = {
            "alpha": 0.2,
            "beta": 0.5,
            "input_dropout": 0.1,
            "lr": 6e-4,
            "milestones": (10, 20, 40),
        }

    source = "Xia and Zhao 2022"
    published = (
        Published(79.3, "full", VGG, "Xia and Zhao 2022", checked=False),
        Published(74.2, "weak", VGG, "Xia and Zhao 2022", checked=False),
    )
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (
        AttentionMap("cells", "audio", "cells"),
        AttentionMap("own_cells", "visual", "cells"),
        *CROSS_MAPS,
    )
    takes_differing_lengths = True

    config: Config

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.classify = nn.Linear(HIDDEN, widths.classes, bias=False) if weak else None

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), attention maps.

        The weak network scores all K classes for each segment, times the mean of the modalities' own
        probabilities; the mean of both gates is the relevance.
        """
        if self.classify is None:
            return super().forward(audio, visual, mask)
        visual, extras = self.watch(audio, self.project(cells_of(visual)))
        encoded_a, encoded_v = self.encode_a(audio, mask), self.encode_v(visual, mask)
        a, extras["W_av"] = self.cross_a(audio, encoded_v, mask)
        v, extras["W_va"] = self.cross_v(visual, encoded_a, mask)
        # As published, layer `gate_a` reads visual here, `gate_v` audio, and each scales the modality that it
        # reads; under full supervision each reads its own modality and scales the other
        gate_v, gate_a = self.gate_a(encoded_v), self.gate_v(encoded_a)
        alpha = self.config.alpha
        v = v * (1 - alpha + alpha * torch.sigmoid(gate_v))
        a = a * (1 - alpha + alpha * torch.sigmoid(gate_a))
        modal = torch.sigmoid(self.category_v(v)) + torch.sigmoid(self.category_a(a))
        category = self.top(self.classify(self.fused(v, a, mask)) * modal / 2, mask)
        return self.decided(mean_log_odds(gate_a, gate_v).squeeze(-1), category, extras)

    def layout(self) -> Layout:
        """Returns the names in CMBS."""
        names, unused = self.suppression_names(), (*UNUSED_TEMPLATES, "spatial_channel_att.ave_bottleneck")
        if self.classify is None:
            return Layout("marmot-xy/CMBS, supv_main_model", names, (*unused, "video_norm", "audio_norm"))
        names |= {"classify": "CAS_model.classifier.0"}
        # The published layer is a convolution over one segment
        changed = {"classify.weight": lambda weight: weight.squeeze(-1)}
        return Layout("marmot-xy/CMBS, weak_main_model", names, (*unused, "classifier"), changed=changed)


def mean_log_odds(one: Tensor, other: Tensor) -> Tensor:
    """Returns the logit of the mean of two probabilities, given as logits: (...), (...) -> (...)."""
    one, other = at_least_float32(one), at_least_float32(other)
    against = torch.logaddexp(logsigmoid(-one), logsigmoid(-other))
    return torch.logaddexp(logsigmoid(one), logsigmoid(other)) - against


class SelfAttention(nn.Module):
    """Dot-product attention among rows, without scaling, as published."""

    def __init__(self, width: int, keys: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, keys), nn.Linear(width, keys)
        self.value = nn.Linear(width, width)

    def forward(self, rows: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attends: (..., N, D) -> (..., N, D); `mask` (B, N) is True for the rows of (B, N, D) that count."""
        scores = at_least_float32(self.query(rows) @ self.key(rows).transpose(-1, -2))
        value = self.value(rows)
        attended: Tensor = only_inside(scores, mask).softmax(-1).to(value.dtype) @ value
        return attended


class VisualAttention(nn.Module):
    """Attention over channels, and over the cells of maps, guided by audio and by the picture itself."""

    def __init__(self, widths: Widths, beta: float, dropout: float) -> None:
        super().__init__()
        self.beta, self.has_cells = beta, bool(widths.cells)
        self.channels = ChannelAttention(widths.audio)
        if self.has_cells:
            self.relate, self.norm = SelfAttention(CELL, 128), nn.LayerNorm(CELL)
            self.dropout = nn.Dropout(dropout)
            self.by_audio, self.by_itself = GuidedPooling(widths.audio), GuidedPooling(CELL)

    def forward(self, audio: Tensor, cells: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Attends: (B, T, D), (B, T, N, 512) -> (B, T, 512), weights of cells (B, T, N) by name."""
        if not self.has_cells:
            return (cells * (1 + self.channels(audio, cells))).squeeze(2), {}
        extras = {}
        related = self.related(cells, self.relate)
        weighted = cells * (1 + self.channels(audio, related))
        attended, extras["cells"] = self.by_audio(audio, weighted)
        own, extras["own_cells"] = self.by_itself(related.mean(2), related)
        return attended * (1 + self.beta * torch.sigmoid(own)), extras

    def related(self, cells: Tensor, relate: nn.Module) -> Tensor:
        """Lets the cells attend to each other: (B, T, N, 512) -> (B, T, N, 512)."""
        related: Tensor = self.norm(cells + self.dropout(relate(cells)))
        return related
