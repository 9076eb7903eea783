"""Estimates the memory of a training step, to cut or refuse one that cannot fit before it starts."""

import copy
import time
from dataclasses import dataclass

import torch

from avel.errors import ConfigError
from avel.forecast import BYTES_PER_WEIGHT, USABLE, note_long, saved_bytes, shortage
from avel.grid import MEL_BANDS, MEL_FRAMES, Grid
from avel.pipeline.config import PretrainConfig
from avel.pipeline.pretraining.parallel import world_size
from avel.pipeline.pretraining.projector import ProjectedEncoder
from avel.progress import note
from avel.text import duration, plural, size

PROJECTED_BYTES = 2**30
"""Bytes of embeddings, C of Eq. 1 and their gradients: several times 1280 x 4096 and 4096 x 4096 numbers."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a training step: `fixed`, and those of each clip for its inputs and its activations."""

    fixed: int
    inputs: int
    activations: int

    def step(self, clips: int, clips_at_once: int = 0) -> int:
        """Returns the bytes of a step of `clips`, whose CNNs take `clips_at_once` together, 0 for all."""
        return self.fixed + clips * self.inputs + min(clips_at_once or clips, clips) * self.activations


def measure_footprint(projected: ProjectedEncoder, config: PretrainConfig, grid: Grid) -> Footprint:
    """Returns the footprint of training `projected`, found by a forward pass on tensors without memory."""
    one, two = (_saved_bytes(projected, config, grid, clips) for clips in (1, 2))
    crop = config.augmentation.crop_size
    weights = sum(weight.numel() for weight in projected.parameters())
    return Footprint(
        fixed=weights * BYTES_PER_WEIGHT + max(0, 2 * one - two) + PROJECTED_BYTES,
        inputs=grid.segments * 3 * (4 * crop**2 + grid.size**2),
        activations=two - one,
    )


def _saved_bytes(projected: ProjectedEncoder, config: PretrainConfig, grid: Grid, clips: int) -> int:
    """Returns the bytes that autograd keeps of the CNNs' forward pass: activations and folded weights."""
    dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    encoder = copy.deepcopy(projected.encoder).to("meta", dtype).train()
    crop = config.augmentation.crop_size
    frames = torch.empty(clips, grid.segments, 3, crop, crop, dtype=dtype, device="meta")
    log_mel = torch.empty(clips, grid.segments, MEL_FRAMES, MEL_BANDS, dtype=dtype, device="meta")
    return saved_bytes(lambda: encoder.cnn(frames, log_mel), encoder.parameters())


def choose_clips_at_once(
    footprint: Footprint,
    config: PretrainConfig,
    clips: int,
    free_bytes: int,
    *,
    can_cut: bool,
    on_gpu: bool,
) -> int:
    """Returns how many clips the CNNs take together, 0 for all `clips` of a step: as many as fit.

    Args:
        can_cut: whether the CNNs give the same in pieces. Batch norms with the batch's statistics do not.
        on_gpu: whether the memory is a GPU's, not the machine's.

    Raises:
        ConfigError: even one clip does not fit, or all must go together and do not fit.
    """
    limit = USABLE * free_bytes
    memory = "GPU memory" if on_gpu else "memory"
    needs = shortage(f"a step of {clips} clips", footprint.step(clips), free_bytes, memory)
    if not needs:
        return 0
    at_once = clips
    while can_cut and at_once > 1:
        at_once = (at_once + 1) // 2
        if footprint.step(clips, at_once) <= limit:
            note(f"{needs}: runs with --clips-at-once {at_once}, in {size(footprint.step(clips, at_once))}")
            return at_once
    fitting = max(1, int((limit - footprint.fixed) / (footprint.inputs + footprint.activations)))
    cheaper = "" if not on_gpu or config.dtype == "bfloat16" else " or --dtype bfloat16"
    frozen = "" if can_cut else " or --backbone-batchnorm frozen"
    small = "" if on_gpu else " or --preset small, whose CNNs are frozen"
    raise ConfigError(needs, hint=f"--batch-size {fitting * world_size()}{cheaper}{frozen}{small}")


def note_long_pretraining(
    projected: ProjectedEncoder, config: PretrainConfig, grid: Grid, clips: int
) -> None:
    """Says how long training the CNNs takes on this CPU, where that is long; measured on a clip of zeros.

    Reading and augmenting clips is not counted.
    """
    crop = config.augmentation.crop_size
    encoder = copy.deepcopy(projected.encoder).train()  # a copy, whose statistics and gradients are dropped
    began = time.perf_counter()
    vectors = encoder.cnn(
        torch.zeros(1, grid.segments, 3, crop, crop), torch.zeros(1, grid.segments, MEL_FRAMES, MEL_BANDS)
    )
    torch.autograd.backward([each.sum() for each in vectors])
    seconds = time.perf_counter() - began
    # A backward pass takes as long as two forward passes. In pieces the forward pass is made twice.
    again = 4 / 3 if config.clips_at_once else 1
    note_long(
        seconds * clips * config.epochs * again,
        f"{plural(config.epochs, 'epoch')} of {plural(clips, 'clip')}, {duration(seconds)} each",
        "--preset small, whose CNNs are frozen, takes minutes",
    )
