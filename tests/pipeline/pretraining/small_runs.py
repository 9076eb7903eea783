"""Settings under which AV-BT trains in a second, and what tests of whole runs share."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.header import LAST
from avel.pipeline.pretraining.monitor import EpochMeans
from avel.pipeline.pretraining.pretrain import pretrain
from avel.pipeline.pretraining.training import Trainer
from avel.stores.clips import ClipStore
from avel.stores.runs import Run
from tests.pipeline.configs import pretrain_config

CONFIG = pretrain_config(
    visual_backbone="tiny",
    audio_backbone="tiny",
    visual_weights="random",
    audio_weights="random",
    hidden=4,
    projector="16-16",
    crop_size=28,
    epochs=4,
    batch_size=3,
    warmup_epochs=1,
    device="cpu",
)
FROZEN: dict[str, Any] = {"freeze_backbone": True, "frozen_frames": 2, "standardise": True}


def same_weights(one: Path, other: Path, name: str = LAST) -> bool:
    """Whether two runs hold the same tensors, bit by bit."""
    a, b = load_file(one / name), load_file(other / name)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def pretrain_in_two_goes(store: ClipStore, run: Path, config: PretrainConfig) -> None:
    """A run that is interrupted at the end of its third epoch, before that is kept, and goes on."""
    original = Trainer.epoch

    def interrupted(self: Trainer, number: int, *more: Any) -> EpochMeans:
        means = original(self, number, *more)
        if number == 2:
            raise KeyboardInterrupt
        return means

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain(store, run, config)
    assert len(Run.open(run).metrics()) == 2
    pretrain(store, run, config)
