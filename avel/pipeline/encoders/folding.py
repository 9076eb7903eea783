"""Batch norms with fixed statistics, multiplied into the convolutions before them.

The same function and the same gradients with fewer passes over memory: a CNN whose batch norms keep the
statistics they were loaded with (frozen, fine-tuned or in eval mode) needs no layers for them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

CONVOLUTIONS, NORMS = (nn.Conv2d, nn.Conv3d), (nn.BatchNorm2d, nn.BatchNorm3d)


class FoldedConv(nn.Module):
    """norm(conv(x)) as one convolution, for a norm in eval mode.

    It owns no weights: those of `conv` and `norm` are multiplied again at each call, so both are trained
    through it and keep their names in a state dict. Where they are fixed, the first call's product is kept.
    """

    def __init__(
        self, conv: nn.Conv2d | nn.Conv3d, norm: nn.BatchNorm2d | nn.BatchNorm3d, is_fixed: bool
    ) -> None:
        super().__init__()
        self.conv, self.norm, self.is_fixed = conv, norm, is_fixed
        self._product: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Convolves and normalises at once: (B, C, ...) -> (B, C', ...), in two or three dimensions."""
        weight, bias = self._product or self._multiply()
        if self.is_fixed:
            self._product = weight, bias
        # Not functional_call, which swaps the weights in place: another thread may be using them.
        result: Tensor = self.conv._conv_forward(x, weight, bias)
        return result

    def _multiply(self) -> tuple[Tensor, Tensor]:
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        scale = self.norm.weight * torch.rsqrt(variance + self.norm.eps)
        shift = -mean if self.conv.bias is None else self.conv.bias - mean
        scales = scale.view(-1, *[1] * (self.conv.weight.dim() - 1))
        return self.conv.weight * scales, self.norm.bias + shift * scale


def folded(cnn: nn.Module, method: str = "forward", is_fixed: bool = False) -> Callable[[Tensor], Any]:
    """Returns `cnn.method` in eval mode, each batch norm folded into the convolution right before it.

    Parameters and buffers stay those of `cnn`, wherever they are moved. A CNN that torch.fx cannot follow
    (one outside avel that branches on its input, say) runs as it is written.
    """
    plain: Callable[[Tensor], Any] = getattr(cnn, method)
    if not any(isinstance(module, NORMS) for module in cnn.modules()):
        return plain
    tracer = _Tracer()
    tracer.traced_func_name = method
    try:
        graph = tracer.trace(cnn)
    except Exception:  # code outside avel may raise anything when it is traced
        return plain
    if any(node.op == "get_attr" for node in graph.nodes):
        return plain  # a tensor that no layer holds would not follow the CNN to another device
    modules: dict[str, Any] = dict(cnn.named_modules())
    for norm in graph.nodes:
        if _calls(norm, modules, NORMS):
            layer, conv = modules[norm.target], norm.args[0]
            if not layer.affine or layer.running_mean is None:
                continue
            if _calls(conv, modules, CONVOLUTIONS) and len(conv.users) == 1:
                modules[conv.target] = FoldedConv(modules[conv.target], layer, is_fixed)
                norm.replace_all_uses_with(conv)
                graph.erase_node(norm)
    used = {node.target: modules[node.target] for node in graph.nodes if node.op == "call_module"}
    return fx.GraphModule(used, graph)


class _Tracer(fx.Tracer):
    """Looks into modules that hold batch norms, and no further."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        inside = any(isinstance(part, NORMS) for part in m.modules())
        return isinstance(m, NORMS) or not inside


def _calls(node: Any, modules: dict[str, Any], kinds: tuple[type[nn.Module], ...]) -> bool:
    """Says whether a node calls one of `kinds` with torch's own forward; another one may do more."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return False
    return any(type(modules[str(node.target)]).forward is kind.forward for kind in kinds)
