"""The memory of a step on a GPU, estimated without one: known sizes, cut to what is free, or refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from avel import forecast
from avel.errors import ConfigError, DeviceMemoryError
from avel.grid import Grid
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.pretraining import footprint
from avel.pipeline.pretraining import pretrain as module
from avel.pipeline.pretraining.footprint import Footprint, choose_clips_at_once, measure_footprint
from avel.pipeline.pretraining.pretrain import pretrain
from avel.pipeline.pretraining.projector import ProjectedEncoder
from avel.pipeline.pretraining.training import Trainer
from avel.stores.clips import ClipStore
from avel.stores.runs import Run
from tests.pipeline.configs import changed
from tests.pipeline.pretraining.small_runs import CONFIG, FROZEN

GB = 10**9


@pytest.mark.parametrize(("dtype", "number_bytes"), [("float32", 4), ("bfloat16", 2)])
def test_activations_are_the_inputs_of_each_convolution(dtype: str, number_bytes: int) -> None:
    config = changed(CONFIG, dtype=dtype, crop_size=32, backbone_batchnorm="frozen")
    found = measure_footprint(ProjectedEncoder(build_encoder(config), config), config, Grid(segments=5))
    # the strided convolutions of a tiny CNN: each input, and the last output behind its ReLU
    frame = 3 * 32 * 32 + 16 * 16**2 + 32 * 8**2 + 64 * 4**2 + 128 * 2**2
    patch = 96 * 64 + 16 * 48 * 32 + 32 * 24 * 16 + 64 * 12 * 8 + 128 * 6 * 4
    assert found.activations == 5 * (frame + patch) * number_bytes
    assert found.inputs == 5 * 3 * (4 * 32**2 + 256**2)


def test_learned_batch_norms_take_more() -> None:
    taken = []
    for batchnorm in ("frozen", "batch"):
        config = changed(CONFIG, backbone_batchnorm=batchnorm)
        taken.append(
            measure_footprint(ProjectedEncoder(build_encoder(config), config), config, Grid()).activations
        )
    assert taken[1] > 1.4 * taken[0]


PAPER = Footprint(fixed=4 * GB, inputs=0, activations=GB // 2)


@pytest.mark.parametrize(("free_gb", "chosen"), [(80, 0), (60, 64), (12, 8)])
def test_a_step_is_cut_to_the_memory_that_is_free(
    free_gb: int, chosen: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert choose_clips_at_once(PAPER, CONFIG, 128, free_gb * GB, can_cut=True, on_gpu=True) == chosen
    assert (f"--clips-at-once {chosen}" in capsys.readouterr().err) is (chosen > 0)


@pytest.mark.parametrize(
    ("free_gb", "can_cut", "processes", "hint"),
    [
        (60, False, 1, "--batch-size 100 or --dtype bfloat16 or --backbone-batchnorm frozen"),
        (60, False, 4, "--batch-size 400 or --dtype bfloat16 or --backbone-batchnorm frozen"),
        (4, True, 1, "--batch-size 1 or --dtype bfloat16"),
    ],
)
def test_a_step_that_cannot_be_cut_is_refused(
    free_gb: int, can_cut: bool, processes: int, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "world_size", lambda: processes)
    config = changed(CONFIG, dtype="float32")
    with pytest.raises(
        ConfigError, match=f"128 clips takes about 68.0 GB .*{free_gb}.0 GB are free"
    ) as caught:
        choose_clips_at_once(PAPER, config, 128, free_gb * GB, can_cut=can_cut, on_gpu=True)
    assert caught.value.hint == hint


def test_a_step_that_does_not_fit_into_a_cpus_memory_is_refused_before_anything_is_written(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: 500_000_000)
    with pytest.raises(ConfigError, match=r"3 clips takes about .* GB of memory, 500\.0 MB are free"):
        pretrain(store, tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()
    pretrain(store, tmp_path / "run", CONFIG, **FROZEN | {"epochs": 1})  # keeps no activations of CNNs


def test_long_training_is_told_beforehand(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = pretrain(store, tmp_path / "short", CONFIG, epochs=1)
    assert "on this CPU" not in capsys.readouterr().err
    monkeypatch.setattr(forecast, "LONG_SECONDS", 0.0)
    told = pretrain(store, tmp_path / "long", CONFIG, epochs=1)
    assert "on this CPU for 1 epoch of 6 clips" in capsys.readouterr().err
    assert told.loss == quiet.loss, "a forecast changes nothing"


def test_a_full_gpu_is_an_error_that_says_what_to_do(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Trainer, *inputs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total ...")

    monkeypatch.setattr(Trainer, "step", full)
    for options, remedy in (({}, "--clips-at-once"), (FROZEN, "--batch-size")):
        with pytest.raises(DeviceMemoryError, match=r"Tried to allocate 2\.00 GiB\n") as caught:
            pretrain(store, tmp_path / remedy, CONFIG, **options)
        assert remedy in caught.value.hint


def test_a_run_goes_on_in_the_number_format_that_it_began_with(store: ClipStore, tmp_path: Path) -> None:
    pretrain(store, tmp_path / "run", CONFIG, epochs=1, dtype="bfloat16")
    pretrain(store, tmp_path / "run", CONFIG, epochs=1)
    assert Run.open(tmp_path / "run").record.config["dtype"] == "bfloat16"
    pretrain(store, tmp_path / "other", CONFIG, epochs=1)
    assert Run.open(tmp_path / "other").record.config["dtype"] == "float32", "on a CPU"
    assert Run.open(tmp_path / "other").record.hardware == "cpu"


def test_a_run_that_was_killed_before_its_first_epoch_takes_other_settings(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Trainer, *inputs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain(store, tmp_path / "run", CONFIG, epochs=1)
    pretrain(store, tmp_path / "run", CONFIG, epochs=1, seed=1)
    assert Run.open(tmp_path / "run").record.config["seed"] == 1
