"""Measures AV-BT while it trains: the parts of the loss, how far weights moved, collapse."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avel.pipeline.pretraining.avbt import AVBTLoss
from avel.pipeline.pretraining.parallel import summed
from avel.pipeline.pretraining.projector import ProjectedEncoder

CONSTANT_BELOW = 1e-3
"""Std of the embeddings, as a fraction of their root mean square, under which they count as constant."""
REDUNDANT_ABOVE = 0.3
"""Mean squared off-diagonal correlation above which features count as copies of one another."""
UNCORRELATED_BELOW = 1e-6
"""Mean squared off-diagonal correlation, and squared mean diagonal, below which nothing is correlated."""


@dataclass(frozen=True)
class EpochMeans:
    """Means over an epoch's steps.

    Attributes:
        loss: Eq. 2, and its two terms `on_diagonal` and `off_diagonal`, summed over features.
        diagonal: mean of C_ii.
        redundancy: mean of C_ij^2, i != j.
        relative_std: std of the embeddings over the batch, as a fraction of their root mean square; the
            smaller one of the two modalities'.
    """

    loss: float
    on_diagonal: float
    off_diagonal: float
    diagonal: float
    redundancy: float
    relative_std: float

    @property
    def is_finite(self) -> bool:
        """Says whether training may go on from here."""
        return math.isfinite(self.loss) and math.isfinite(self.relative_std)

    def line(self) -> str:
        """Returns the loss and its two terms, for the progress line."""
        return (
            f"loss {self.loss:.4g} (on-diagonal {self.on_diagonal:.4g}, off-diagonal {self.off_diagonal:.4g})"
        )


@torch.no_grad()
def step_values(loss: AVBTLoss, z_a: Tensor, z_v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the six numbers of `EpochMeans` for one step, left on the device: (6,).

    `mask` (B, T) is True before the end of each clip.
    """
    features = len(loss.correlation)
    pairs = max(features * (features - 1), 1)
    parts = (
        loss.total,
        loss.on_diagonal,
        loss.off_diagonal,
        loss.correlation.diagonal().mean(),
        loss.off_diagonal / pairs,
        torch.minimum(relative_std(z_a, mask), relative_std(z_v, mask)),
    )
    return torch.stack([part.detach().float() for part in parts])


def relative_std(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the std over all segments as a fraction of the root mean square: (B, T, D) -> scalar."""
    wide = z.to(torch.promote_types(z.dtype, torch.float32))
    flat = wide.flatten(0, 1) if mask is None else wide[mask]
    mean = summed(flat.sum(0)) / summed(flat.new_full((), len(flat)))
    squares = summed(torch.stack([(flat - mean).square().sum(), flat.square().sum()]))
    return (squares[0] / squares[1].clamp(min=1e-30)).sqrt()


def collapse(means: EpochMeans) -> str | None:
    """Returns what is wrong with an epoch and what to do, or None."""
    if not means.is_finite:
        return "the loss is not finite: lower the learning rate (--lr), or use --dtype float32"
    if means.relative_std < CONSTANT_BELOW:
        return (
            f"collapsed: the embeddings are nearly constant (std {means.relative_std:.1e} of their size); "
            "lower --lr, lengthen --warmup-epochs, or take --optimizer adamw for few clips"
        )
    if means.redundancy > REDUNDANT_ABOVE:
        return (
            f"collapsed: the features are copies of one another (mean squared correlation "
            f"{means.redundancy:.2f}); raise --lambd or --batch-size. Staged clips without motion and "
            "sound have the same effect: avel preview STORE ID sheet.png shows one"
        )
    if means.redundancy < UNCORRELATED_BELOW and abs(means.diagonal) < math.sqrt(UNCORRELATED_BELOW):
        return (
            "all correlations are zero: nothing changes within the clips. Perhaps they were staged without "
            "motion or sound: avel preview STORE ID sheet.png shows one"
        )
    return None


class Movement:
    """Distance of each part's weights from their start, relative to the norm of the start."""

    def __init__(self, projected: ProjectedEncoder) -> None:
        self._start = {
            name: [p.detach().clone() for p in part.parameters()]
            for name, part in parts_of(projected).items()
        }

    @torch.no_grad()
    def measure(self, projected: ProjectedEncoder) -> dict[str, float]:
        """Returns |w - w_0| / |w_0| by part."""
        return {
            name: distance(list(part.parameters()), self._start[name])
            for name, part in parts_of(projected).items()
        }


def parts_of(projected: ProjectedEncoder) -> dict[str, nn.Module]:
    """Returns the parts that are trained, by name."""
    encoder = projected.encoder
    parts = {
        "visual_cnn": encoder.visual,
        "audio_cnn": encoder.audio,
        "visual_linear": encoder.temporal.visual_linear,
        "audio_linear": encoder.temporal.audio_linear,
        "attention": encoder.temporal.attention,
        "visual_lstm": encoder.temporal.visual_lstm,
        "audio_lstm": encoder.temporal.audio_lstm,
        "projector": projected.projector,
        "visual_projector": projected.visual_projector,
    }
    return {
        name: part
        for name, part in parts.items()
        if part is not None and any(p.requires_grad for p in part.parameters())
    }


def distance(now: list[nn.Parameter], start: list[Tensor]) -> float:
    """Returns |now - start| / |start| over all tensors together."""
    moved = torch.stack([(a - b).norm() for a, b in zip(now, start, strict=True)]).norm()
    size = torch.stack([b.norm() for b in start]).norm()
    return float(moved / size.clamp(min=1e-30))
