"""Positive sample propagation (Zhou et al. 2021): only strongly similar pairs exchange features."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.config import option
from avel.heads.config import HEADS, HeadConfig
from avel.heads.models.head import VGG, Head, HeadOutput, Published, Widths
from avel.heads.models.layout import AGVA_NAMES, Layout, nested
from avel.heads.models.parts import AGVA_MAP, AttentionMap, BiLSTM, at_least_float32, attend_cells, xavier
from avel.heads.tasks.multi_label import video_cross_entropy
from avel.heads.tasks.single_label import as_fractions, holds_event
from avel.nn import AGVA, mean_over_segments, mean_over_time, zero_padding

HIDDEN = 256
SMALL = 1e-8


@HEADS.register("psp")
class PSP(Head):
    """Bi-LSTMs, thresholded cross-modal propagation, and a loss on the similarity of audio-visual pairs."""

    @dataclass(frozen=True)
    class Config(HeadConfig):
        """Settings of PSP and its training, as in its code."""

        threshold: float = option(0.099, "Attention that a pair must exceed to count.", low=0, high=1)
        pair_loss: float = option(100.0, "Weight of the pair-similarity loss; full supervision only.", low=0)
        dropout: float = option(0.1, "Fraction of activations dropped in training.", low=0, high=0.99)
        lr_decay: float = 0.8
        milestones: tuple[int, ...] = (60, 120)
        batch_size: int = 128
        epochs: int = 300
        weak_defaults: ClassVar = {"threshold": 0.095, "milestones": (80, 160)}

    source = "Zhou et al. 2021"
    published = (
        Published(76.6, "full", VGG, "Ran et al. 2022, Table 3, without its pair loss"),
        Published(73.5, "weak", VGG, "Zhou et al. 2021", checked=False),
    )
    inputs = ("maps", "cnn", "encoded")
    attention_maps = (AGVA_MAP, AttentionMap("gamma_va", "visual", "audio"))
    weak_labels = ("fractions", "event")
    takes_differing_lengths = True

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        self.pair_loss = config.pair_loss
        self.audio = nn.Identity() if weak else bottleneck(widths.audio)
        self.visual = nn.Linear(widths.visual, 128) if weak else bottleneck(widths.visual)
        audio = widths.audio if weak else 128
        self.agva = AGVA(audio, widths.visual, widths.cells) if widths.cells else None
        self.audio_lstm, self.visual_lstm = BiLSTM(audio), BiLSTM(128)
        self.propagate = Propagation(config.threshold, config.dropout, renormalise=not weak, project=not weak)
        self.classify = nn.Sequential(
            nn.Linear(HIDDEN, 64, bias=False), nn.ReLU(), nn.Linear(64, widths.classes, bias=False)
        )
        self.gate = nn.Linear(widths.classes, 1, bias=False) if weak else None
        xavier(self.agva, self.propagate, self.classify)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K), similarity (B, T)."""
        audio = self.audio(audio)
        visual, extras = attend_cells(self.agva, audio, visual)
        hidden_a = self.audio_lstm(audio, mask)
        hidden_v = self.visual_lstm(self.visual(visual), mask)
        fused_v, fused_a, extras["gamma_va"] = self.propagate(hidden_v, hidden_a, mask)
        extras["similarity"] = functional.cosine_similarity(
            at_least_float32(fused_v), at_least_float32(fused_a), dim=-1
        )
        fused = (fused_v + fused_a) / 2
        logits = self.classify(fused)
        if self.gate is not None:
            extras["fused"] = fused  # for plots: the last Linear is the gate here, and reads scores
            logits = logits * torch.sigmoid(torch.relu(self.gate(logits)))
        return HeadOutput(logits, extras)

    def layout(self) -> Layout:
        """Returns the names in PSP_CVPR_2021."""
        names = psp_names() | {"classify.0": "L1", "classify.2": "L2"}
        if self.gate is None:
            unused = ("linear_v", "v_classify", "a_classify", "L3", "L4")
            return Layout("jasongief/PSP_CVPR_2021, psp_net of fully_model.py", names, unused)
        names |= {"visual": "linear_v", "gate": "W3"}
        return Layout(
            "jasongief/PSP_CVPR_2021, psp_net of weakly_model.py", names, ("temperature", "W1", "W2")
        )

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Returns cross-entropy plus the weighted pair loss: (B, T, K), (B, T) -> scalar."""
        event = holds_event(labels, self.widths.classes)
        pairs = pair_loss(output.extras["similarity"], event, output.mask)
        return super().loss(output, labels) + self.pair_loss * pairs

    def weak_loss(self, output: HeadOutput, video_labels: Tensor) -> Tensor:
        """Returns binary cross-entropy of the softmax of mean scores: (B, T, K), (B, K) or (B,) -> scalar."""
        p = torch.softmax(mean_over_time(output.logits, output.mask), -1)
        return video_cross_entropy(p, as_fractions(video_labels, self.widths.classes))


def pair_loss(similarity: Tensor, event: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the mean squared error of normalised similarities to events: (B, T), (B, T) -> scalar."""
    similar = sum_to_one(zero_padding(torch.relu(similarity), mask))
    return mean_over_segments((similar - sum_to_one(event.to(similarity.dtype))).square(), mask)


