"""AV-BT on a GPU: batches, augmentation, steps as on a CPU; no waiting; resuming. Skipped without a GPU."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avel.errors import ConfigError
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.pretraining.augment import augment_clips
from avel.pipeline.pretraining.avbt import avbt_loss
from avel.pipeline.pretraining.checkpoint import CHECKPOINT
from avel.pipeline.pretraining.loader import Batch, ClipLoader
from avel.pipeline.pretraining.pretrain import make_batches, pretrain
from avel.pipeline.pretraining.projector import ProjectedEncoder
from avel.pipeline.pretraining.schedule import make_optimizer
from avel.pipeline.pretraining.settings import device_of_process
from avel.pipeline.pretraining.training import Trainer, move_to_device
from avel.pipeline.pretraining.vectors import FrozenVectors
from avel.progress import Progress
from avel.stores.clips import ClipStore
from avel.stores.runs import Run
from tests.pipeline.configs import changed, pretrain_config
from tests.pipeline.pretraining.clip_store import GRID
from tests.pipeline.pretraining.small_runs import CONFIG, FROZEN, pretrain_in_two_goes, same_weights

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda", 0)
ON_GPU = changed(CONFIG, device="cuda:0")
DECODERS_DIFFER = 4.0
"""Levels of 255 by which two JPEG decoders may differ on average: they interpolate colour differently."""


def batch_on(device: torch.device, clips: int = 4) -> Batch:
    """Noise on a device: frames and patches of `clips` clips."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (clips, 10, 3, 32, 32), dtype=torch.uint8, generator=generator)
    log_mel = torch.randn(clips, 10, 96, 64, generator=generator)
    return Batch(list(range(clips)), frames.to(device), log_mel.to(device))


def trainer_on(device: torch.device, **changes: Any) -> Trainer:
    config = changed(CONFIG, **changes)
    projected = move_to_device(ProjectedEncoder(build_encoder(config), config), config, device)
    trainer = Trainer(projected, make_optimizer(projected, config), config, device)
    trainer.model.train()
    return trainer


@pytest.mark.parametrize("decode", ["gpu", "cpu"])
def test_batches_are_those_of_the_cpu(decode: Any, store: ClipStore) -> None:
    loaders = [
        ClipLoader(store, store.staged, batch_size=3, device=device, decode=decode, epochs=3)
        for device in (None, GPU)
    ]
    for epoch in range(3):
        for on_cpu, on_gpu in zip(*(loader.epoch(epoch) for loader in loaders), strict=True):
            assert on_gpu.visual.is_cuda
            assert on_gpu.clips == on_cpu.clips
            assert torch.equal(on_gpu.audio.cpu(), on_cpu.audio)
            difference = on_gpu.visual.cpu().float() - on_cpu.visual.float()
            assert difference.abs().mean((2, 3, 4)).max() < DECODERS_DIFFER
            assert difference.mean((2, 3, 4)).abs().max() < 2, "each frame has a brightness of its own"


def test_decoding_leaves_memory_alone_that_queued_kernels_still_read(store: ClipStore) -> None:
    loader = ClipLoader(store, store.staged, batch_size=8, device=GPU, decode="gpu")
    list(loader.epoch(0))
    for epoch in range(1, 4):
        size = (3, GRID.size, GRID.size)
        given_back = [torch.full(size, 7, dtype=torch.uint8, device=GPU) for _ in range(8 * GRID.segments)]
        copies = [torch.empty_like(piece) for piece in given_back]
        torch.cuda.synchronize()
        torch.cuda._sleep(500_000_000)
        for copy, piece in zip(copies, given_back, strict=True):
            copy.copy_(piece)
        del given_back, piece
        list(loader.epoch(epoch))
        assert all(bool((copy == 7).all()) for copy in copies)


