"""TACMA, temporally adaptive cross-modal attention (Section 3.3, Eq. 3-8)."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from avel.errors import ConfigError
from avel.heads.config import HeadConfig, settled
from avel.heads.models.head import HEADS, Head, HeadOutput, Widths
from avel.heads.models.parts import PAPER_OPTIMISER, ClassifierMLP, precise
from avel.heads.models.tacma_fusion import SMALLEST_ATTENTION, Fusion


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

    def attention(self, f_a: Tensor, f_v: Tensor) -> tuple[Tensor, Tensor]:
        """W^av and W^va, Eq. 3-5, rows not renormalised: (B, T, D), (B, T, D) -> (B, T, T), (B, T, T)."""
        scores = precise(self.W_a1(f_a) @ self.W_v1(f_v).mT) / math.sqrt(f_a.shape[-1])
        M = torch.softmax(torch.stack((scores.relu(), scores.mT.relu())), -1)  # Eq. 3
        W = torch.exp(self.fade(f_a) / M.clamp_min(SMALLEST_ATTENTION)) * M  # Eq. 4, 5
        return W[0], W[1]

    def fade(self, features: Tensor) -> Tensor:
        """-theta |i - j| of Eq. 4, its own transpose: (B, T, D) -> (T, T)."""
        return self.theta * minus_distance(features.shape[-2], features.device)

    def forward(self, audio: Tensor, visual: Tensor) -> HeadOutput:
        """Scores, Eq. 3-8: f_a (B, T, D), f_v (B, T, D) -> logits (B, T, K)."""
        fuse = self.fused_at_once if self.may_fuse_at_once(audio, visual) else self.fused
        V_fuse, A_fuse, W_av, W_va = fuse(audio, visual)
        fused = self.norm_v(V_fuse).add_(self.norm_a(A_fuse))
        return HeadOutput(self.mlp(fused), {"W_av": W_av, "W_va": W_va})

    def may_fuse_at_once(self, audio: Tensor, visual: Tensor) -> bool:
        """Whether `Fusion` pays, with parameters multiplied first, and can be had: (B, T, D), (B, T, D)."""
        clips, segments, width = audio.shape
        pays = clips * segments > 2 * width and width <= 2 * self.W_a1.out_features
        return pays and not (self.vectorised or audio.requires_grad or visual.requires_grad)

    def fused(self, f_a: Tensor, f_v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Eq. 3-7 up to the LayerNorm, then W^av and W^va: (B, T, d_e) twice and (B, T, T) twice."""
        W_av, W_va = self.attention(f_a, f_v)
        a, v = self.W_a2(f_a), self.W_v2(f_v)
        W_a, W_v = W_av.to(a.dtype), W_va.to(a.dtype)
        if self.printed:  # Eq. 6 to the letter: W_va, whose columns are audio time, on visual values
            return self.W_v3(W_v @ v + f_a), self.W_a3(W_a @ a + f_v), W_av, W_va
        return self.W_v3(W_v @ a + f_v), self.W_a3(W_a @ v + f_a), W_av, W_va

    def fused_at_once(self, f_a: Tensor, f_v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same as one operation, which is faster."""
        O_a, O_v = (self.W_a3, self.W_v3) if self.printed else (self.W_v3, self.W_a3)
        linears = (self.W_a1, self.W_v1, self.W_a2, self.W_v2, O_a, O_v)
        f_a, f_v, *weights = autocasted(f_a, f_v, *(linear.weight for linear in linears))
        from_a, from_v, W = Fusion.apply(f_a, f_v, self.fade(f_a), self.printed, *weights)
        W_av, W_va = W.mT.unbind()
        return (from_v, from_a, W_av, W_va) if self.printed else (from_a, from_v, W_av, W_va)


@lru_cache
def minus_distance(steps: int, device: torch.device) -> Tensor:
    """-|i - j| of Eq. 4, as integers: (T, T)."""
    times = torch.arange(steps, device=device)
    return -(times[:, None] - times).abs()


def autocasted(*values: Tensor) -> tuple[Tensor, ...]:
    """The values as autocast has matrix products take them, where it is on."""
    kind = values[0].device.type
    if not torch.is_autocast_enabled(kind):
        return values
    return tuple(value.to(torch.get_autocast_dtype(kind)) for value in values)
