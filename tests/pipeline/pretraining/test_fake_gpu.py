"""Training steps of AV-BT on a stand-in for a GPU: all tensors lie there, the host never waits."""

from typing import Any, Literal

import pytest
import torch

from avel.grid import Grid
from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.pretraining import vectors
from avel.pipeline.pretraining.augment import augment_clips
from avel.pipeline.pretraining.loader import Batch
from avel.pipeline.pretraining.projector import ProjectedEncoder
from avel.pipeline.pretraining.schedule import make_optimizer
from avel.pipeline.pretraining.training import Trainer, move_to_device
from avel.pipeline.pretraining.vectors import FrozenVectors
from tests.fake_cuda import CUDA, Watch, fake_cuda
from tests.pipeline.configs import changed
from tests.pipeline.pretraining.small_runs import CONFIG

CLIPS = 4
GRID = Grid(size=32)
COLOURS = {"jitter": True, "grayscale": True, "solarize": True, "flip": True}


def twins_of(**changes: Any) -> tuple[ProjectedEncoder, PretrainConfig]:
    config = changed(CONFIG, **{"backbone_batchnorm": "frozen"} | changes)
    return ProjectedEncoder(build_encoder(config), config), config


def trainer_on_gpu(projected: ProjectedEncoder, config: PretrainConfig) -> Trainer:
    projected = move_to_device(projected, config, CUDA)
    trainer = Trainer(projected, make_optimizer(projected, config), config, CUDA)
    trainer.model.train()
    return trainer


def batch_of_frames() -> Batch:
    frames = torch.empty(CLIPS, GRID.segments, 3, GRID.size, GRID.size, dtype=torch.uint8, device=CUDA)
    return Batch(list(range(CLIPS)), frames, torch.empty(CLIPS, GRID.segments, 96, 64, device=CUDA))


@pytest.mark.parametrize(
    ("changes", "launches"),
    [
        ({}, 500),
        ({"dtype": "bfloat16"}, 700),
        ({"optimizer": "adamw"}, 500),
        ({"correlate": "batch"}, 500),
        ({"agva": True, "dtype": "bfloat16"}, 800),
        ({"clips_at_once": 2}, 800),
        ({"backbone_batchnorm": "batch"}, 500),
        (COLOURS, 800),
    ],
    ids=lambda value: "-".join(value) or "paper" if isinstance(value, dict) else "",
)
def test_a_step_stays_on_the_gpu(changes: dict[str, Any], launches: int) -> None:
    built = twins_of(**changes)
    with fake_cuda():
        trainer, batch = trainer_on_gpu(*built), batch_of_frames()
        trainer.step(*trainer.inputs(batch, 0))
        with Watch() as watch:
            values = trainer.step(*trainer.inputs(batch, 1))
        assert {value.device for value in (values, *trainer.projected.parameters())} == {CUDA}
    assert not watch.reads
    assert all("augment.py" in line for line in watch.sends), watch.sends  # pinned
    assert 0 < watch.launches < launches


@pytest.mark.parametrize("per", ["clip", "frame"])
def test_colours_of_all_clips_change_in_few_launches(per: Literal["clip", "frame"]) -> None:
    config = changed(CONFIG, augment_per=per, **COLOURS).augmentation
    clips = 128
    with fake_cuda(), Watch() as watch:
        frames = torch.empty(clips, 10, 3, 32, 32, dtype=torch.uint8, device=CUDA)
        augment_clips(frames, config, [(0, 0, clip) for clip in range(clips)])
    assert not watch.reads
    assert clips < watch.launches < 12 * clips, "one by one it is sixty for each clip, or each frame"


@pytest.mark.parametrize("gigabytes", [80, 0], ids=["vectors on the GPU", "vectors on the CPU"])
def test_a_step_of_frozen_vectors_stays_on_the_gpu(gigabytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = torch.empty(6, 10, 128).half(), torch.empty(6, 10, 2, 128).half()
    built = twins_of(freeze_backbone=True)
    with fake_cuda():
        # a thread would be outside the fake GPU
        monkeypatch.setattr(vectors, "read_ahead", lambda take, items, **_: map(take, items))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (gigabytes * 2**30, 80 * 2**30))
        trainer = trainer_on_gpu(*built)
        batches = FrozenVectors(*(value + 0 for value in kept), batch_size=3, device=CUDA)
        for batch in batches.epoch(0):
            trainer.step(*trainer.inputs(batch, 0))
        with Watch() as watch:
            for batch in batches.epoch(1):
                trainer.step(*trainer.inputs(batch, 1))
        assert batches.cnn_v.is_cuda is (gigabytes > 0)
    assert not watch.reads
    assert sum(watch.sends.values()) <= (2 if gigabytes else 4), "the places of an epoch, or each batch"
    assert 0 < watch.launches < 2 * 350
