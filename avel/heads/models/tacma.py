"""TACMA, temporally adaptive cross-modal attention (Section 3.3, Eq. 3-8)."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from avel.config import option
from avel.errors import ConfigError
from avel.heads.config import HEADS
from avel.heads.models.head import Head, HeadOutput, Widths
from avel.heads.models.parts import ClassifierMLP, PaperConfig, precise
from avel.heads.models.tacma_fusion import SMALLEST_ATTENTION, Fusion


@dataclass(frozen=True)
class AttentionConfig(PaperConfig):
    """What TACMA shares with plain cross-modal attention; trained as in Section 4.1."""

    routing: Literal["cross", "printed"] = option(
        "cross", "Which values each attention map weights; printed is Eq. 6 to the letter."
    )
    d_h: int = option(256, "Width of queries and keys.", low=1)
    d_e: int = option(256, "Width of the fused features.", low=1)


@HEADS.register("tacma")
class TACMA(Head):
    """Attention between modalities that fades with their difference in time, unless the pair is similar."""

    @dataclass(frozen=True)
    class Config(AttentionConfig):
        """Settings of TACMA."""

        theta: float = option(0.03, "Decay of attention with time difference, Eq. 4.", low=0)

    source = "Ran et al. 2022, Section 3.3"
    sources = ("encoded", "cnn")
    stackable = True
    buffered: ClassVar[tuple[str, ...]] = ("theta",)
    theta: Tensor

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        if widths.audio != widths.visual:
            raise ConfigError(
                f"head {config.name!r} adds audio to visual features, which are {widths.audio} and"
                f" {widths.visual} wide here",
                hint="--inputs encoded, or --head psp, avel or bilstm, or --head mlp --set merge=concatenate",
            )
        d_l, d_h, d_e = widths.audio, config.d_h, config.d_e
        self.printed = config.routing == "printed"
        self.register_buffer("theta", torch.tensor(config.theta))
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
