"""AV-BT that also trains the last block of MobileNetV2, on activations computed once: for folds.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.encoder import Encoder, unit
from avel.pipeline.encoders.mobilenet import MobileNetV2
from avel.pipeline.pretraining.augment import centre_crop
from avel.pipeline.pretraining.projector import ProjectedEncoder
from avel.pipeline.pretraining.vectors import read_segments
from avel.progress import Progress
from avel.stores.clips import ClipStore

LAST = 17
"""First layer of the last block: the inverted residual before the last convolution, and that convolution."""
AT_ONCE = 8


@torch.inference_mode()
def activations(encoder: Encoder, store: ClipStore, video_ids: Sequence[str], frames: int) -> Tensor:
    """Computes what the last block reads of k frames a segment: float16 (V, T, k, 160, 7, 7)."""
    cnn = encoder.visual
    assert isinstance(cnn, MobileNetV2)
    cnn.eval()
    found: list[Tensor] = []
    with Progress(len(video_ids), "clips", of="activations") as progress:
        for video_id in video_ids:
            images = centre_crop(read_segments(store, video_id, frames)[0], encoder.spec.crop_size)
            pieces = torch.split(unit(images.flatten(0, 1)), AT_ONCE)
            outputs = torch.cat([cnn.features[:LAST](cnn.scaled(piece)) for piece in pieces])
            found.append(outputs.reshape(*images.shape[:2], *outputs.shape[1:]).half())
            progress.advance()
    return torch.stack(found)


class WithLastBlock(ProjectedEncoder):
    """Encoder and projector whose visual input is what the last block reads: (B, T, 160, 7, 7).

    Its batch norms keep their statistics.
    """

    def __init__(self, encoder: Encoder, config: PretrainConfig) -> None:
        super().__init__(encoder, config)
        encoder.batch_statistics = {"visual": False, "audio": False}
        self.block.requires_grad_(True)

    @property
    def block(self) -> nn.Module:
        """Returns the layers that learn."""
        cnn = self.encoder.visual
        assert isinstance(cnn, MobileNetV2)
        return cnn.features[LAST:]

    def forward(self, visual: Tensor, audio: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns Z_a, Z_v: (B, T, 160, 7, 7), (B, T, Da) -> two (B, T, D)."""
        return self.embed(audio, self.vectors(visual), mask)

    def vectors(self, visual: Tensor) -> Tensor:
        """Computes vectors of the last block: (B, T, 160, 7, 7) -> (B, T, 1280)."""
        outputs: Tensor = self.block(visual.flatten(0, 1)).mean((2, 3))
        return outputs.reshape(*visual.shape[:2], -1)
