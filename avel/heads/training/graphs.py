"""Replays training steps on a GPU as CUDA graphs: the host launches a step, not each of its kernels."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from avel.progress import note

EAGER_STEPS = 3
"""Steps before a graph is captured, which set up what it needs: cuBLAS, gradients, the moments of Adam."""


class ReplayedStep:
    """A step on rows of one shape: run as it is at first, then captured, then replayed.

    `step` must read from the same memory each time, write its results to the same memory, and never read a
    number on the host. Where it cannot be captured, it is run without a graph, and a note says why.
    """

    def __init__(self, step: Callable[[Tensor], None], device: torch.device) -> None:
        self.step = step
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.eager_steps: float = EAGER_STEPS
        self.graph: torch.cuda.CUDAGraph | None = None
        self.rows = torch.empty(0)

    def __call__(self, rows: Tensor) -> None:
        """Does the step on `rows`."""
        if self.eager_steps == 0:
            self._capture(rows)
        if self.graph is not None:
            self.rows.copy_(rows)
            self.graph.replay()
            return
        self.eager_steps -= 1
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)  # steps before a capture may not use the default stream
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            self.step(rows)
        current.wait_stream(self.stream)

    def _capture(self, rows: Tensor) -> None:
        """Captures the step; nothing is computed by that."""
        graph, self.rows = torch.cuda.CUDAGraph(), rows.clone()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.step(self.rows)
            self.graph = graph
        except RuntimeError as error:
            note(f"training goes on without CUDA graphs: {str(error).partition(chr(10))[0]}")
        self.eager_steps = float("inf")  # never captures again
