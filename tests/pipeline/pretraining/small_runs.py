"""Settings under which AV-BT trains in a second, and what tests of whole runs share."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.encoder import LAST

CONFIG = PretrainConfig(
    visual_backbone="tiny",
    audio_backbone="tiny",
    hidden=4,
    projector="16-16",
    crop_size=28,
    epochs=4,
    batch=3,
    warmup_epochs=1,
    device="cpu",
)
FROZEN: dict[str, Any] = {"freeze_backbone": True, "frozen_frames": 2, "standardise": True}


def same_weights(one: Path, other: Path, name: str = LAST) -> bool:
    """Whether two runs hold the same tensors, bit by bit."""
    a, b = load_file(one / name), load_file(other / name)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