class Propagation(nn.Module):
    """Attention between all pairs of audio and visual segments, weak pairs cut off, added to both modalities.

    Args:
        threshold: attention, as a fraction of its row, that a pair must exceed.
        out_dropout: dropout of the output layers, by default `dropout`.
        renormalise: scale the rows to sum 1 again after the cut.
        project: put a layer of each modality before the last normalisation.
    """

    def __init__(
        self,
        threshold: float,
        dropout: float,
        out_dropout: float | None = None,
        renormalise: bool = True,
        project: bool = True,
    ) -> None:
        super().__init__()
        self.threshold, self.renormalise = threshold, renormalise
        self.v1, self.v2, self.a1, self.a2 = (projection(dropout) for _ in range(4))
        last = dropout if out_dropout is None else out_dropout
        self.out_v, self.out_a = (projection(last) if project else nn.Identity() for _ in range(2))
        self.norm = nn.LayerNorm(HIDDEN, eps=1e-6)

    def forward(
        self, visual: Tensor, audio: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns v', a' and gamma_va: (B, T, 256), (B, T, 256) -> (B, T, 256), (B, T, 256), (B, T, T)."""
        v1, v2, a1, a2 = self.v1(visual), self.v2(visual), self.a1(audio), self.a2(audio)
        beta = torch.relu(at_least_float32(v2 @ a1.transpose(-1, -2)) / math.sqrt(HIDDEN))
        gamma_va, gamma_av = (self.positives(each, mask) for each in (beta, beta.transpose(-1, -2)))
        fused_v = visual + gamma_va.to(a2.dtype) @ a2
        fused_a = audio + gamma_av.to(v1.dtype) @ v1
        return self.norm(self.out_v(fused_v)), self.norm(self.out_a(fused_a)), gamma_va

    def positives(self, beta: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalises rows and sets weights below the threshold to 0: (B, T, T) -> (B, T, T)."""
        rows = sum_to_one(beta if mask is None else beta * mask.unsqueeze(-2))
        strong = rows * (rows > self.threshold)
        return sum_to_one(strong) if self.renormalise else strong


PROPAGATION_NAMES = {
    "v1.0": "v_L1",
    "v2.0": "v_L2",
    "a1.0": "a_L1",
    "a2.0": "a_L2",
    "out_v.0": "v_fc",
    "out_a.0": "a_fc",
    "norm": "layer_norm",
}


def psp_names() -> dict[str, str]:
    """Returns the published names of the layers that PSP, CPSP and weak VSCG share."""
    names = {"audio": "fa", "visual": "fv"} | nested("attention.", AGVA_NAMES, own="agva.")
    names |= {"audio_lstm.lstm": "lstm_a_v.lstm_audio", "visual_lstm.lstm": "lstm_a_v.lstm_video"}
    return names | nested("psp.", PROPAGATION_NAMES, own="propagate.")


def bottleneck(width: int) -> nn.Sequential:
    """Builds two layers without biases or activation between them: (..., D) -> (..., 128)."""
    return nn.Sequential(nn.Linear(width, 256, bias=False), nn.Linear(256, 128, bias=False))


def projection(dropout: float) -> nn.Sequential:
    """Builds a layer of `Propagation`: (..., 256) -> (..., 256)."""
    return nn.Sequential(nn.Linear(HIDDEN, HIDDEN, bias=False), nn.ReLU(), nn.Dropout(dropout))


def sum_to_one(values: Tensor) -> Tensor:
    """Divides by the sum over the last axis; 0 where all are 0: (..., T) -> (..., T)."""
    return values / (values.sum(-1, keepdim=True) + SMALL)
