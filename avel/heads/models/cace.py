"""CACE-Net (He et al. 2024): CMBS, with audio guided by vision too, and a contrast of event segments."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from avel.config import option
from avel.heads.config import HEADS
from avel.heads.models.cmbs import SelfAttention, SuppressionConfig, SuppressionHead
from avel.heads.models.cmran import CELL, HIDDEN
from avel.heads.models.head import HeadOutput, Widths
from avel.heads.models.parts import at_least_float32
from avel.heads.models.relevance import holds_event


@HEADS.register("cace")
class CACE(SuppressionHead):
    """CMBS with co-guided attention, and a contrast of refined segments after an eighth of the epochs."""

    @dataclass(frozen=True)
    class Config(SuppressionConfig):
        """Settings of CACE-Net as in its code, but learning rate, clipping and batch, which are CMBS's."""

        psi: float = option(0.3, "How much visual guidance strengthens audio features.", low=0)
        refinement: float = option(0.6, "Weight of refined features in relevance.", low=0)
        refine_after: float = option(0.125, "Fraction of the epochs without refinement.", low=0, high=1)
        contrast_loss: float = option(1.0, "Weight of the contrast of refined segments.", low=0)
        contrast_noise: float = option(0.1, "Noise on the segments that refined ones should equal.", low=0)
        temperature: float = option(0.01, "Temperature of that contrast.", low=1e-3)

    source = "He et al. 2024"
    sources = ("maps", "cnn", "encoded")
    weak = False
    cross_width: ClassVar[int] = 512

    config: Config
    refines: Tensor

    def __init__(self, widths: Widths, config: Config, weak: bool) -> None:
        super().__init__(widths, config, weak, config.beta, config.input_dropout)
        self.relate = SelfAttention(CELL, 128) if widths.cells else None
        self.guide = Guidance(widths.audio)
        self.refine = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
        relevance = self.relevance
        del self.relevance
        self.relevance = relevance  # last again: the input of the last layer is what views show
        self.register_buffer("refines", torch.tensor(1.0))

    def begin_epoch(self, epoch: int) -> None:
        """Refines from the epoch that follows the first `refine_after` of all."""
        self.refines.fill_(float(epoch - 1 >= self.config.refine_after * self.config.epochs))

    def guided(self, audio: Tensor, cells: Tensor, extras: dict[str, Tensor]) -> Tensor:
        """Audio, strengthened where vision asks for it: (B, T, D), (B, T, N, 512) -> (B, T, D)."""
        seen = cells if self.relate is None else self.watch.related(cells, self.relate)
        guidance, extras["guidance"] = self.guide(audio, seen.mean(2))
        return audio * (1 + self.config.psi * torch.sigmoid(guidance))

    def localised(self, fused: Tensor, extras: dict[str, Tensor]) -> Tensor:
        """Fused and refined features: (B, T, 256) -> (B, T, 256); `refined` and `noisy` are for the loss."""
        refined = self.refine(fused)
        noise = torch.randn_like(fused) if self.training else torch.zeros_like(fused)
        noisy = self.refine(fused + self.config.contrast_noise * noise)
        extras["refined"] = functional.normalize(at_least_float32(refined), dim=-1)
        extras["noisy"] = functional.normalize(at_least_float32(noisy), dim=-1)
        strengthened: Tensor = fused + self.config.refinement * self.refines * refined
        return strengthened

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """CMBS's loss, and the contrast once refinement is on: (B, T, K), (B, T) -> scalar."""
        loss = super().loss(output, labels)
        if not self.config.contrast_loss:
            return loss
        event, extras = holds_event(labels, self.widths.classes), output.extras
        contrast = segment_contrast(extras["refined"], extras["noisy"], event, self.config.temperature)
        return loss + self.config.contrast_loss * self.refines * contrast


class Guidance(nn.Module):
    """What of the audio, over time, the picture asks for."""

    def __init__(self, audio: int) -> None:
        super().__init__()
        self.relate, self.norm = SelfAttention(audio, audio), nn.LayerNorm(audio)
        self.query = nn.Linear(CELL, audio)
        self.key, self.value = nn.Linear(audio, audio), nn.Linear(audio, audio)

    def forward(self, audio: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D), (B, T, 512) -> (B, T, D), weights (B, T, T): rows are visual time, columns audio's."""
        related = self.norm(audio + self.relate(audio))
        scores = at_least_float32(self.query(seen) @ self.key(related).transpose(1, 2))
        weights, value = scores.softmax(-1), self.value(related)
        return weights.to(value.dtype) @ value, weights


def segment_contrast(refined: Tensor, noisy: Tensor, event: Tensor, temperature: float) -> Tensor:
    """Each segment should be like its noisy twin, event segments like all of the clip: -> scalar.

    Unit features, twice (B, T, D), and event (B, T) make 2 T rows a clip. The loss of a row is minus the log
    of its mean exp(cosine / temperature) to its positives over the sum of that to all other rows. Positives
    are the twin, and for an event row all other event rows. exp(1 / 0.01) is beyond float32: stay in logs.
    """
    rows = torch.cat((refined, noisy), 1)
    alike = rows @ rows.transpose(1, 2) / temperature
    both, segments = event.repeat(1, 2), event.shape[1]
    itself = torch.eye(2 * segments, dtype=torch.bool, device=rows.device)
    positive = (both.unsqueeze(2) & both.unsqueeze(1) | itself.roll(segments, 1)) & ~itself
    mean = alike.masked_fill(~positive, -torch.inf).logsumexp(-1) - positive.sum(-1).to(rows.dtype).log()
    return (alike.masked_fill(itself, -torch.inf).logsumexp(-1) - mean).mean()