@pytest.mark.parametrize("per", ["clip", "frame"])
def test_augmentation_is_that_of_the_cpu(per: Any) -> None:
    config = pretrain_config(
        flip=True, jitter=True, grayscale=True, solarize=True, crop_size=24, augment_per=per
    )
    found = []
    for device in (torch.device("cpu"), GPU):
        batch = batch_on(device, 20)
        found.append(augment_clips(batch.visual, config, [(0, clip) for clip in batch.clips]).cpu())
    torch.testing.assert_close(found[1], found[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "adamw"}, {"correlate": "batch"}, {"agva": True}, {"dtype": "bfloat16"}],
    ids=lambda changes: "-".join(changes) or "paper",
)
def test_a_step_never_waits_for_the_gpu(changes: dict[str, Any]) -> None:
    trainer, batch = trainer_on(GPU, **changes), batch_on(GPU)
    trainer.step(*trainer.inputs(batch, 0))  # what is set up once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        values = trainer.step(*trainer.inputs(batch, 1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(values).all()


def test_a_step_has_the_values_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    found = []
    for device in (torch.device("cpu"), GPU):
        trainer, batch = trainer_on(device), batch_on(device)
        found.append(trainer.step(*trainer.inputs(batch, 0)).cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-2, atol=1e-3)


def test_the_loss_in_bfloat16_is_near_that_in_float32() -> None:
    found = []
    for dtype in ("float32", "bfloat16"):
        trainer, batch = trainer_on(GPU, dtype=dtype), batch_on(GPU)
        with torch.no_grad():
            found.append(avbt_loss(*trainer.model(*trainer.inputs(batch, 0))).total.item())
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_frozen_vectors_lie_on_the_gpu(store: ClipStore, tmp_path: Path) -> None:
    config = changed(ON_GPU, **FROZEN)
    encoder = build_encoder(config).to(GPU)
    batches = make_batches(encoder, store, list(store.staged), tmp_path, config)
    assert isinstance(batches, FrozenVectors)
    assert batches.cnn_v.is_cuda
    held = batches.cnn_a.cpu(), batches.cnn_v.cpu()
    on_cpu = FrozenVectors(*held, batch_size=config.batch_size, seed=config.seed)
    for there, here in zip(batches.epoch(1), on_cpu.epoch(1), strict=True):
        assert torch.equal(there.visual.cpu(), here.visual)
        assert torch.equal(there.audio.cpu(), here.audio)


@pytest.mark.slow
def test_compiled_cnns_train_to_nearly_the_same_loss(store: ClipStore, tmp_path: Path) -> None:
    plain = pretrain(store, tmp_path / "plain", ON_GPU, epochs=1)
    compiled = pretrain(store, tmp_path / "compiled", ON_GPU, epochs=1, compile=True)
    assert compiled.loss == pytest.approx(plain.loss, rel=0.02)


@pytest.mark.parametrize("options", [{}, FROZEN, {"dtype": "bfloat16"}], ids=["whole", "frozen", "bfloat16"])
def test_resuming_gives_the_weights_of_an_uninterrupted_run(
    store: ClipStore, tmp_path: Path, options: dict[str, Any]
) -> None:
    config = replace(ON_GPU, deterministic=True, **options)
    pretrain(store, tmp_path / "whole", config)
    pretrain_in_two_goes(store, tmp_path / "twice", config)
    assert same_weights(tmp_path / "whole", tmp_path / "twice")
    assert same_weights(tmp_path / "whole", tmp_path / "twice", CHECKPOINT)


def test_progress_shows_the_last_epochs_means(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = []
    monkeypatch.setattr(Progress, "advance", lambda *_, note="", **__: notes.append(note))
    pretrain(store, tmp_path / "run", ON_GPU, epochs=2, batch_size=6)
    first = Run.open(tmp_path / "run").metrics()[0]
    assert notes[0] == "epoch 1/2"
    assert notes[1].startswith(f"epoch 1/2 loss {first['loss']:.4g} (on-diagonal ")
    assert notes[2].startswith(f"epoch 2/2 last epoch loss {first['loss']:.4g} (on-diagonal ")


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="torch finds"):
        device_of_process("cuda:99")
