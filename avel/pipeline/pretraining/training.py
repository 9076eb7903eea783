"""Training loop of AV-BT (Algorithm 1) over batches from a loader, on one device or many."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from avel.errors import ConfigError
from avel.nn import mask_of
from avel.pipeline.config import PretrainConfig
from avel.pipeline.pretraining.augment import augment_clips
from avel.pipeline.pretraining.avbt import avbt_loss
from avel.pipeline.pretraining.loader import Batch, Batches
from avel.pipeline.pretraining.monitor import EpochMeans, step_values
from avel.pipeline.pretraining.parallel import average_gradients, synchronise_batch_norms, world_size
from avel.pipeline.pretraining.projector import ProjectedEncoder
from avel.pipeline.pretraining.schedule import lr_fraction, set_lrs
from avel.progress import Progress


class Trainer:
    """Trains `projected` in place; `step` is one iteration of Algorithm 1."""

    def __init__(
        self, projected: ProjectedEncoder, optimizer: Optimizer, config: PretrainConfig, device: torch.device
    ) -> None:
        self.projected, self.optimizer, self.config, self.device = projected, optimizer, config, device
        self.model: nn.Module = projected
        self.piecewise = bool(config.clips_at_once) and not config.freeze_backbone
        self.shown = ""
        if self.piecewise and projected.learns_statistics:
            raise ConfigError(
                "clips_at_once needs CNNs whose batch norms are frozen", hint="--backbone-batchnorm frozen"
            )
        if world_size() > 1 and not self.piecewise:
            self.model = DistributedDataParallel(
                projected, device_ids=[device.index] if device.type == "cuda" else None
            )

    def epoch(self, number: int, batches: Batches, progress: Progress) -> EpochMeans:
        """Trains one epoch; the numbers of a GPU are read once, at the end, since reading waits."""
        self.model.train()
        total, where = torch.zeros(6, device=self.device), f"epoch {number + 1}/{self.config.epochs}"
        for step, batch in enumerate(batches.epoch(number)):
            set_lrs(self.optimizer, lr_fraction(number * batches.steps + step, batches.steps, self.config))
            values = self.step(*self.inputs(batch, number))
            total += values
            if self.device.type == "cpu":
                self.shown = EpochMeans(*values.tolist()).line()
            done = (step + 1) * batches.clips // batches.steps - step * batches.clips // batches.steps
            progress.advance(done, note=f"{where} {self.shown}".rstrip())
        means = EpochMeans(*(total / batches.steps).tolist())
        progress.advance(0, note=f"{where} {means.line()}")
        self.shown = f"last epoch {means.line()}"
        return means

    def step(self, visual: Tensor, audio: Tensor, mask: Tensor | None = None) -> Tensor:
        """Updates the weights once, from frames and log-mel or from vectors; returns `step_values`, (6,).

        `mask` (B, T) is True before the end of each clip; without it all have T segments.
        """
        self.optimizer.zero_grad(set_to_none=True)
        backward = self.backward_in_pieces if self.piecewise else self.backward
        values = backward(visual, audio, mask)
        self.optimizer.step()
        return values

    def backward(self, visual: Tensor, audio: Tensor, mask: Tensor | None) -> Tensor:
        """Computes the gradients of Eq. 2 in one pass -> `step_values`, (6,)."""
        z_a, z_v = self.model(visual, audio, mask)
        loss = avbt_loss(z_a, z_v, self.config.objective.lambd, self.config.objective.correlate, mask)
        torch.autograd.backward(loss.total)
        return step_values(loss, z_a, z_v, mask)

    def backward_in_pieces(self, visual: Tensor, audio: Tensor, mask: Tensor | None) -> Tensor:
        """Computes the same gradients with the activations of few clips at once, `clips_at_once`.

        First computes the CNN vectors without gradient, then the loss and its gradient at these vectors. Then
        runs the CNNs again, piece by piece, and propagates that gradient back through them.
        """
        at_once = self.config.clips_at_once or len(visual)
        pieces = [slice(first, first + at_once) for first in range(0, len(visual), at_once)]
        masks = [None if mask is None else mask[piece] for piece in pieces]
        with torch.no_grad():
            parts = [
                self.projected.cnn(visual[piece], audio[piece], own)
                for piece, own in zip(pieces, masks, strict=True)
            ]
        vectors = [torch.cat(part).requires_grad_() for part in zip(*parts, strict=True)]
        z_a, z_v = self.projected.embed(vectors[0], vectors[1], mask)
        loss = avbt_loss(z_a, z_v, self.config.objective.lambd, self.config.objective.correlate, mask)
        torch.autograd.backward(loss.total)
        gradients = [vector.grad for vector in vectors if vector.grad is not None]
        assert len(gradients) == len(vectors)
        for piece, own in zip(pieces, masks, strict=True):
            again = self.projected.cnn(visual[piece], audio[piece], own)
            torch.autograd.backward(again, [gradient[piece] for gradient in gradients])
        average_gradients(self.projected)
        return step_values(loss, z_a, z_v, mask)

    def inputs(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Moves a batch to the device and augments its frames: (B, T, 3, H, W) -> (B, T, 3, crop, crop).

        Returns visual, audio, and a mask (B, T) where clips have lengths of their own.
        """
        mask = None
        if batch.lengths is not None:
            mask = mask_of(batch.lengths.to(self.device), batch.visual.shape[1])
        visual, audio = (x.to(self.device, non_blocking=True) for x in (batch.visual, batch.audio))
        if self.config.freeze_backbone:
            return visual, audio, mask
        draws = [(self.config.seed, epoch, clip) for clip in batch.clips]
        return augment_clips(visual, self.config.augmentation, draws), audio, mask


def move_to_device(
    projected: ProjectedEncoder, config: PretrainConfig, device: torch.device
) -> ProjectedEncoder:
    """Moves the model to the device, in the form in which it trains there."""
    for part in (projected.projector, projected.visual_projector, *projected.cnns_with_batch_statistics()):
        if part is not None:
            synchronise_batch_norms(part)
    projected.to(device)
    projected.encoder.compiles = config.compile and not config.freeze_backbone
    return projected


@contextmanager
def determinism(config: PretrainConfig, device: torch.device) -> Iterator[None]:
    """Takes deterministic kernels if the config asks for them; else the fastest that cuDNN has."""
    if config.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = device.type == "cuda" and not config.deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
