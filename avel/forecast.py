"""Says beforehand how long work takes, and refuses work that memory cannot hold."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from avel.progress import note
from avel.text import duration

LONG_SECONDS = 600.0
"""Work of which it is said beforehand how long it takes."""
USABLE = 0.9
"""Fraction of the free memory that is planned with; the rest is for what kernels and the allocator take."""
GB = 2**30


def note_long(seconds: float, work: str, advice: str) -> None:
    """Says how long work takes on this CPU, and what takes less, where that is long."""
    if seconds > LONG_SECONDS:
        note(f"about {duration(seconds)} on this CPU for {work}; {advice}")


def shortage(work: str, needed_bytes: float, free_bytes: float, memory: str = "memory") -> str:
    """Returns how much memory work takes, as an error begins, where that is not free; "" where it is."""
    if needed_bytes <= USABLE * free_bytes:
        return ""
    return f"{work} takes about {needed_bytes / GB:.1f} GB of {memory}, {free_bytes / GB:.1f} GB are free"


def saved_bytes(forward: Callable[[], object], weights: Iterable[Tensor]) -> int:
    """Returns the bytes that autograd keeps of a forward pass for the backward one, `weights` left out.

    It also counts on the device `meta`, whose tensors take no memory.
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
