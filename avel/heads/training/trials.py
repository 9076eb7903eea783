"""Groups of trials that are trained together: many stacked into one batched program, or one alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state

from avel.heads.config import TrainConfig
from avel.heads.models.head import HeadOutput, Model


@dataclass(frozen=True)
class Trial:
    """One network to train: its name in the run, its whole config, and the settings that a sweep varied.

    The seed is `config.seed`.
    """

    name: str
    config: TrainConfig
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, eq=False)
class TrialFigures:
    """Figures of a trial in training; epochs count from 1, scores are the task's main metric, fractions.

    The best test epoch, which most published code reports, is recorded but decides nothing.

    Attributes:
        test_score, best_test_score: None where no test sample has known events.
        failure: in which epoch loss or scores were not finite, or "".
        train_seconds: time of its training steps; each of M stacked trials gets 1 / M of their time.
    """

    epochs: int = 0
    best_epoch: int = 0
    val_score: float = -1.0
    test_score: float | None = None
    best_test_epoch: int = 0
    best_test_score: float | None = None
    failure: str = ""
    train_seconds: float = 0.0


class Stacked:
    """M models as one: weights stacked along a new first axis, the forward pass run over it by torch.vmap.

    Each is trained on batches of its own, and scored on the same clips.
    """

    def __init__(self, models: Sequence[Model], device: torch.device) -> None:
        # Stack before the template moves: `to` moves a module in place, and its weights are one of the M.
        parameters, buffers = stack_module_state(list(models))
        self.template = models[0].to(device)
        self.weights = {
            name: value.to(device).detach().requires_grad_() for name, value in parameters.items()
        }
        self.buffers = {name: value.to(device) for name, value in buffers.items()}

    def parameters(self) -> list[Tensor]:
        """Returns the tensors that are trained, (M, ...) each."""
        return list(self.weights.values())

    def losses(self, audio: Tensor, visual: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the loss of each trial: (M, B, T, ...), (M, B, T, ...), (M, B, ...) -> (M,).

        `lengths` (M, B) are the segments of each clip where they differ.
        """

        def of_one(state: Any, targets: Tensor, *inputs: Tensor | None) -> Tensor:
            output = functional_call(self.template, state, inputs)
            return self.template.loss(output, targets)

        of_all = torch.vmap(of_one, in_dims=(0, 0, 0, 0, None if lengths is None else 0))
        losses: Tensor = of_all((self.weights, self.buffers), targets, audio, visual, lengths)
        return losses

    def logits(self, audio: Tensor, visual: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns scores of each trial on the same clips: (B, T, ...), (B, T, ...), (B,) -> (M, B, T, K)."""

        def of_one(state: Any) -> Tensor:
            logits: Tensor = functional_call(self.template, state, (audio, visual, lengths)).logits
            return logits

        logits: Tensor = torch.vmap(of_one)((self.weights, self.buffers))
        return logits

    def clip(self, limit: float) -> None:
        """Scales each trial's gradient down to a norm of `limit` at most."""
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        squares = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients])
        scale = (limit / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1)  # as torch's clip_grad_norm_
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))

    def state(self, place: int) -> dict[str, Tensor]:
        """Returns a copy of one trial's weights and buffers."""
        both = self.weights | self.buffers
        return {name: value[place].detach().clone() for name, value in both.items()}

    def train(self, mode: bool) -> None:
        """Switches between training and evaluation."""
        self.template.train(mode)

    def begin_epoch(self, epoch: int) -> None:
        """Does nothing: heads that use it are not stackable."""

    def keep(self, places: list[int], optimizer: torch.optim.Optimizer) -> None:
        """Keeps the trials at `places`, here and in the optimizer's moments; drops the others."""
        for name, old in self.weights.items():
            new = old.detach()[places].clone().requires_grad_()
            if moments := optimizer.state.pop(old, None):  # None of a weight that never got a gradient
                optimizer.state[new] = {
                    key: value[places].clone() if value.shape == old.shape else value
                    for key, value in moments.items()
                }
            self.weights[name] = new
        self.buffers = {name: value[places].clone() for name, value in self.buffers.items()}
        optimizer.param_groups[0]["params"] = self.parameters()


class Alone:
    """One model as a `Stacked` of one, without vmap: its weights have no axis M."""

    def __init__(self, model: Model, device: torch.device) -> None:
        self.model = model.to(device)
        self.weights: list[Tensor] = list(self.model.parameters())

    def parameters(self) -> list[Tensor]:
        return self.weights

    def losses(self, audio: Tensor, visual: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Tensor:
        output: HeadOutput = self.model(audio[0], visual[0], None if lengths is None else lengths[0])
        return self.model.loss(output, targets[0]).unsqueeze(0)

    def logits(self, audio: Tensor, visual: Tensor, lengths: Tensor | None = None) -> Tensor:
        output: HeadOutput = self.model(audio, visual, lengths)
        return output.logits.unsqueeze(0)

    def clip(self, limit: float) -> None:
        torch.nn.utils.clip_grad_norm_(self.weights, limit)

    def state(self, place: int) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def train(self, mode: bool) -> None:
        self.model.train(mode)

    def begin_epoch(self, epoch: int) -> None:
        self.model.head.begin_epoch(epoch)
