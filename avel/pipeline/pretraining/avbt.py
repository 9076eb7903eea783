"""Objective of AV-BT: Eq. 1 and 2 of Ran et al. 2022, for one process or many."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from avel.nn import mean_over_time, zero_padding
from avel.pipeline.pretraining.parallel import summed

EPSILON = 1e-8
"""Added to a sum of squares over time, so that a feature that does not change stays finite."""


@dataclass(frozen=True)
class AVBTLoss:
    """Eq. 2 and its two terms, scalars; `total` = `on_diagonal` + lambda x `off_diagonal`.

    `correlation` is C, (D, D), without gradient.
    """

    total: Tensor
    on_diagonal: Tensor
    off_diagonal: Tensor
    correlation: Tensor


def over_time(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Normalises to mean 0 and unit norm over each clip's time: (B, T, D) -> (B, T, D).

    With `mask` (B, T) only the segments before the end of each clip count. The others become 0, so that they
    add nothing to a product.

    Divides as Eq. 1 does. Algorithm 1 divides by the unbiased std instead, which is the same up to
    sqrt(T - 1); with it the diagonal would reach T - 1, not 1.
    """
    centred = zero_padding(z - mean_over_time(z, mask).unsqueeze(1), mask)
    return centred * torch.rsqrt(centred.square().sum(1, keepdim=True) + EPSILON)


def over_batch(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Normalises to mean 0 and unit norm over all segments of all processes: (B, T, D) -> (B, T, D).

    `mask` is that of `over_time`.

    This is Barlow Twins' own normalisation. The paper avoids it because of background segments.
    """
    own = z.new_full((), z.shape[0] * z.shape[1]) if mask is None else mask.sum().to(z.dtype)
    centred = zero_padding(z - summed(zero_padding(z, mask).sum((0, 1))) / summed(own), mask)
    return centred * torch.rsqrt(summed(centred.square().sum((0, 1))) + EPSILON)


def correlation(
    z_a: Tensor, z_v: Tensor, correlate: Literal["clip", "batch"] = "clip", mask: Tensor | None = None
) -> Tensor:
    """Returns C of Eq. 1, its mean over the clips of all processes: (B, T, D), (B, T, D) -> (D, D).

    The mean over clips of Z_a^T Z_v is one product over clips and time together: D x D numbers instead of
    Algorithm 1's B x D x D. With `mask` (B, T) neither what is after the end of a clip enters, nor a clip
    of one segment, which has no correlation over time.
    """
    if correlate == "batch":
        c = over_batch(z_a, mask).flatten(0, 1).T @ over_batch(z_v, mask).flatten(0, 1)
        return summed(c, same_gradient=True)
    clips = z_a.new_full((), len(z_a)) if mask is None else (mask.sum(1) > 1).sum().to(z_a.dtype)
    c = over_time(z_a, mask).flatten(0, 1).T @ over_time(z_v, mask).flatten(0, 1)
    return summed(c, same_gradient=True) / summed(clips).clamp(min=1)


def avbt_loss(
    z_a: Tensor,
    z_v: Tensor,
    lambd: float = 5e-3,
    correlate: Literal["clip", "batch"] = "clip",
    mask: Tensor | None = None,
) -> AVBTLoss:
    """Computes Eq. 2, sum (1 - C_ii)^2 + lambda sum C_ij^2: (B, T, D), (B, T, D) -> scalars.

    Computed in at least float32, whatever autocast says; equal on every process. `mask` (B, T) is True before
    the end of each clip; without it all have T segments.
    """
    with torch.autocast(z_a.device.type, enabled=False):
        wide = torch.promote_types(z_a.dtype, torch.float32)
        c = correlation(z_a.to(wide), z_v.to(wide), correlate, mask)
        diagonal = c.diagonal()
        on_diagonal = (1 - diagonal).square().sum()
        off_diagonal = c.square().sum() - diagonal.square().sum()
        return AVBTLoss(on_diagonal + lambd * off_diagonal, on_diagonal, off_diagonal, c.detach())
