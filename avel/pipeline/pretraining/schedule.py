"""Learning rates by part and by step, and the optimiser that follows them (Section 4.1, Optimization)."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from avel.pipeline.config import PretrainConfig
from avel.pipeline.pretraining.lars import LARS
from avel.pipeline.pretraining.projector import Twins

LARS_WEIGHT_RATE, LARS_BIAS_RATE, LARS_BATCH = 0.2, 0.0048, 256
"""Barlow Twins' base rates, for a batch of 256; they grow with the batch."""
ADAMW_RATE = 1e-3


def base_rates(config: PretrainConfig) -> tuple[float, float]:
    """Peak learning rates of weights and of biases, before the factors of the parts."""
    if config.optimiser == "lars":
        share = config.batch / LARS_BATCH
        weight, bias = LARS_WEIGHT_RATE * share, LARS_BIAS_RATE * share
    else:
        weight = bias = ADAMW_RATE
    weight = weight if config.weight_rate is None else config.weight_rate
    return weight, bias if config.bias_rate is None else config.bias_rate


def rate_share(step: int, steps_per_epoch: int, config: PretrainConfig) -> float:
    """Share of the peak at `step`, counted from 0: linear warm-up, then a cosine to `final_rate`."""
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    rest = max(config.epochs * steps_per_epoch - warmup, 1)
    fall = 0.5 * (1 + math.cos(math.pi * min((step - warmup) / rest, 1)))
    return config.final_rate + (1 - config.final_rate) * fall


def parameter_groups(twins: Twins, config: PretrainConfig) -> list[dict[str, Any]]:
    """Weights and biases of the pretrained CNNs and of the rest, each with its peak rate."""
    weight_rate, bias_rate = base_rates(config)
    pretrained = [part for part in (twins.encoder.visual, twins.encoder.audio) if part.pretrained]
    slow = {id(parameter) for part in pretrained for parameter in part.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in twins.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in slow, parameter.ndim == 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": 0.0,
            "peak": (bias_rate if narrow else weight_rate)
            * (config.backbone_rate_scale if backbone else config.rate_scale),
            "weight_decay": 0.0 if narrow else config.weight_decay,
        }
        for (backbone, narrow), parameters in groups.items()
    ]


def make_optimiser(twins: Twins, config: PretrainConfig) -> Optimizer:
    """LARS or AdamW over `parameter_groups`."""
    groups = parameter_groups(twins, config)
    if config.optimiser == "lars":
        return LARS(groups, momentum=config.momentum, trust=config.trust)
    return torch.optim.AdamW(groups, lr=0.0)


def set_rates(optimiser: Optimizer, share: float) -> None:
    """Every group's rate to `share` of its peak."""
    for group in optimiser.param_groups:
        group["lr"] = share * group["peak"]
