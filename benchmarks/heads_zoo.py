"""Times an epoch of AVE's size of every head, beside the matrix products of its layers: `heads.py zoo`.

Times one step (forward, backward, clipping and Adam; features made up and in memory) and counts the steps of
an epoch of AVE's 3339 train clips. The products that the step asks torch for are recorded, and repeated
alone.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from avel.config import resolve
from avel.heads.catalog import AVE_WIDTHS
from avel.heads.config import TrainConfig
from avel.heads.models.head import Widths, build_model, head_class
from avel.memory import reuse_freed_memory

TRAIN_CLIPS, SIDE = 3339, 7
Step = Callable[[], None]
Shapes = tuple[tuple[int, ...], tuple[int, ...]]
"""Two factors of a product: (m, k) by (k, n), or of a batch (b, m, k) by (b, k, n)."""


class Products(TorchDispatchMode):
    """Records the shapes of every matrix product that torch is asked for within the context."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Shapes] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self._add(args[0].shape, args[1].shape)
        elif name in ("addmm", "baddbmm"):
            self._add(args[1].shape, args[2].shape)
        elif name in ("convolution", "convolution_backward"):
            self._convolution(name, args)
        elif name in ("mkldnn_rnn_layer", "mkldnn_rnn_layer_backward"):
            self._recurrent(name, args)
        elif name.startswith("_scaled_dot_product"):
            raise NotImplementedError(f"products of {name}")
        return func(*args, **(kwargs or {}))

    def _add(self, left: Any, right: Any) -> None:
        self.found.append((tuple(left), tuple(right)))

    def _convolution(self, name: str, args: Any) -> None:
        """Adds a product forward; backward one for the weights, and one for the input where it is wanted."""
        values, weight = (args[1], args[2]) if name.endswith("backward") else (args[0], args[1])
        rows, window = values.shape[0] * math.prod(values.shape[2:]), math.prod(weight.shape[1:])
        forward = (rows, window), (window, weight.shape[0])
        wanted = sum(args[10][:2]) if name.endswith("backward") else 1
        self.found += [forward] * wanted

    def _recurrent(self, name: str, args: Any) -> None:
        """Adds those of one direction of a layer: inputs at once, states stepwise; twice as many backward."""
        values, into, through = args[0], args[1], args[2]
        steps, clips = values.shape[:2]  # torch calls oneDNN with time first
        both = 2 if name.endswith("backward") else 1
        self.found += [((steps * clips, into.shape[1]), (into.shape[1], into.shape[0]))] * both
        self.found += [((clips, through.shape[1]), (through.shape[1], through.shape[0]))] * (steps * both)


def bare(shapes: list[Shapes]) -> Step:
    """Returns a function that does the products, one after the other."""
    buffers: dict[Any, torch.Tensor] = {}

    def buffer(shape: tuple[int, ...], place: str) -> torch.Tensor:
        return buffers.setdefault((shape, place), torch.randn(shape))

    calls = [
        (
            torch.mm if len(left) == 2 else torch.bmm,
            buffer(left, "left"),
            buffer(right, "right"),
            buffer((*left[:-1], right[-1]), "out"),
        )
        for left, right in shapes
    ]

    def step() -> None:
        for product, left, right, out in calls:
            product(left, right, out=out)

    return step


def training_step(config: TrainConfig, widths: Widths) -> Step:
    """Returns a step of a head on one batch of made-up features."""
    model = build_model(config, widths, 0).train()
    model.head.begin_epoch(config.head.epochs)
    clips, segments = config.head.batch_size, widths.segments
    audio = torch.randn(clips, segments, widths.audio)
    cells = (SIDE, SIDE) if widths.cells else ()
    visual = torch.randn(clips, segments, *cells, widths.visual)
    category = torch.randint(0, widths.classes - 1, (clips, 1))
    labels = torch.where(torch.arange(segments) < segments // 2, category, widths.classes - 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.head.lr, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(model(audio, visual), labels)
        torch.autograd.backward(loss)
        if config.head.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.head.clip_norm)
        optimizer.step()

    return step


def zoo(
    heads: Iterable[str],
    minutes: float,
    rounds: int,
    clock: Callable[[], float],
    inputs: Iterable[str] = ("vectors", "maps"),
) -> list[dict[str, Any]]:
    """Returns a line for each head and kind of input, until the time is up.

    Leaves out heads that only take several labels a segment: AVE has one.
    """
    reuse_freed_memory()  # as in training
    ends, found = time.monotonic() + 60 * minutes, []
    for maps in (kind == "maps" for kind in inputs):
        for name in heads:
            config = resolve(TrainConfig, "train-head", options={"head": name})
            head = head_class(config)
            read = [each for each in head.inputs if (each == "maps") == maps]
            if not read or AVE_WIDTHS[read[0]].task not in head.tasks:
                continue
            if time.monotonic() > ends:
                found.append(_line(name, read[0], None, None))
                continue
            found.append(_timed(name, read[0], config, rounds, clock))
    return found


def _timed(
    name: str, source: str, config: TrainConfig, rounds: int, clock: Callable[[], float]
) -> dict[str, Any]:
    step = training_step(config, AVE_WIDTHS[source])
    with Products() as products:
        step()
    alone = bare(products.found)
    alone()
    seconds: dict[str, list[float]] = {"step": [], "products": []}
    for _ in range(rounds):
        for what, call in (("step", step), ("products", alone)):
            began = clock()
            call()
            seconds[what].append(clock() - began)
    steps = math.ceil(TRAIN_CLIPS / config.head.batch_size)
    return _line(name, source, *(steps * statistics.median(seconds[what]) for what in ("step", "products")))


def _line(name: str, source: str, own: float | None, products: float | None) -> dict[str, Any]:
    ratio = products / own if own and products else None
    line = {"part": "zoo", "what": f"{name}, {source}", "against": "its products"}
    return line | {"seconds": own, "baseline seconds": products, "baseline / what": ratio}
