"""Encoder and projector together: what AV-BT trains (Section 3.2.1, "Projecting")."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from avel.errors import ConfigError
from avel.nn import put_inside
from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.encoder import Encoder


def projector_widths(text: str) -> tuple[int, ...]:
    """Reads "2048-4096-4096" as numbers.

    Raises:
        ConfigError: anything else than positive whole numbers between dashes.
    """
    parts = text.split("-")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"projector={text!r} is not a list of widths", hint="for example 2048-4096-4096")
    return tuple(int(part) for part in parts)


def make_projector(features: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Returns Linears without bias, batch norm and ReLU between them (Barlow Twins): (n, D) -> (n, last)."""
    layers: list[nn.Module] = []
    for wide in widths[:-1]:
        layers += [nn.Linear(features, wide, bias=False), nn.BatchNorm1d(wide), nn.ReLU()]
        features = wide
    return nn.Sequential(*layers, nn.Linear(features, widths[-1], bias=False))


class ProjectedEncoder(nn.Module):
    """Encoder and projector; audio and visual pass one projector unless `shared_projector` is false."""

    def __init__(self, encoder: Encoder, config: PretrainConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.frozen = config.freeze_backbone
        self.autocast = config.dtype == "bfloat16"
        widths = projector_widths(config.objective.projector)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + 1)
            self.projector = make_projector(encoder.width, widths)
            separate = None if config.objective.shared_projector else make_projector(encoder.width, widths)
        self.visual_projector = separate
        if self.frozen:
            encoder.visual.requires_grad_(False)
            encoder.audio.requires_grad_(False)

    def forward(self, visual: Tensor, audio: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns Z_a, Z_v: frames (B, T, 3, H, W), log-mel (B, T, 96, 64) -> two (B, T, D).

        With frozen CNNs their vectors enter instead: cnn_v (B, T, Dv), cnn_a (B, T, Da). With `mask` (B, T)
        what is after the end of a clip enters no layer, nor the statistics of one, and its Z is 0.
        """
        cnn_a, cnn_v = (audio, visual) if self.frozen else self.cnn(visual, audio, mask)
        return self.embed(cnn_a, cnn_v, mask)

    def cnn(self, visual: Tensor, audio: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns cnn_a, cnn_v as `Encoder.cnn` does, in the number format that was asked for."""
        with torch.autocast(visual.device.type, torch.bfloat16, enabled=self.autocast):
            if mask is None:
                return self.encoder.cnn(visual, audio)
            cnn_a, cnn_v = self.encoder.cnn(visual[mask][None], audio[mask][None])  # as one long clip
            return put_inside(cnn_a[0], mask), put_inside(cnn_v[0], mask)

    def embed(self, cnn_a: Tensor, cnn_v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns Z_a, Z_v of the CNNs' vectors: (B, T, Da), (B, T, Dv) -> two (B, T, D)."""
        with torch.autocast(cnn_a.device.type, torch.bfloat16, enabled=self.autocast):
            f_a, f_v = self.encoder.temporal(cnn_a, cnn_v, mask)
            visual = self.visual_projector or self.projector
            return self.project(f_a, self.projector, mask), self.project(f_v, visual, mask)

    def cnns_with_batch_statistics(self) -> list[nn.Module]:
        """Lists the CNNs whose batch norms, if they have any, take the statistics of the batch."""
        learned = {} if self.frozen else self.encoder.batch_statistics
        return [getattr(self.encoder, name) for name, batch in learned.items() if batch]

    @property
    def learns_statistics(self) -> bool:
        """Says whether a CNN has batch norms that take the statistics of the batch."""
        parts = [part for cnn in self.cnns_with_batch_statistics() for part in cnn.modules()]
        return any(isinstance(part, _BatchNorm) for part in parts)

    @staticmethod
    def project(features: Tensor, projector: nn.Module, mask: Tensor | None = None) -> Tensor:
        """Projects a modality, with batch statistics of its own: (B, T, D) -> (B, T, D')."""
        if mask is not None:
            return put_inside(projector(features[mask]), mask)
        projected: Tensor = projector(features.flatten(0, 1))
        return projected.reshape(*features.shape[:2], -1)
