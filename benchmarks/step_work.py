"""Counts what one training step computes and moves: floating-point operations, and bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

ALLOCATING = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view")
"""Operators that hand out memory without touching it."""


@dataclass(frozen=True)
class StepWork:
    """Operations and bytes of one step.

    Attributes:
        operations: floating-point operations of convolutions and matrix products. Bi-LSTMs, a thousandth of
            these, are counted only where they run as matrix products.
        bytes_touched: bytes that each operator reads and writes, without regard to caches and fusion.
    """

    operations: float
    bytes_touched: float


def convolution_backward(
    out_gradient: Sequence[int],
    inputs: Sequence[int],
    weight: Sequence[int],
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    wanted: Sequence[bool],
    **_: Any,
) -> int:
    """Counts operations of the gradients of input and weight, each as many as the convolution itself.

    torch's own formula forgets `groups` in the weight's gradient: for a depthwise convolution it counts C
    times too many.
    """
    places = inputs[2:] if transposed else out_gradient[2:]
    return 2 * out_gradient[0] * prod(places) * prod(weight) * sum(map(bool, wanted[:2]))


class BytesTouched(TorchDispatchMode):
    """Sums the sizes of the tensors that operators read and write; views touch nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operator and counts."""
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func.overloadpacket.__name__ not in ALLOCATING:
            touched = tree_leaves((args, kwargs, result))
            self.total += sum(t.numel() * t.element_size() for t in touched if isinstance(t, Tensor))
        return result


def step_work(step: Callable[[], Any]) -> StepWork:
    """Counts while `step` runs once."""
    own = {torch.ops.aten.convolution_backward: convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=own) as operations, BytesTouched() as touched:
        step()
    return StepWork(float(operations.get_total_flops()), float(touched.total))
