"""Several processes as one: sums that gradients pass through, and batch norms over the whole batch.

The convention is DistributedDataParallel's: every process computes the same loss, and gradients of parameters
are averaged. So in the backward pass of a sum over processes, the gradients are summed over processes, too.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

TIMEOUT = timedelta(hours=6)
"""Longest wait for the other processes; the first one may be fitting a probe or writing to a slow disk."""
BUCKET_NUMBERS = 1 << 23
"""Numbers that are sent together: 32 MB in float32."""


def world_size() -> int:
    """Returns how many processes train together; 1 where there is no process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this process, from 0; 0 where there is no process group."""
    return dist.get_rank() if world_size() > 1 else 0


def barrier() -> None:
    """Waits until every process is here."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the group that torchrun's environment describes (NCCL on GPUs, gloo on CPUs), if any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", timeout=TIMEOUT, device_id=device if on_gpu else None
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: Tensor, same_gradient: bool) -> Tensor:
        context.same_gradient = same_gradient
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if context.same_gradient:
            return gradient * world_size(), None
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total, None


def summed(tensor: Tensor, *, same_gradient: bool = False) -> Tensor:
    """Sums over processes, with gradient: any shape -> the same; alone, returns the tensor itself.

    torch's own function of this kind is deprecated. `same_gradient` says that every process will have the
    same gradient for the sum, as for C of Eq. 1, so that none needs to be sent.
    """
    return _Summed.apply(tensor, same_gradient) if world_size() > 1 else tensor


def smallest(number: int, device: torch.device) -> int:
    """Returns the smallest of the numbers that the processes have, so that all decide alike."""
    if world_size() == 1:
        return number
    least = torch.tensor(number, device=device)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    return int(least)


def average_gradients(module: nn.Module) -> None:
    """Averages every gradient over processes, as DistributedDataParallel does."""
    if world_size() == 1:
        return
    buckets: dict[tuple[int, torch.dtype], list[Tensor]] = {}
    numbers = 0
    for gradient in [weight.grad for weight in module.parameters() if weight.grad is not None]:
        buckets.setdefault((numbers // BUCKET_NUMBERS, gradient.dtype), []).append(gradient)
        numbers += gradient.numel()
    for bucket in buckets.values():
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        parts = torch.split(flat / world_size(), [gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


class GlobalBatchNorm(_BatchNorm):
    """Batch norm whose statistics are of all processes' samples.

    torch's SyncBatchNorm refuses CPUs, and on a GPU it makes the host wait in each forward pass. This one
    never does, but keeps two more copies of its input for the backward pass.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Takes any (B, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalises each channel: (B, C, ...) -> the same."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        # Sum in float32: bfloat16 would lose small numbers.
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        count = summed(wide.new_full((), input.numel() / input.shape[1]))
        mean = summed(wide.sum(axes)) / count
        centred = wide - mean.view(shape)
        variance = summed(centred.square().sum(axes)) / count
        self._update_running(mean.detach(), variance.detach() * count / (count - 1))
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.running_mean is not None and self.running_var is not None and self.momentum is not None:
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)


def synchronise_batch_norms(module: nn.Module) -> None:
    """Replaces the batch norms inside `module` by ones over all processes; names of parameters stay."""
    for name, child in module.named_children() if world_size() > 1 else ():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            shared = GlobalBatchNorm(child.num_features)
            vars(shared).update(vars(child))  # the very same weights, statistics and settings
            setattr(module, name, shared)
        else:
            synchronise_batch_norms(child)
