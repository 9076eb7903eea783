"""LARS (You et al. 2017) as Barlow Twins uses it: momentum SGD whose step is scaled to the weights' norm."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """w <- w - rate x m, m <- momentum x m + q (g + decay x w), q = trust x |w| / |g + decay x w|.

    Parameters with one axis (biases, norms) take neither decay nor q. Every step runs on the device without
    waiting for it: norms are never read by the host.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        momentum: float = 0.9,
        trust: float = 1e-3,
        weight_decay: float = 1e-6,
    ) -> None:
        super().__init__(
            groups, {"lr": 0.0, "momentum": momentum, "trust": trust, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None and p.ndim != 1]
            biases = [p for p in group["params"] if p.grad is not None and p.ndim == 1]
            if weights:
                self._move(weights, scaled_gradients(weights, group["trust"], group["weight_decay"]), group)
            if biases:
                self._move(biases, [p.grad for p in biases if p.grad is not None], group)

    def _move(self, parameters: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, updates)
        torch._foreach_add_(parameters, momenta, alpha=-group["lr"])


def scaled_gradients(parameters: list[Tensor], trust: float, weight_decay: float) -> list[Tensor]:
    """Returns q (g + decay x w) of each parameter; q is 1 where a norm is 0."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    updates = list(torch._foreach_add(gradients, parameters, alpha=weight_decay))
    weights, steps = (torch.stack(torch._foreach_norm(tensors)) for tensors in (parameters, updates))
    usable = (weights > 0) & (steps > 0)
    ratios = torch.where(usable, trust * weights / torch.where(usable, steps, 1), 1)
    torch._foreach_mul_(updates, list(ratios.unbind()))
    return updates
