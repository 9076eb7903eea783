"""Eq. 3-7 of TACMA as one operation, for batches of so many segments that the order of products matters."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from avel.heads.models.parts import precise

SMALLEST_ATTENTION = 1e-6
"""Eq. 4 divides by the attention; below this the weight is 0 for any theta that matters."""


class Fusion(torch.autograd.Function):
    """Both fused streams and both attentions, parameters multiplied with one another first.

    As f_a (W_a1^T W_v1) f_v^T and W (f (O W2)^T) + g O^T they take 5 products over segments forward and 5
    backward, in the place of 6 and 8, and small ones of parameters alone. The gradient is written out, since
    autograd's record of the many small steps costs more than their arithmetic. None goes to features or to
    `fade`; there is no second gradient, and no rule for vmap.

    Takes f_a and f_v (B, T, D); fade, -theta |i - j| (T, T); whether Eq. 6 is taken as printed; W_a1 and W_v1
    (d_h, D); W_a2 and W_v2 (D, D); O_a and O_v (d_e, D), Eq. 7's Linear of the stream that sums audio values
    and of the one that sums visual values. Gives these two streams (B, T, d_e), and W^av and W^va transposed
    (2, B, T, T).
    """

    @staticmethod
    def forward(
        ctx: Any,
        f_a: Tensor,
        f_v: Tensor,
        fade: Tensor,
        printed: bool,
        W_a1: Tensor,
        W_v1: Tensor,
        W_a2: Tensor,
        W_v2: Tensor,
        O_a: Tensor,
        O_v: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        clips = f_a.shape[:2]
        audio, visual = f_a.flatten(0, 1), f_v.flatten(0, 1)
        query = audio @ (W_a1.T @ W_v1)
        values_a = (audio @ (O_a @ W_a2).T).view(*clips, -1)
        from_v = (audio @ O_v.T).view(*clips, -1)
        from_a = (visual @ O_a.T).view(*clips, -1)
        values_v = (visual @ (O_v @ W_v2).T).view(*clips, -1)
        scores = precise(torch.bmm(query.view_as(f_a), f_v.mT))
        scores = scores.mul_(1 / math.sqrt(f_a.shape[-1])).relu_()  # Eq. 3
        # both at once and transposed: torch takes the softmax of columns on whole vectors, rows one by one
        M = torch.softmax(torch.stack((scores.mT, scores)), -2)
        weight = torch.exp(fade / M.clamp_min(SMALLEST_ATTENTION))  # Eq. 4
        W = weight * M  # Eq. 5
        slope = (M - fade).mul_(weight)  # M dW / dM, to 4e-7 where M is below the smallest
        mixed_v, mixed_a = W.to(f_a.dtype).unbind()
        if printed:
            mixed_v, mixed_a = mixed_a, mixed_v
        from_a.baddbmm_(mixed_a.mT, values_a)
        from_v.baddbmm_(mixed_v.mT, values_v)
        ctx.printed = printed
        ctx.save_for_backward(
            f_a, f_v, W_a1, W_v1, W_a2, W_v2, O_a, O_v, values_a, values_v, mixed_a, mixed_v, M, slope, scores
        )
        return from_a, from_v, W

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_from_a: Tensor, d_from_v: Tensor, d_W: Tensor) -> tuple[Tensor | None, ...]:
        f_a, f_v, W_a1, W_v1, W_a2, W_v2, O_a, O_v, *rest = ctx.saved_tensors
        values_a, values_v, mixed_a, mixed_v, M, slope, scores = rest
        audio, visual = f_a.flatten(0, 1), f_v.flatten(0, 1)
        d_mixed_a, d_W_a2, d_O_a = _stream(d_from_a, mixed_a, values_a, audio, visual, W_a2, O_a)
        d_mixed_v, d_W_v2, d_O_v = _stream(d_from_v, mixed_v, values_v, visual, audio, W_v2, O_v)
        both = (d_mixed_a, d_mixed_v) if ctx.printed else (d_mixed_v, d_mixed_a)
        d_M = precise(torch.stack(both)).add_(d_W).mul_(slope)
        d_M.addcmul_(M, d_M.sum(-2, keepdim=True), value=-1)  # of the softmax
        d_scores = d_M[1].add_(d_M[0].mT).mul_(scores.sign()).mul_(1 / math.sqrt(f_a.shape[-1]))
        d_query = torch.bmm(d_scores.to(f_v.dtype), f_v)
        d_product = audio.T @ d_query.flatten(0, 1)  # of W_a1^T W_v1
        d_W_a1, d_W_v1 = W_v1 @ d_product.T, W_a1 @ d_product
        return None, None, None, None, d_W_a1, d_W_v1, d_W_a2, d_W_v2, d_O_a, d_O_v


def _stream(
    given: Tensor, mixed: Tensor, values: Tensor, inputs: Tensor, residual: Tensor, W2: Tensor, out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of mixed, W2 and out in mixed^T (inputs (out W2)^T) + residual out^T.

    given is the gradient of that (B, T, d_e); values are inputs (out W2)^T; inputs and residual (B T, D).
    """
    d_mixed = torch.bmm(values, given.mT)
    d_product = torch.bmm(mixed, given).flatten(0, 1).T @ inputs
    d_out = (given.flatten(0, 1).T @ residual).addmm_(d_product, W2.T)
    return d_mixed, out.T @ d_product, d_out
