"""VSCG (arXiv 2210.05242): propagation, then GRUs whose initial states summarise the clip."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.config import option
from avel.heads.config import HEADS
from avel.heads.models.head import HeadOutput, Widths
from avel.heads.models.layout import Layout, nested
from avel.heads.models.parts import AGVA_MAP, AttentionMap, BiLSTM, at_least_float32, attend_cells, xavier
from avel.heads.models.psp import HIDDEN, Propagation, bottleneck, pair_loss, projection, psp_names
from avel.heads.models.relevance import RelevanceConfig, RelevanceHead
from avel.heads.tasks.multi_label import video_cross_entropy
from avel.heads.tasks.single_label import as_fractions, holds_event
from avel.nn import AGVA, amax_over_time, mean_over_time, recur, zero_padding


@HEADS.register("vscg")
class VSCG(RelevanceHead):
    """Positive sample propagation, then GRUs that start from a summary of the clip; 8 to 11 segments.

    In a clip that is shorter than others, the summary reads 0 after its end.
    """

    @dataclass(frozen=True)
    class Config(RelevanceConfig):
        """Settings of VSCG and its training, as in its code."""

        threshold: float = option(0.099, "Attention that a pair must exceed to count.", low=0, high=1)
        pair_loss: float = option(1.0, "Weight of the pair-similarity loss; full supervision only.", low=0)
        dropout: float = option(
            0.2, "Fraction dropped in training, of what propagation reads.", low=0, high=0.99
        )
        projection_dropout: float = option(0.2, "The same, after propagation.", low=0, high=0.99)
        out_dropout: float = option(0.1, "The same, after the GRUs.", low=0, high=0.99)
        event_threshold: float = 0.7
        lr_decay: float = 0.8
        milestones: tuple[int, ...] = (60, 120, 240)
        batch_size: int = 128
        epochs: int = 300
        weak_defaults: ClassVar = {"dropout": 0.1, "out_dropout": 0.5, "milestones": (80, 180, 240)}

    source = "arXiv 2210.05242"
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (AGVA_MAP, AttentionMap("gamma_va", "visual", "audio"))
    takes_differing_lengths = True
    segments = range(8, 12)
    weak_labels = ("fractions", "event")

    config: Config

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.audio = nn.Identity() if weak else bottleneck(widths.audio)
        self.visual = nn.Linear(widths.visual, 128) if weak else bottleneck(widths.visual)
        audio = widths.audio if weak else 128
        self.agva = AGVA(audio, widths.visual, widths.cells) if widths.cells else None
        self.audio_lstm, self.visual_lstm = BiLSTM(audio), BiLSTM(128)
        self.propagate = Propagation(
            config.threshold, config.dropout, config.projection_dropout, renormalise=not weak
        )
        self.summary = ClipSummary()
        self.audio_gru, self.visual_gru = (
            nn.GRU(HIDDEN, 128, batch_first=True, bidirectional=True) for _ in range(2)
        )
        if weak:
            self.cross_a, self.cross_v = (nn.Linear(128, 128, bias=False) for _ in range(2))
            self.out_a: nn.Module = nn.Dropout(config.out_dropout)
            self.out_v: nn.Module = nn.Dropout(config.out_dropout)
            xavier(self.cross_a, self.cross_v)
        else:
            self.out_a, self.out_v = projection(config.out_dropout), projection(config.out_dropout)
        self.norm = nn.LayerNorm(HIDDEN, eps=1e-6)
        if weak:
            self.gate = nn.Linear(widths.classes, 1, bias=False)
            self.category: nn.Module = nn.Sequential(
                nn.Linear(HIDDEN, 64, bias=False), nn.ReLU(), nn.Linear(64, widths.classes, bias=False)
            )
        else:
            self.category = nn.Linear(HIDDEN, widths.classes - 1)
            self.relevance = nn.Linear(HIDDEN, 1)
            xavier(self.relevance)
        xavier(self.agva, self.propagate, self.out_a, self.out_v, self.category)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), similarity (B, T)."""
        audio = self.audio(audio)
        visual, extras = attend_cells(self.agva, audio, visual)
        states_a, states_v = self.audio_lstm(audio, mask), self.visual_lstm(self.visual(visual), mask)
        fused_v, fused_a, extras["gamma_va"] = self.propagate(states_v, states_a, mask)
        guided_v, guided_a = self.guided(fused_v, fused_a, mask)
        extras["similarity"] = functional.cosine_similarity(guided_v, guided_a, dim=-1)
        fused = (guided_v + guided_a) / 2
        if self.is_weak:
            scores = self.category(fused)
            return HeadOutput(scores * torch.sigmoid(torch.relu(self.gate(scores))), extras)
        category = self.category(amax_over_time(fused, mask))
        return self.decided(self.relevance(fused).squeeze(-1), category, extras)

    def guided(self, visual: Tensor, audio: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs both GRUs from the clip's summaries: v, a (B, T, 256) -> v, a (B, T, 256)."""
        summary_a, summary_v = (self.summary(zero_padding(each, mask)) for each in (audio, visual))
        if self.is_weak:
            first_a, first_v = self.cross_a(summary_v), self.cross_v(summary_a)
        else:
            first_a = first_v = (summary_a + summary_v) / 2
        audio = self.norm(self.out_a(gru_states(self.audio_gru, audio, first_a, mask)))
        visual = self.norm(self.out_v(gru_states(self.visual_gru, visual, first_v, mask)))
        return visual, audio

    def layout(self) -> Layout:
        """Returns the names in VSCG; the full network calls its audio layers with the visual stream."""
        names = psp_names() | {"summary.layers.0": "escm.conv1.0", "summary.layers.3": "escm.conv2.0"}
        names |= {"norm": "escm.layer_norm"}
        if self.is_weak:
            names |= {"visual": "linear_v", "gate": "W3", "category.0": "L1", "category.2": "L2"}
            names |= {"audio_gru": "escm.a_gru", "visual_gru": "escm.v_gru"}
            names |= {"cross_a": "escm.L2", "cross_v": "escm.L1"}
            unread = ("escm.layer_norm1", "escm.v_fc", "escm.a_fc", "W1", "W2", "L3")
            return Layout("Bravo5542/VSCG, vscg_net of vscgweakly_model.py", names, unread)
        names |= {"audio_lstm.lstm": "lstm_a_v.lstm_video", "visual_lstm.lstm": "lstm_a_v.lstm_audio"}
        swapped = {"v1.0": "a_L2", "v2.0": "a_L1", "a1.0": "v_L2", "a2.0": "v_L1"}
        names |= nested("psp.", swapped | {"out_v.0": "a_fc", "out_a.0": "v_fc"}, own="propagate.")
        names |= {"audio_gru": "escm.v_gru", "visual_gru": "escm.a_gru"}
        names |= {"out_a.0": "escm.a_fc", "out_v.0": "escm.v_fc", "relevance": "L3", "category": "L4"}
        unused = ("linear_v", "escm.L1", "v_classify", "a_classify", "L1", "L2", "audio_gated", "video_gated")
        return Layout("Bravo5542/VSCG, vscg_net of vscgfully_model.py", names, unused)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Returns relevance, category and weighted pair loss: (B, T, K), (B, T) -> scalar."""
        event = holds_event(labels, self.widths.classes)
        pairs = pair_loss(output.extras["similarity"], event, output.mask)
        return super().loss(output, labels) + self.config.pair_loss * pairs

    def weak_loss(self, output: HeadOutput, video_labels: Tensor) -> Tensor:
        """Returns 2 H(p) + H(softmax(p)), as published: (B, T, K), (B, K) or (B,) -> scalar.

        p is the softmax of the scores averaged over time, H the binary cross-entropy with the video label.
        """
        targets = as_fractions(video_labels, self.widths.classes)
        p = torch.softmax(mean_over_time(output.logits, output.mask), -1)
        return 2 * video_cross_entropy(p, targets) + video_cross_entropy(torch.softmax(p, -1), targets)


class ClipSummary(nn.Module):
    """Two vectors of a clip, one for each direction of a GRU, by convolution over time."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(HIDDEN, 128, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(128, 128, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool1d(2),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Summarises: (B, T, 256) -> (2, B, 128), T from 8 to 11."""
        pooled: Tensor = self.layers(features.mT)
        return pooled.permute(2, 0, 1)


def gru_states(gru: nn.GRU, features: Tensor, first: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns hidden states, in float32 also under autocast: (B, T, 256), (2, B, 128) -> (B, T, 256)."""
    with torch.autocast(features.device.type, enabled=False):
        return recur(gru, at_least_float32(features), mask, at_least_float32(first).contiguous())[0]
