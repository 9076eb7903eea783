"""A CUDA device on machines without one: devices, shapes and dtypes are followed, nothing is computed.

torch's FakeTensorMode does that for operators, and refuses those whose inputs lie on two devices. What asks
the driver beside them is replaced here: moving a module, autocast's look for a GPU, LSTMs and GRUs, and
autograd's engine, so that gradients have the place and shape of their weights and no value.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

CUDA = torch.device("cuda", 0)


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside, "cuda" is a device, and modules made outside can be moved there."""
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True):
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
        patch.setattr(nn.Module, "to", move)
        patch.setattr(nn.LSTM, "forward", recurrent)
        patch.setattr(nn.GRU, "forward", recurrent)
        patch.setattr(Tensor, "backward", backward)
        yield


def move(module: nn.Module, device: torch.device) -> nn.Module:
    """Moves a module as `nn.Module.to` does: in place, each weight a new tensor there."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(weight.detach().to(device), weight.requires_grad))
        for name, value in part.named_buffers(recurse=False):
            setattr(part, name, value.to(device))
    return module


def recurrent(layer: nn.RNNBase, x: Tensor, initial: Any = None) -> tuple[Tensor, Any]:
    """Hidden states that hang on the input, on each weight and the first state: (B, T, D) -> (B, T, 2H)."""
    first = (initial,) if isinstance(initial, Tensor) else initial or ()
    touched = sum((value.sum() for value in (*layer.parameters(), *first)), x.sum()).to(x.dtype)
    last = touched.expand(2 * layer.num_layers, len(x), layer.hidden_size)
    state = (last, last) if isinstance(layer, nn.LSTM) else last
    return touched.expand(*x.shape[:2], 2 * layer.hidden_size), state


def backward(loss: Tensor, gradient: Tensor | None = None) -> None:
    """Gives every weight that the loss hangs on a gradient of its shape."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node: Any = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
            if hasattr(node, "variable"):
                node.variable.grad = torch.empty_like(node.variable)
