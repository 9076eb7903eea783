"""Learning rates by part and by step, and the optimizer that follows them (Section 4.1, Optimization)."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from avel.pipeline.config import PretrainConfig
from avel.pipeline.pretraining.lars import LARS
from avel.pipeline.pretraining.projector import ProjectedEncoder

LARS_LR, LARS_LR_BIAS, LARS_BATCH = 0.2, 0.0048, 256
"""Barlow Twins' base rates, for a batch of 256; they grow with the batch."""
ADAMW_LR = 1e-3


def peak_lrs(config: PretrainConfig) -> tuple[float, float]:
    """Returns the peak learning rates of weights and of biases, before any `lr_scale` is applied."""
    chosen = config.optimizer
    if chosen.optimizer == "lars":
        lr, lr_bias = LARS_LR * config.batch_size / LARS_BATCH, LARS_LR_BIAS * config.batch_size / LARS_BATCH
    else:
        lr = lr_bias = ADAMW_LR
    return lr if chosen.lr is None else chosen.lr, lr_bias if chosen.lr_bias is None else chosen.lr_bias


def lr_fraction(step: int, steps_per_epoch: int, config: PretrainConfig) -> float:
    """Returns the fraction of the peak at `step`, from 0: linear warm-up, then a cosine to `final_lr`."""
    warmup = round(config.optimizer.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    rest = max(config.epochs * steps_per_epoch - warmup, 1)
    fall = 0.5 * (1 + math.cos(math.pi * min((step - warmup) / rest, 1)))
    return config.optimizer.final_lr + (1 - config.optimizer.final_lr) * fall


def parameter_groups(projected: ProjectedEncoder, config: PretrainConfig) -> list[dict[str, Any]]:
    """Groups weights and biases, of pretrained CNNs and of the rest, each with its peak rate."""
    lr, lr_bias = peak_lrs(config)
    pretrained = [part for part in (projected.encoder.visual, projected.encoder.audio) if part.pretrained]
    slow = {id(parameter) for part in pretrained for parameter in part.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in projected.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in slow, parameter.ndim == 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": 0.0,
            "peak": (lr_bias if is_bias else lr)
            * (config.optimizer.lr_scale_backbone if is_pretrained else config.optimizer.lr_scale),
            "weight_decay": 0.0 if is_bias else config.optimizer.weight_decay,
        }
        for (is_pretrained, is_bias), parameters in groups.items()
    ]


def make_optimizer(projected: ProjectedEncoder, config: PretrainConfig) -> Optimizer:
    """Returns LARS or AdamW over `parameter_groups`."""
    groups = parameter_groups(projected, config)
    if config.optimizer.optimizer == "lars":
        return LARS(groups, momentum=config.optimizer.momentum, trust=config.optimizer.trust)
    on_gpu = next(projected.parameters()).is_cuda
    return torch.optim.AdamW(groups, lr=0.0, fused=True if on_gpu else None)


def set_lrs(optimizer: Optimizer, fraction: float) -> None:
    """Sets every group's learning rate to `fraction` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = fraction * group["peak"]
