"""Presets of heads: the paper's settings (Section 4.1), written out, so that new defaults change nothing."""

from collections.abc import Mapping
from typing import Any

TRAINING: dict[str, Any] = {
    "lr": 1e-4,
    "lr_decay": 0.98,
    "lr_decay_every": 10,
    "milestones": (),
    "warmup_epochs": 0,
    "cosine": False,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
    "batch_size": 128,
    "epochs": 300,
    "dropout": 0.0,
}
"""Adam and its schedule; the paper names no number of epochs, no weight decay and no dropout."""
CROSS_ATTENTION: dict[str, Any] = {"routing": "cross", "d_h": 256, "d_e": 256}
PAPER_HEADS: Mapping[str, Mapping[str, Any]] = {
    "mlp": TRAINING | {"merge": "add"},
    "tacma": TRAINING | CROSS_ATTENTION | {"theta": 0.03},
    "cross_attention": TRAINING | CROSS_ATTENTION,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "standardise": False,
        "patience": 0,
        **{f"{head}.{name}": value for head, values in PAPER_HEADS.items() for name, value in values.items()},
    }
}
"""Preset name -> overrides of TrainConfig. Heads of other publications keep their own settings."""
