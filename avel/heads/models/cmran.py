"""CMRAN (Xu et al. 2020): attention within and across the modalities, then relevance and category."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from avel.config import option
from avel.heads.config import HEADS
from avel.heads.models.head import VGG, HeadOutput, Published, Widths
from avel.heads.models.layout import ATTENTION_NAMES, Layout, nested
from avel.heads.models.parts import CROSS_MAPS, AttentionMap, at_least_float32, cells_of, key_padding
from avel.heads.models.relevance import RelevanceConfig, RelevanceHead
from avel.nn import amax_over_time

CELL = 512
HIDDEN = 256


@HEADS.register("cmran")
class CMRAN(RelevanceHead):
    """Cross-modal relation-aware network: attention over channels, cells, and the time of both modalities."""

    @dataclass(frozen=True)
    class Config(RelevanceConfig):
        """Settings of CMRAN and its training, as in its code."""

        dropout: float = option(0.1, "Fraction of activations dropped in attention layers.", low=0, high=0.99)
        input_dropout: float = option(0.2, "The same of the projected visual input.", low=0, high=0.99)
        lr: float = 5e-4
        clip_norm: float = 0.1
        batch_size: int = 32
        epochs: int = 200
        weak_defaults: ClassVar = {"clip_norm": 0.5, "milestones": (5, 20, 40)}

    source = "Xu et al. 2020"
    published = (
        Published(76.1, "full", VGG, "name of its published checkpoint"),
        Published(72.4, "weak", VGG, "name of its published checkpoint"),
    )
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (AttentionMap("cells", "audio", "cells"), *CROSS_MAPS)
    takes_differing_lengths = True

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.project = nn.Sequential(
            nn.Linear(widths.visual, CELL), nn.ReLU(), nn.Dropout(config.input_dropout)
        )
        self.channels = ChannelAttention(widths.audio)
        self.cells = GuidedPooling(widths.audio) if widths.cells else None
        self.encode_a = SelfEncoder(widths.audio, 2048, config.dropout)
        self.encode_v = SelfEncoder(CELL, 2048, config.dropout)
        self.cross_a = CrossModalEncoder(widths.audio, 2048, config.dropout)
        self.cross_v = CrossModalEncoder(CELL, 2048, config.dropout)
        self.fuse = Interaction(2 if weak else 4, config.dropout, config.dropout)
        self.category = nn.Linear(HIDDEN, widths.classes if weak else widths.classes - 1)
        self.relevance = nn.Linear(HIDDEN, 1)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), attention maps."""
        extras = {}
        cells = self.project(cells_of(visual))
        cells = cells * (1 + self.channels(audio, cells))
        if self.cells is not None:
            attended, extras["cells"] = self.cells(audio, cells)
        else:
            attended = cells.squeeze(2)
        fused_a, extras["W_av"] = self.cross_a(audio, self.encode_v(attended, mask), mask)
        fused_v, extras["W_va"] = self.cross_v(attended, self.encode_a(audio, mask), mask)
        fused = self.fuse(fused_v, fused_a, mask)
        category = self.category(amax_over_time(fused, mask))
        return self.decided(self.relevance(fused).squeeze(-1), category, extras)

    def layout(self) -> Layout:
        """Returns the names in CMRAN."""
        names = relation_names() | nested("spatial_channel_att.", POOLING_NAMES, own="cells.")
        names |= nested("spatial_channel_att.", CHANNEL_NAMES, own="channels.")
        names |= nested("AVInter.", INTERACTION_NAMES, own="fuse.")
        names |= {"relevance": "localize_module.classifier", "category": "localize_module.event_classifier"}
        unused = [f"spatial_channel_att.affine_video_guided_{number}" for number in (1, 2)]
        kind = "weak_main_model" if self.is_weak else "supv_main_model"
        return Layout(f"FloretCat/CMRAN, {kind}", names, (*UNUSED_TEMPLATES, *unused))


CHANNEL_NAMES = {
    "audio": "affine_audio_1",
    "visual": "affine_video_1",
    "squeeze": "affine_bottleneck",
    "excite": "affine_v_c_att",
}
POOLING_NAMES = {"cells": "affine_video_2", "guide": "affine_audio_2", "score": "affine_v_s_att"}
INTERACTION_NAMES = {"attention": "video_multihead", "norm": "norm1"}
UNUSED_TEMPLATES = tuple(
    f"{modality}_{unused}"
    for modality in ("audio", "video")
    for unused in ("encoder.encoder_layer", "decoder.decoder_layer", "decoder.decoder.layers.0.self_attn")
)
"""Published weights that reach no output: layers that were only copied, and an attention never called."""


