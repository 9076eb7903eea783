"""LESP (ShipingGe/AVEL): compares segments with a memory bank of the best examples of each event."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.config import option
from avel.errors import ConfigError
from avel.heads.config import HEADS
from avel.heads.models.cmran import AttentionLayer
from avel.heads.models.head import HeadOutput, Widths
from avel.heads.models.layout import ATTENTION_NAMES, Layout, nested
from avel.heads.models.parts import AttentionMap, TimeConvolutions, at_least_float32, cells_of, sinusoids
from avel.heads.models.relevance import RelevanceConfig, RelevanceHead, category_loss, relevance_loss
from avel.heads.tasks.multi_label import video_cross_entropy
from avel.heads.tasks.single_label import as_fractions, clip_category, holds_event
from avel.nn import mean_over_segments, mean_over_time, zero_padding

D = 256
TEMPERATURE = 0.1
NEVER = -1e4
"""Score of an event whose bank is still empty."""


@HEADS.register("lesp")
class LESP(RelevanceHead):
    """Attention over cells and time; the memory bank decides the class, not a classifier.

    The bank lies in buffers that `loss` fills in training, and is saved with the weights. While it is not
    full it repeats the segments that it has; an event without any example is never predicted.
    """

    @dataclass(frozen=True)
    class Config(RelevanceConfig):
        """Settings of LESP and its training, as in its code."""

        bank_size: int = option(32, "Segments of each event in the bank.", low=1)
        margin: float = option(0.7, "Distance from the bank below which a segment holds the event.", low=0)
        unimodal_weight: float = option(0.01, "Weight of the loss of each modality by itself.", low=0)
        bank_weight: float = option(0.1, "Weight of the losses on the distances from the bank.", low=0)
        dropout: float = option(0.1, "Fraction dropped in training, in attention layers.", low=0, high=0.99)
        output_dropout: float = option(
            0.2, "The same, after the input layers and the score layers.", low=0, high=0.99
        )
        lr: float = 3e-4
        lr_decay: float = 1.0
        milestones: tuple[int, ...] = ()
        cosine: bool = True
        batch_size: int = 128
        epochs: int = 300
        weak_defaults: ClassVar = {"bank_size": 20, "margin": 0.9}

    source = "code ShipingGe/AVEL"
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (AttentionMap("spatial", "audio", "cells"), AttentionMap("W_av", "audio", "visual"))
    weak_labels = ("fractions", "event")
    takes_differing_lengths = True

    config: Config
    bank_audio: Tensor
    bank_visual: Tensor
    bank_score: Tensor

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        events, size, self.margin = widths.classes - 1, config.bank_size, config.margin
        self.encode = SegmentEncoder(widths, config)
        self.score_a, self.score_v = nn.Linear(D, events), nn.Linear(D, events)
        self.category, self.relevance = nn.Linear(D, events), nn.Linear(D, 1)
        self.dropout = nn.Dropout(config.output_dropout)
        # Raw inputs of the examples and their quality, best first; a quality of 0 marks an empty place.
        self.register_buffer("bank_audio", torch.zeros(events, size, widths.audio))
        self.register_buffer("bank_visual", torch.zeros(events, size, max(widths.cells, 1), widths.visual))
        self.register_buffer("bank_score", torch.zeros(events, size))

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), extras for losses."""
        cells = cells_of(visual)
        fused, encoded_a, encoded_v, extras = self.encode(audio, cells, mask)
        prototype, distance = self.recall(fused, mask)
        category = at_least_float32(self.dropout(mean_over_time(self.category(fused), mask)))
        extras |= {
            "raw_audio": audio,
            "raw_cells": cells,
            "fused": fused,
            "classifier_relevance": at_least_float32(self.dropout(self.relevance(fused)).squeeze(-1)),
            "classifier_category": category,
            "category_a": self.score_a(encoded_a),
            "category_v": self.score_v(encoded_v),
            "prototype": prototype,
            "distance": distance,
        }
        scores = prototype
        if self.is_weak:
            scores = torch.logaddexp(prototype.log_softmax(-1), category.log_softmax(-1))
        nearest = of_event(distance, scores.argmax(-1)).amin(-1)  # in the bank of the predicted event: (B, T)
        return self.decided(self.margin - nearest, scores, extras)

    def recall(self, fused: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compares clips with the banks of C events, M examples each: (B, T, 256) -> (B, C), (B, T, C, M).

        The scores (B, C) come from the distance of a clip to the mean example, the distances (B, T, C, M) are
        those of segments to all examples. For an event whose bank is empty they are `NEVER` and `-NEVER`.
        """
        count = (self.bank_score > 0).sum(1)
        size = self.bank_score.shape[1]
        place = torch.arange(size, device=count.device) % count.clamp_min(1).unsqueeze(1)
        event = torch.arange(len(count), device=count.device).unsqueeze(1)
        bank = at_least_float32(self.encode(self.bank_audio[event, place], self.bank_visual[event, place])[0])
        fused = at_least_float32(fused)
        empty = count == 0
        prototype = -mean_over_time(distances(fused, bank.mean(1)), mask) / TEMPERATURE
        distance = distances(fused, bank.flatten(0, 1)).view(*fused.shape[:2], *bank.shape[:2])
        return (prototype.masked_fill(empty, NEVER), distance.masked_fill(empty.unsqueeze(-1), -NEVER))

    def layout(self) -> Layout:
        """Returns the names in ShipingGe/AVEL, of networks with one layer of each kind."""
        names = {"encode.embed_a": "audio_fc", "encode.embed_v": "video_fc"}
        names |= {"encode.merge": "fusion_layer.layers", "encode.norm": "fusion_layer.ln2"}
        names |= {"score_a": "audio_classifier", "score_v": "video_classifier"}
        names |= {"category": "final_event_classifier.linear2", "relevance": "final_bg_classifier.linear2"}
        for own, theirs in (("cells", "video_stf"), ("encode_a", "audio_tf"), ("encode_v", "video_ttf")):
            names[f"encode.{own}"] = f"{theirs}.layers.0"
            names |= nested(f"{theirs}.layers.0.", ATTENTION_NAMES, own=f"encode.{own}.")
        crossed = ATTENTION_NAMES | {"attention": "multihead_attn", "norm1": "norm2", "norm2": "norm3"}
        for own in ("spatial", "temporal"):
            names |= nested(f"{own}_decoder.layers.0.", crossed, own=f"encode.{own}.")
        for own, theirs in (("audio", "a"), ("visual", "v"), ("score", "sc")):
            names[f"bank_{own}"] = f"aligned_bank.cls_{theirs}_queue"
        changed = {"bank_visual": lambda maps: maps.flatten(2, 3), "bank_score": self.whole_bank}
        kind = "MEME_WS" if self.is_weak else "MAML"
        return Layout(f"ShipingGe/AVEL, {kind} of one layer", names, ("vstf_pe",), changed=changed)

    @staticmethod
    def whole_bank(scores: Tensor) -> Tensor:
        """Returns the scores of a published bank, which must be full: (C, M).

        The published network also compares with the zeros in empty places, and this one does not.

        Raises:
            ConfigError: an event has fewer examples than the bank has places.
        """
        count = (scores > 0).sum(1)
        event = int(count.argmin())
        if count[event] < scores.shape[1]:
            raise ConfigError(
                f"the bank of event {event} has {count[event]} of {scores.shape[1]} examples; the published"
                " network compares with zeros in place of the others, and this one does not",
                hint="train it until its bank is full",
            )
        return scores

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Returns relevance, category and `bank_losses`, and fills the bank: (B, T, K), (B, T) -> scalar."""
        classes, extras = self.widths.classes, output.extras
        event = holds_event(labels, classes)
        relevance = relevance_loss(extras["classifier_relevance"], labels, classes, output.mask)
        category = category_loss(extras["classifier_category"], labels, classes)
        weights = event.to(relevance.dtype)
        events = clip_category(labels, classes)
        return relevance + category + self.bank_losses(extras, events, weights, weights, output.mask)

    def weak_loss(self, output: HeadOutput, video_labels: Tensor) -> Tensor:
        """Returns the same losses where only each clip's fractions or event are known, and fills the bank.

        (B, T, K), (B, K) or (B,) -> scalar.
        """
        extras, classes, mask = output.extras, self.widths.classes, output.mask
        fractions = as_fractions(video_labels, classes)
        largest, event = fractions[:, :-1].max(1)
        categories = event.where(largest > 0, classes - 1)
        foreground = zero_padding(torch.sigmoid(extras["classifier_relevance"]), mask)
        relevance = video_cross_entropy(mean_over_time(foreground, mask), 1 - fractions[:, -1])
        # (B, 1): as if each clip were one segment
        category = category_loss(extras["classifier_category"], categories.unsqueeze(1), classes)
        every = zero_padding(torch.ones_like(foreground), mask)
        return relevance + category + self.bank_losses(extras, categories, every, foreground, mask)

    def bank_losses(
        self,
        extras: dict[str, Tensor],
        categories: Tensor,
        event_segments: Tensor,
        foreground: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Returns the losses of single modalities and of distances from the bank; in training fills the bank.

        Args:
            categories: (B,) the clips' events, K - 1 for none.
            event_segments: (B, T) 1 where a single modality is to predict the event, else 0.
            foreground: (B, T) how much each segment is part of the event, 0 to 1.
        """
        known = (categories < self.widths.classes - 1).to(foreground.dtype)
        event = torch.where(known > 0, categories, 0)
        scores_a, scores_v = (at_least_float32(extras[name]) for name in ("category_a", "category_v"))
        targets = event.unsqueeze(1).expand(event_segments.shape)
        loss_a, loss_v = (
            functional.cross_entropy(scores.mT, targets, reduction="none") for scores in (scores_a, scores_v)
        )
        single = mean_over_segments((loss_a + loss_v) * event_segments * known.unsqueeze(1), mask)
        has_bank = known * (self.bank_score[event, 0] > 0)
        near = functional.cross_entropy(extras["prototype"], event, reduction="none")
        distance = of_event(extras["distance"], event)
        background = zero_padding(1 - foreground, mask)

        def mean(values: Tensor, weights: Tensor) -> Tensor:
            if self.is_weak:  # every segment counts, since each is partly event and partly background
                return mean_over_time(values * weights, mask)
            return (values * weights).sum(1) / weights.sum(1).clamp_min(1e-8)

        inside = mean(distance.amax(-1), foreground)
        outside = mean(torch.relu(self.margin - distance.amin(-1)), background)
        bank = ((near + inside + outside) * has_bank).sum() / has_bank.sum().clamp_min(1)
        if self.training:
            quality = 1 - jensen_shannon(scores_a.detach(), scores_v.detach())
            if not self.is_weak:
                quality = quality + event_segments
            quality = zero_padding(quality * known.unsqueeze(1), mask)
            self.remember(extras["raw_audio"], extras["raw_cells"], quality, event)
        return self.config.unimodal_weight * single + self.config.bank_weight * bank

    @torch.no_grad()
    def remember(self, audio: Tensor, cells: Tensor, quality: Tensor, event: Tensor) -> None:
        """Offers each clip's best segment to the bank of its event, which keeps the best, none twice.

        Two segments are the same if their audio has the same sum, as in the published code.

        Args:
            audio, cells: (B, T, D), (B, T, N, C) raw inputs.
            quality: (B, T), 0 where a segment is not an example.
            event: (B,) the event that each clip is an example of.
        """
        events, size = self.bank_score.shape
        best, place = quality.max(1)
        clip = torch.arange(len(event), device=event.device)
        all_audio = torch.cat((self.bank_audio.flatten(0, 1), audio[clip, place]))
        all_cells = torch.cat((self.bank_visual.flatten(0, 1), cells[clip, place]))
        # Candidates of each event, as rows of both tensors above: its M of the bank, then the B of the batch
        row = torch.arange(events, device=event.device).unsqueeze(1)
        own = row * size + torch.arange(size, device=event.device)
        rows = torch.cat((own, (events * size + clip).expand(events, -1)), 1)
        new_score = torch.where(event == row, best, 0.0).to(self.bank_score.dtype)
        score = torch.cat((self.bank_score, new_score), 1)
        score, order = score.sort(dim=1, descending=True, stable=True)
        rows = rows.gather(1, order)
        total = all_audio.sum(1)[rows]
        same = (total.unsqueeze(2) == total.unsqueeze(1)) & (score > 0).unsqueeze(1)
        score = score.masked_fill(same.tril(-1).any(2), 0.0)
        score, order = score.sort(dim=1, descending=True, stable=True)
        rows = rows.gather(1, order)[:, :size]
        self.bank_audio, self.bank_visual = all_audio[rows], all_cells[rows]
        self.bank_score = score[:, :size].contiguous()


class SegmentEncoder(nn.Module):
    """Attention over the cells of each segment and over time; the bank of an event is encoded like a clip."""

    positions: Tensor

    def __init__(self, widths: Widths, config: LESP.Config) -> None:
        super().__init__()

        def embedding(width: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(width, D), nn.LeakyReLU(), nn.Linear(D, D), nn.Dropout(config.output_dropout)
            )

        self.embed_a, self.embed_v = embedding(widths.audio), embedding(widths.visual)
        self.cells, self.spatial, self.encode_a, self.encode_v, self.temporal = (
            AttentionLayer(1024, config.dropout) for _ in range(5)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.merge = TimeConvolutions(
            nn.Conv1d(2 * D, D, 3, padding=1), nn.LeakyReLU(), nn.Conv1d(D, D, 3, padding=1)
        )
        self.norm = nn.LayerNorm(D)
        self.register_buffer("positions", sinusoids(max(widths.cells, 1), D), persistent=False)

    def forward(
        self, audio: Tensor, cells: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Encodes: (B, T, D), (B, T, N, C) -> fused, audio and visual (B, T, 256), attention maps by name."""
        a, m = self.embed_a(audio), self.embed_v(cells)
        m = self.dropout(m + self.positions).flatten(0, 1)
        m, _ = self.cells(m, m)
        local, weights = self.spatial(a.flatten(0, 1).unsqueeze(1), m)
        whole_a, _ = self.encode_a(a, a, mask)
        v = m.mean(1).unflatten(0, a.shape[:2])
        whole_v, _ = self.encode_v(v, v, mask)
        across, over_time = self.temporal(whole_a, whole_v, mask)
        joined = torch.cat((local.squeeze(1).unflatten(0, a.shape[:2]), across), -1)
        fused = self.norm(self.merge(joined, mask))
        maps = {"spatial": weights.squeeze(1).unflatten(0, a.shape[:2]), "W_av": over_time}
        return fused, whole_a, whole_v, maps


def distances(features: Tensor, others: Tensor) -> Tensor:
    """Returns Euclidean distances / sqrt(256): (B, T, 256), (R, 256) -> (B, T, R)."""
    # Not through a matrix product, which loses small distances
    distance = torch.cdist(features, others, compute_mode="donot_use_mm_for_euclid_dist")
    return distance / math.sqrt(D)


def of_event(distance: Tensor, event: Tensor) -> Tensor:
    """Picks the distances from the bank of each clip's event: (B, T, C, M), (B,) -> (B, T, M)."""
    return distance[torch.arange(len(event), device=event.device), :, event]


def jensen_shannon(one: Tensor, other: Tensor) -> Tensor:
    """Returns the Jensen-Shannon divergence of two softmaxes, in nats: (..., C), (..., C) -> (...)."""
    p, q = one.log_softmax(-1), other.log_softmax(-1)
    middle = torch.logaddexp(p, q) - math.log(2)
    return ((p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1)) / 2
