"""TACMA, temporally adaptive cross-modal attention (Section 3.3, Eq. 3-8)."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.errors import ConfigError
from avel.heads.config import HeadConfig, settled
from avel.heads.head import HEADS, Head, HeadOutput, Widths
from avel.heads.parts import PAPER_OPTIMISER, ClassifierMLP, precise

SMALLEST_ATTENTION = 1e-6
"""Eq. 4 divides by the attention; below this the weight is 0 for any theta that matters."""


@HEADS.register("tacma")
class TACMA(Head):
    """Attention between modalities that fades with their difference in time, unless the pair is similar."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "theta": 0.03,
        "routing": "cross",
        "d_h": 256,
        "d_e": 256,
        **PAPER_OPTIMISER,
    }
    sources = ("encoded", "cnn")
    stackable = True
    buffered: ClassVar[tuple[str, ...]] = ("theta",)
    theta: Tensor

    def __init__(self, widths: Widths, config: HeadConfig) -> None:
        super().__init__(widths, config)
        if widths.audio != widths.visual:
            other = "--inputs encoded, or " if config.inputs == "cnn" else ""
            raise ConfigError(
                f"head {config.head!r} adds audio to visual features, which are {widths.audio} and"
                f" {widths.visual} wide here",
                hint=f"{other}--head psp, avel or bilstm, or --head mlp --merge concatenate",
            )
        d_l, d_h, d_e = widths.audio, settled(config.d_h), settled(config.d_e)
        self.printed = config.routing == "printed"
        self.register_buffer("theta", torch.tensor(float(config.theta or 0)))
        self.W_a1, self.W_v1 = nn.Linear(d_l, d_h, bias=False), nn.Linear(d_l, d_h, bias=False)
        self.W_a2, self.W_v2 = nn.Linear(d_l, d_l, bias=False), nn.Linear(d_l, d_l, bias=False)
        self.W_a3, self.W_v3 = nn.Linear(d_l, d_e, bias=False), nn.Linear(d_l, d_e, bias=False)
        self.norm_a, self.norm_v = nn.LayerNorm(d_e), nn.LayerNorm(d_e)
        self.mlp = ClassifierMLP(d_e, widths.classes)

    def attends_weights_first(self, features: Tensor) -> bool:
        """Whether f_a (W_a1 W_v1^T) f_v^T costs less: D^2 a segment instead of 2 D d_h: (B, T, D)."""
        return weights_first(features) and features.shape[-1] <= 2 * self.W_a1.out_features

    def attention(self, f_a: Tensor, f_v: Tensor) -> tuple[Tensor, Tensor]:
        """W^av and W^va, Eq. 3-5, rows not renormalised: (B, T, D), (B, T, D) -> (B, T, T), (B, T, T)."""
        if self.attends_weights_first(f_a):
            q_a, q_v = f_a @ (self.W_a1.weight.T @ self.W_v1.weight), f_v
        else:
            q_a, q_v = self.W_a1(f_a), self.W_v1(f_v)
        scores = torch.relu(precise(q_a @ q_v.mT) / math.sqrt(f_a.shape[-1]))  # Eq. 3
        # both at once and transposed: torch takes the softmax of columns on whole vectors, rows one by one
        M = torch.softmax(torch.stack((scores.mT, scores)), -2)
        steps = torch.arange(f_a.shape[-2], device=f_a.device)
        fade = -self.theta * (steps[:, None] - steps).abs()  # -theta |i - j| of Eq. 4, its own transpose
        W = torch.exp(fade / M.clamp_min(SMALLEST_ATTENTION)) * M  # Eq. 5
        return W[0].mT, W[1].mT

    def forward(self, audio: Tensor, visual: Tensor) -> HeadOutput:
        """Scores, Eq. 3-8: f_a (B, T, D), f_v (B, T, D) -> logits (B, T, K)."""
        W_av, W_va = self.attention(audio, visual)
        if self.printed:  # Eq. 6 to the letter: W_va, whose columns are audio time, on visual values
            V_fuse = attended(self.W_v3, W_va, self.W_v2, visual, audio)
            A_fuse = attended(self.W_a3, W_av, self.W_a2, audio, visual)
        else:
            V_fuse = attended(self.W_v3, W_va, self.W_a2, audio, visual)
            A_fuse = attended(self.W_a3, W_av, self.W_v2, visual, audio)
        fused = self.norm_v(V_fuse) + self.norm_a(A_fuse)
        return HeadOutput(self.mlp(fused), {"W_av": W_av, "W_va": W_va})


def attended(
    out: nn.Linear, weights: Tensor, value: nn.Linear, values_of: Tensor, residual: Tensor
) -> Tensor:
    """out(weights value(f) + g), Eq. 6 and the Linear of Eq. 7: (B, T, T), f and g (B, T, D) -> (B, T, d_e).

    With the weights first it is weights (f W2 W3) + g W3: the products over segments are then of data and
    parameters alone, and no gradient has to be carried back through them.
    """
    if weights_first(values_of):
        values = functional.linear(values_of, out.weight @ value.weight)
        return torch.baddbmm(out(residual), weights.to(values.dtype), values)
    values = value(values_of)
    fused: Tensor = out(torch.baddbmm(residual.to(values.dtype), weights.to(values.dtype), values))
    return fused


def weights_first(features: Tensor) -> bool:
    """Whether segments are so many that multiplying two weight matrices first costs less: (B, T, D)."""
    clips, segments, width = features.shape
    return clips * segments > 2 * width