def relation_names() -> dict[str, str]:
    """Returns the published names of the layers that CMRAN, CMBS and CACE-Net share."""
    names = {"project.0": "v_fc"}
    for own, modality in (("a", "audio"), ("v", "video")):
        names |= {f"encode_{own}.project": f"{modality}_encoder.affine_matrix"}
        names |= {f"cross_{own}.project": f"{modality}_decoder.affine_matrix"}
        for layer in ("layers.0", "layers.1"):
            ours, theirs = f"encode_{own}.{layer}", f"{modality}_encoder.encoder.{layer}"
            names |= {ours: theirs} | nested(f"{theirs}.", ATTENTION_NAMES, own=f"{ours}.")
        crossed = f"{modality}_decoder.decoder.layers.0"
        names |= nested(f"{crossed}.", ATTENTION_NAMES, own=f"cross_{own}.layer.")
        names |= {f"cross_{own}.layer": crossed, f"cross_{own}.layer.attention": f"{crossed}.multihead_attn"}
    return names


def mask_of_both(mask: Tensor | None) -> Tensor | None:
    """Returns the mask of both modalities, one after the other: (B, T) -> (B, 2 T)."""
    return None if mask is None else mask.repeat(1, 2)


class ChannelAttention(nn.Module):
    """Attention over the channels of the cells, guided by audio."""

    def __init__(self, audio: int) -> None:
        super().__init__()
        self.audio, self.visual = nn.Linear(audio, CELL), nn.Linear(CELL, CELL)
        self.squeeze, self.excite = nn.Linear(CELL, HIDDEN), nn.Linear(HIDDEN, CELL)

    def forward(self, audio: Tensor, cells: Tensor) -> Tensor:
        """Returns weights between 0 and 1: (B, T, D), (B, T, N, 512) -> (B, T, 1, 512)."""
        pairs = torch.relu(self.audio(audio)).unsqueeze(2) * torch.relu(self.visual(cells))
        weights: Tensor = torch.sigmoid(self.excite(torch.relu(self.squeeze(pairs.mean(2)))))
        return weights.unsqueeze(2)


class GuidedPooling(nn.Module):
    """Weighted mean of the cells, by their attention scores with a guide vector."""

    def __init__(self, guide: int) -> None:
        super().__init__()
        self.guide, self.cells = nn.Linear(guide, HIDDEN), nn.Linear(CELL, HIDDEN)
        self.score = nn.Linear(HIDDEN, 1)

    def forward(self, guide: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Pools: (B, T, D), (B, T, N, 512) -> (B, T, 512), weights (B, T, N)."""
        pairs = torch.relu(self.cells(cells)) * torch.relu(self.guide(guide)).unsqueeze(2)
        weights = at_least_float32(torch.tanh(self.score(pairs).squeeze(-1))).softmax(-1)
        return torch.einsum("btn,btnc->btc", weights.to(cells.dtype), cells), weights


class AttentionLayer(nn.Module):
    """One post-norm Transformer layer: attention to a memory, then two layers on each segment."""

    def __init__(self, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(HIDDEN, 4, dropout, batch_first=True)
        self.feedforward = nn.Sequential(
            nn.Linear(HIDDEN, feedforward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feedforward, HIDDEN)
        )
        self.norm1, self.norm2, self.dropout = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN), nn.Dropout(dropout)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attends: (B, T, 256), (B, S, 256) -> (B, T, 256), weights averaged over attention heads (B, T, S).

        `mask` (B, S) is False where the memory holds nothing to attend to.
        """
        attended, weights = self.attention(query, memory, memory, key_padding(mask))
        hidden = self.norm1(query + self.dropout(attended))
        return self.norm2(hidden + self.dropout(self.feedforward(hidden))), weights


class SelfEncoder(nn.Module):
    """Self-attention of one modality over time; without positions, so the order of segments has no effect."""

    def __init__(self, width: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(width, HIDDEN)
        self.layers = nn.ModuleList(AttentionLayer(feedforward, dropout) for _ in range(2))

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encodes: (B, T, D) -> (B, T, 256)."""
        hidden: Tensor = self.project(features)
        for layer in self.layers:
            hidden, _ = layer(hidden, hidden, mask)
        return hidden


class CrossModalEncoder(nn.Module):
    """Attention of one modality to the other one, encoded, and to itself."""

    def __init__(self, width: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(width, HIDDEN)
        self.layer = AttentionLayer(feedforward, dropout)

    def forward(self, features: Tensor, other: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attends: (B, T, D), (B, T, 256) -> (B, T, 256), weights on the other modality (B, T, T).

        A row of weights sums to less than 1: the rest is the modality's attention to itself.
        """
        query = self.project(features)
        hidden, weights = self.layer(query, torch.cat((other, query), 1), mask_of_both(mask))
        return hidden, weights[..., : other.shape[1]]


class Interaction(nn.Module):
    """Attention of the element-wise product of both modalities to both."""

    def __init__(self, n_heads: int, attention_dropout: float, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(HIDDEN, n_heads, attention_dropout, batch_first=True)
        self.norm, self.dropout = nn.LayerNorm(HIDDEN), nn.Dropout(dropout)

    def forward(self, one: Tensor, other: Tensor, mask: Tensor | None = None) -> Tensor:
        """Fuses: twice (B, T, 256) -> (B, T, 256)."""
        both, product = torch.cat((other, one), 1), one * other
        attended = self.attention(product, both, both, key_padding(mask_of_both(mask)))[0]
        fused: Tensor = self.norm(product + self.dropout(attended))
        return fused
