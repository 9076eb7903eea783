"""Positive sample propagation (Zhou et al. 2021): only strongly similar pairs exchange features."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.errors import ConfigError
from avel.heads.config import HeadConfig, settled
from avel.heads.models.head import HEADS, Head, HeadOutput, Widths
from avel.heads.models.parts import BiLSTM, precise
from avel.nn import AGVA

HIDDEN = 256
WEAK = {"threshold": 0.095, "pair_loss": 0.0}
"""Defaults under weak supervision; the pair loss needs the label of every segment."""
SMALL = 1e-8


@HEADS.register("psp")
class PSP(Head):
    """Bi-LSTMs, thresholded cross-modal propagation, and a loss on which pairs look alike."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "threshold": 0.099,
        "pair_loss": 100.0,
        "dropout": 0.1,
        "lr": 1e-3,
        "decay": 0.8,
        "decay_after": (60, 120),
        "batch_size": 128,
        "epochs": 300,
    }
    sources = ("maps", "cnn", "encoded")

    def __init__(self, widths: Widths, config: HeadConfig) -> None:
        super().__init__(widths, config)
        self.pair_loss = settled(config.pair_loss)
        if self.pair_loss and config.supervision == "weak":
            raise ConfigError("psp's pair loss needs segment labels", hint="--pair-loss 0")
        self.agva = AGVA(128, widths.visual, widths.cells) if widths.cells else None
        self.audio = nn.Sequential(nn.Linear(widths.audio, 256, bias=False), nn.Linear(256, 128, bias=False))
        self.visual = nn.Sequential(
            nn.Linear(widths.visual, 256, bias=False), nn.Linear(256, 128, bias=False)
        )
        self.audio_lstm, self.visual_lstm = BiLSTM(128), BiLSTM(128)
        self.propagate = Propagation(settled(config.threshold), settled(config.dropout))
        self.classify = nn.Sequential(
            nn.Linear(HIDDEN, 64, bias=False), nn.ReLU(), nn.Linear(64, widths.classes, bias=False)
        )
        self.gate = nn.Linear(widths.classes, 1, bias=False) if config.supervision == "weak" else None

    @classmethod
    def defaults_for(cls, config: HeadConfig) -> Mapping[str, Any]:
        """Threshold and pair loss as published for each supervision."""
        return {**cls.defaults, **WEAK} if config.supervision == "weak" else cls.defaults

    def forward(self, audio: Tensor, visual: Tensor) -> HeadOutput:
        """Scores: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> logits (B, T, K), similarity (B, T)."""
        extras = {}
        heard = self.audio(audio)
        if self.agva is not None:
            visual, extras["agva"] = self.agva(heard, visual.flatten(2, 3))
        hidden_a = self.audio_lstm(heard)
        hidden_v = self.visual_lstm(self.visual(visual))
        fused_v, fused_a, extras["gamma_va"] = self.propagate(hidden_v, hidden_a)
        extras["similarity"] = functional.cosine_similarity(precise(fused_v), precise(fused_a), dim=-1)
        logits = self.classify((fused_v + fused_a) / 2)
        if self.gate is not None:
            logits = logits * torch.sigmoid(torch.relu(self.gate(logits)))
        return HeadOutput(logits, extras)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Cross-entropy and the weighted pair loss: (B, T, K), (B, T) -> scalar."""
        loss = super().loss(output, labels)
        if not self.pair_loss:
            return loss
        event = (labels < output.logits.shape[-1] - 1).to(output.logits.dtype)
        similar = torch.relu(output.extras["similarity"])
        return loss + self.pair_loss * functional.mse_loss(shares(similar), shares(event))


class Propagation(nn.Module):
    """All-pair attention between the streams, cut below the threshold, and what each stream makes of it."""

    def __init__(self, threshold: float, dropout: float) -> None:
        super().__init__()
        self.threshold = threshold

        def projection() -> nn.Sequential:
            return nn.Sequential(nn.Linear(HIDDEN, HIDDEN, bias=False), nn.ReLU(), nn.Dropout(dropout))

        self.v1, self.v2, self.a1, self.a2, self.out_v, self.out_a = (projection() for _ in range(6))
        self.norm = nn.LayerNorm(HIDDEN, eps=1e-6)

    def forward(self, visual: Tensor, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """v', a' and gamma_va: (B, T, 256), (B, T, 256) -> (B, T, 256), (B, T, 256), (B, T, T)."""
        v1, v2, a1, a2 = self.v1(visual), self.v2(visual), self.a1(audio), self.a2(audio)
        beta = torch.relu(precise(v2 @ a1.transpose(-1, -2)) / math.sqrt(HIDDEN))
        gamma_va, gamma_av = self.positives(beta), self.positives(beta.transpose(-1, -2))
        fused_v = visual + gamma_va.to(a2.dtype) @ a2
        fused_a = audio + gamma_av.to(v1.dtype) @ v1
        return self.norm(self.out_v(fused_v)), self.norm(self.out_a(fused_a)), gamma_va

    def positives(self, beta: Tensor) -> Tensor:
        """Rows normalised, cut at the threshold, normalised again: (B, T, T) -> (B, T, T)."""
        rows = shares(beta)
        return shares(rows * (rows > self.threshold))


def shares(values: Tensor) -> Tensor:
    """Each value over the sum of the last axis, 0 where all are 0: (..., T) -> (..., T)."""
    return values / (values.sum(-1, keepdim=True) + SMALL)
