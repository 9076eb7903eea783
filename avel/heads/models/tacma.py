"""TACMA, temporally adaptive cross-modal attention (Section 3.3, Eq. 3-8)."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from avel.config import option
from avel.heads.config import HEADS
from avel.heads.models.head import Head, HeadOutput, Published, Widths
from avel.heads.models.parts import CROSS_MAPS, ClassifierMLP, PaperConfig, at_least_float32
from avel.nn import only_inside

SMALLEST_ATTENTION = 1e-6
"""Least divisor in Eq. 4, since attention can underflow to 0; attention below it adds nothing in Eq. 5."""


@dataclass(frozen=True)
class AttentionConfig(PaperConfig):
    """Settings of both TACMA and plain cross-modal attention, trained as in Section 4.1."""

    routing: Literal["cross", "printed"] = option(
        "cross",
        "Values that each attention map multiplies; cross: those it attends to, printed: Eq. 6 as printed.",
    )
    d_h: int = option(256, "Width of queries and keys.", low=1)
    d_e: int = option(256, "Width of the fused features.", low=1)

    @property
    def equal_widths(self) -> bool:
        return True


@HEADS.register("tacma")
class TACMA(Head):
    """Cross-modal attention that decays with the time between two segments, slower where they are similar.

    >>> head = TACMA(Widths(audio=256, visual=256, classes=29), TACMA.Config(theta=0.03), weak=False)
    >>> f_a, f_v = torch.randn(8, 10, 256), torch.randn(8, 10, 256)  # 8 clips of 10 segments
    >>> logits, extras, _ = head(f_a, f_v)
    >>> logits.shape, extras["W_av"].shape
    (torch.Size([8, 10, 29]), torch.Size([8, 10, 10]))
    """

    @dataclass(frozen=True)
    class Config(AttentionConfig):
        """Settings of TACMA."""

        theta: float = option(0.03, "Decay of attention with time difference, Eq. 4.", low=0)

    source = "Ran et al. 2022, Section 3.3"
    published = (Published(77.2, "full", "AV-BT", "Ran et al. 2022, Table 3"),)
    inputs = ("encoded", "cnn")
    attention_maps = CROSS_MAPS
    tasks = ("single_label", "multi_label")
    stackable = True
    takes_differing_lengths = True
    buffered: ClassVar[tuple[str, ...]] = ("theta",)
    theta: Tensor

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak)
        d_l, d_h, d_e = widths.audio, config.d_h, config.d_e
        self.printed = config.routing == "printed"
        self.register_buffer("theta", torch.tensor(config.theta))
        self.W_a1, self.W_v1 = nn.Linear(d_l, d_h, bias=False), nn.Linear(d_l, d_h, bias=False)
        self.W_a2, self.W_v2 = nn.Linear(d_l, d_l, bias=False), nn.Linear(d_l, d_l, bias=False)
        self.W_a3, self.W_v3 = nn.Linear(d_l, d_e, bias=False), nn.Linear(d_l, d_e, bias=False)
        self.norm_a, self.norm_v = nn.LayerNorm(d_e), nn.LayerNorm(d_e)
        self.mlp = ClassifierMLP(d_e, widths.classes, config.dropout)

    def attention(self, f_a: Tensor, f_v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns W^av and W^va, whose rows need not sum to 1: twice (B, T, D) -> twice (B, T, T)."""
        # Eq. 3; float32 also under autocast, since bfloat16 is too coarse for the softmax and for Eq. 4
        M = at_least_float32(self.W_a1(f_a) @ self.W_v1(f_v).mT) / math.sqrt(f_a.shape[-1])
        M_av, M_va = (only_inside(each.relu(), mask).softmax(-1) for each in (M, M.mT))
        time = torch.arange(f_a.shape[-2], device=f_a.device)
        distance = self.theta * (time[:, None] - time).abs()  # theta |i - j|
        W_mv = torch.exp(-distance / M_av.clamp_min(SMALLEST_ATTENTION))  # Eq. 4
        W_ma = torch.exp(-distance / M_va.clamp_min(SMALLEST_ATTENTION))
        return W_mv * M_av, W_ma * M_va  # Eq. 5

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns scores: f_a (B, T, D), f_v (B, T, D) -> logits (B, T, K), attention maps."""
        f_a, f_v = audio, visual
        W_av, W_va = self.attention(f_a, f_v, mask)
        if self.printed:  # Eq. 6 to the letter: W_va, whose columns are audio time, on visual values
            V_fuse, A_fuse = W_va @ self.W_v2(f_v) + f_a, W_av @ self.W_a2(f_a) + f_v
        else:  # Eq. 6 corrected: W_va on audio values
            V_fuse, A_fuse = W_va @ self.W_a2(f_a) + f_v, W_av @ self.W_v2(f_v) + f_a
        f_va, f_av = self.norm_v(self.W_v3(V_fuse)), self.norm_a(self.W_a3(A_fuse))  # Eq. 7
        return HeadOutput(self.mlp(f_va + f_av), {"W_av": W_av, "W_va": W_va})  # Eq. 8
