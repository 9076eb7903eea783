"""Says beforehand how long work takes, and refuses work that memory cannot hold."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from avel.progress import note
from avel.text import duration, size

LONG_SECONDS = 600.0
"""Work that takes longer than this is announced with its duration."""
USABLE = 0.9
"""Fraction of the free memory that work may take; kernels and the allocator need the rest."""
BYTES_PER_WEIGHT = 4 * 4
"""Float32 bytes of a weight, its gradient and two states of the optimizer."""


def note_long(seconds: float, work: str, advice: str) -> None:
    """Notes how long work takes on this CPU, and how to shorten it, if it takes over LONG_SECONDS."""
    if seconds > LONG_SECONDS:
        note(f"about {duration(seconds)} on this CPU for {work}; {advice}")


def shortage(work: str, needed_bytes: float, free_bytes: float, memory: str = "memory") -> str:
    """Returns the beginning of an error that says how much memory work takes; "" where enough is free."""
    if needed_bytes <= USABLE * free_bytes:
        return ""
    return f"{work} takes about {size(needed_bytes)} of {memory}, {size(free_bytes)} are free"


def saved_bytes(forward: Callable[[], object], weights: Iterable[Tensor]) -> int:
    """Returns the bytes that autograd keeps of a forward pass for the backward one, `weights` left out.

    `forward` may run on the device `meta`, whose tensors take no memory.
    """
    own = {id(storage): storage for storage in (weight.untyped_storage() for weight in weights)}
    found = dict(own)

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[id(storage)] = storage  # held, so that no other storage gets its id
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for key, storage in found.items() if key not in own)


def largest_operation_bytes(forward: Callable[[], object], weights: Iterable[Tensor]) -> int:
    """Returns the bytes that the largest operation of a forward pass reads and writes, `weights` left out.

    Without gradients little else is held while it runs.
    """
    with _Largest({weight.untyped_storage()._cdata for weight in weights}) as largest:
        forward()
    most: int = largest.bytes
    return most


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the most bytes that one operation reads and writes, storages in `own` left out."""

    bytes: int = 0

    def __init__(self, own: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.own = own

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, Tensor)]
        storages = {(held := tensor.untyped_storage())._cdata: held.nbytes() for tensor in tensors}
        self.bytes = max(self.bytes, sum(storages[key] for key in storages if key not in self.own))
        return result
