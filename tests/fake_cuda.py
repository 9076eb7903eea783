"""A CUDA device on machines without one: devices, shapes and dtypes are followed, nothing is computed.

torch's FakeTensorMode does that for operators, and refuses those whose inputs lie on two devices. Other calls
that need the driver are replaced here: moving a module, pinned memory, autocast's look for a GPU, CUDA
graphs, LSTMs and GRUs, and autograd's engine, by a loop over the graph.
"""

import contextlib
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, library, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
READING = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim", "is_nonzero")
"""Operators whose result the host waits for."""
NO_LAUNCH = ("empty", "empty_like", "empty_strided", "new_empty", "detach", "alias")
"""Operators that launch nothing."""

LACKING = library.Library("aten", "IMPL", "Meta")
"""Operators that torch has for GPUs but not for its fake tensors."""
LACKING.impl("_fused_adam_.tensor_lr", lambda *_, **__: None)


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside, "cuda" is a device, and modules made outside can be moved there."""
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True):
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
        patch.setattr(torch.cuda, "mem_get_info", lambda *_: (80 * 2**30, 80 * 2**30))
        patch.setattr(torch.cuda, "get_rng_state", lambda *_: None)
        patch.setattr(torch.cuda, "set_rng_state", lambda *_: None)
        patch.setattr(torch.cuda, "get_device_name", lambda *_: "a fake GPU")
        patch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
        fake_graphs(patch)
        patch.setattr(nn.Module, "to", move)
        patch.setattr(nn.LSTM, "forward", recurrent)
        patch.setattr(nn.GRU, "forward", recurrent)
        patch.setattr(Tensor, "backward", lambda tensor, gradient=None: backward(tensor, gradient))
        patch.setattr(torch.autograd, "backward", backward)
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
    """Hidden states that depend on input, weights and first state as a sum: (B, T, D) -> (B, T, 2H)."""
    first = (initial,) if isinstance(initial, Tensor) else initial or ()
    touched = sum((value.sum() for value in (*layer.parameters(), *first)), x.sum()).to(x.dtype)
    last = touched.expand(2 * layer.num_layers, len(x), layer.hidden_size)
    state = (last, last) if isinstance(layer, nn.LSTM) else last
    return touched.expand(*x.shape[:2], 2 * layer.hidden_size), state


@torch.no_grad()
def backward(tensors: Tensor | Sequence[Tensor], gradients: Any = None) -> None:
    """Runs each node of the graph after all that use its result, and adds up gradients at the weights."""
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    first = [gradients] if isinstance(gradients, Tensor) else list(gradients or [None] * len(roots))
    users: dict[Any, set[Any]] = {}
    waiting = [root.grad_fn for root in roots]
    while waiting:
        node: Any = waiting.pop()
        if node in users:
            continue
        users[node] = set()
        waiting += [below for below, _ in node.next_functions if below is not None]
    for node in users:
        for below, _ in node.next_functions:
            if below is not None:
                users[below].add(node)
    arrived: dict[Any, dict[int, Tensor]] = defaultdict(dict)

    def add(node: Any, place: int, gradient: Tensor) -> None:
        about = node._input_metadata[place] if hasattr(node, "_input_metadata") else gradient
        assert gradient.device == about.device, f"{node.name()}: a gradient on {gradient.device}"
        gradient = gradient.sum_to_size(about.shape).to(about.dtype)
        before = arrived[node].get(place)
        arrived[node][place] = gradient if before is None else before + gradient

    for root, given in zip(roots, first, strict=True):
        add(root.grad_fn, root.output_nr, torch.ones_like(root) if given is None else given)
    for node in TopologicalSorter(users).static_order():
        inputs = arrived.pop(node, {})
        if not inputs:
            continue
        if hasattr(node, "variable"):
            weight = node.variable
            weight.grad = inputs[0] if weight.grad is None else weight.grad + inputs[0]
            continue
        below = node.next_functions
        for (target, place), gradient in zip(below, _run(node, inputs)[: len(below)], strict=True):
            if target is not None and gradient is not None:
                add(target, place, gradient)


def _run(node: Any, inputs: dict[int, Tensor]) -> list[Tensor | None]:
    """Calls a node; one that is written in Python gets zeros where no gradient came."""
    about = node._input_metadata
    if hasattr(node, "apply"):
        results = node.apply(*(
            inputs.get(place, torch.zeros(of.shape, dtype=of.dtype, device=of.device))
            for place, of in enumerate(about)
        ))  # fmt: skip
    else:
        results = node(*(inputs.get(place) for place in range(len(about))))
    return list(results) if isinstance(results, list | tuple) else [results]


def fake_graphs(patch: pytest.MonkeyPatch) -> None:
    """Replaces CUDA graphs by lists of operators to replay, and all streams by one."""
    stream = SimpleNamespace(wait_stream=lambda other: None, device=CUDA)
    patch.setattr(torch.cuda, "CUDAGraph", Graph)
    patch.setattr(torch.cuda, "graph", Capture)
    patch.setattr(torch.cuda, "Stream", lambda device: stream)
    patch.setattr(torch.cuda, "current_stream", lambda device: stream)
    patch.setattr(torch.cuda, "stream", contextlib.nullcontext)


class Graph:
    """Operators of a step with their tensors, which each replay reads and writes at the same place."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    @torch.no_grad()
    def replay(self) -> None:
        """Runs the operators again, on what their tensors hold now."""
        self.replays += 1
        for func, args, kwargs, results in self.calls:
            for old, new in zip(tree_leaves(results), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor):
                    old.copy_(new)


class Capture(TorchDispatchMode):
    """Notes the operators of a step for a graph, and undoes what they change, as if they had not run."""

    def __init__(self, graph: Graph, stream: Any = None) -> None:
        super().__init__()
        self.graph = graph
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if name in READING:
            raise RuntimeError(f"{line_of_avel(name)} is not permitted when stream is capturing")
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                changed = (leaf for leaf in tree_leaves(given[argument.name]) if isinstance(leaf, Tensor))
                self.before += [(leaf, leaf.clone()) for leaf in changed]
        results = func(*args, **kwargs)
        if not func.is_view:
            self.graph.calls.append((func, args, kwargs, results))
        return results

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        with torch.no_grad():
            for tensor, before in reversed(self.before):
                tensor.copy_(before)


class Watch(TorchDispatchMode):
    """Counts launches on the GPU, and where the host reads from it or sends to it: lines of avel -> times."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = 0
        self.reads: Counter[str] = Counter()
        self.sends: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        before, after = (
            {leaf.device.type for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}
            for values in ((args, kwargs), result)
        )
        if "cuda" in before | after:
            self.launches += func.namespace == "aten" and not func.is_view and name not in NO_LAUNCH
            if "cuda" in before and (name in READING or "cpu" in after):
                self.reads[line_of_avel(name)] += 1
            elif before == {"cpu"}:
                self.sends[line_of_avel(name)] += 1
        return result


def line_of_avel(operator: str) -> str:
    """The operator, and the innermost line of avel that led to it."""
    frames = [frame for frame in traceback.extract_stack() if "/avel/" in frame.filename]
    inner = frames[-1] if frames else SimpleNamespace(filename="?", lineno=0)
    return f"{operator} in {inner.filename.rpartition('/avel/')[2]}:{inner.lineno}"
