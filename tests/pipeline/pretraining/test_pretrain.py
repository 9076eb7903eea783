"""`avel pretrain` as a whole: what a run writes, resuming, several processes, hard inputs, collapse."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from avel.errors import ConfigError, MissingPathError, StoreError, TrainingError
from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.encoder import BEST, LAST, load_encoder
from avel.pipeline.pretraining.checkpoint import CHECKPOINT
from avel.pipeline.pretraining.monitor import EpochMeans, collapse
from avel.pipeline.pretraining.pretrain import pick_device, pretrain, training_videos
from avel.pipeline.pretraining.probe import ridge_classes
from avel.pipeline.pretraining.training import Trainer
from avel.stores.clips import ClipStore
from avel.stores.runs import Run
from tests.pipeline.pretraining.clip_store import make_store

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
FROZEN = {"freeze_backbone": True, "frozen_frames": 2, "standardise": True}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return make_store(tmp_path_factory.mktemp("store") / "clips.zarr")


def same_weights(one: Path, other: Path, name: str = LAST) -> bool:
    a, b = load_file(one / name), load_file(other / name)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_writes_what_it_did(store: ClipStore, tmp_path: Path) -> None:
    summary = pretrain(store, tmp_path / "run", CONFIG)
    assert (summary.clips, summary.epochs) == (6, 4), "the two val clips are left out"
    lines = Run.open(tmp_path / "run", "pretrain").metrics()
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        total = line["on_diagonal"] + CONFIG.redundancy_weight * line["off_diagonal"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
        assert line["clips_per_second"] > 0
        assert set(line["moved"]) == {"visual_cnn", "audio_cnn", "visual_lstm", "audio_lstm", "projector"}
    assert all(moved > 0 for moved in lines[-1]["moved"].values())
    assert load_encoder(tmp_path / "run").width == 8
    assert load_encoder(tmp_path / "run", BEST).width == 8
    assert pretrain(store, tmp_path / "run", CONFIG) == summary, "a finished run is not run again"


def test_the_loss_falls(store: ClipStore, tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimiser": "adamw", "epochs": 15, "warmup_epochs": 0.0, "weight_rate": 1e-2}
    pretrain(store, tmp_path / "run", CONFIG, **options)
    losses = [line["loss"] for line in Run.open(tmp_path / "run").metrics()]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("options", [{}, FROZEN | {"optimiser": "adamw"}], ids=["whole", "frozen"])
def test_resuming_gives_the_weights_of_an_uninterrupted_run(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    config = replace(CONFIG, **options)
    pretrain(store, tmp_path / "whole", config)
    original = Trainer.epoch

    def interrupted(self: Trainer, number: int, *more: Any) -> EpochMeans:
        means = original(self, number, *more)
        if number == 2:
            raise KeyboardInterrupt
        return means

    monkeypatch.setattr(Trainer, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(store, tmp_path / "twice", config)
    monkeypatch.undo()
    assert len(Run.open(tmp_path / "twice").metrics()) == 2
    pretrain(store, tmp_path / "twice", config)
    assert same_weights(tmp_path / "whole", tmp_path / "twice")
    assert same_weights(tmp_path / "whole", tmp_path / "twice", CHECKPOINT)
    whole, twice = (Run.open(tmp_path / name).metrics() for name in ("whole", "twice"))
    assert [line["loss"] for line in whole] == [line["loss"] for line in twice]


def test_frozen_cnns_stay_and_the_rest_moves(store: ClipStore, tmp_path: Path) -> None:
    pretrain(store, tmp_path / "run", CONFIG, **FROZEN)
    last = Run.open(tmp_path / "run").metrics()[-1]
    assert set(last["moved"]) == {"visual_lstm", "audio_lstm", "projector"}
    encoder = load_encoder(tmp_path / "run")
    assert not torch.equal(encoder.visual_standard.deviation, torch.ones(128))


@pytest.mark.parametrize(
    "options",
    [
        {"agva": True},
        {"agva": True, **FROZEN},
        {"shared_projector": False},
        {"correlate": "batch"},
        {"dtype": "bfloat16"},
        {"augment_per": "frame"},
        {"flip": True, "jitter": True, "grayscale": True, "solarize": True},
        {"crop": False, "blur": False},
        {"batch": 1},
        {"standardise": True},
        {"deterministic": True},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_option_trains(store: ClipStore, tmp_path: Path, options: dict[str, Any]) -> None:
    summary = pretrain(store, tmp_path / "run", CONFIG, epochs=1, **options)
    assert 0 < summary.loss < 1000


def test_a_run_starts_from_another_and_goes_on_like_any(store: ClipStore, tmp_path: Path) -> None:
    pretrain(store, tmp_path / "first", CONFIG, **FROZEN)
    tuning = replace(
        CONFIG, start_from=str(tmp_path / "first"), standardise=True, epochs=2, backbone_batchnorm="frozen"
    )
    pretrain(store, tmp_path / "still", tuning, rate_scale=0.0, backbone_rate_scale=0.0)
    assert same_weights(tmp_path / "first", tmp_path / "still")
    pretrain(store, tmp_path / "tuned", tuning, backbone_rate_scale=1.0)
    moved = Run.open(tmp_path / "tuned", "pretrain").metrics()[-1]["moved"]
    assert all(0 < share < 1 for share in moved.values()), "counted from where the first run ended"


def test_what_a_run_cannot_start_from_is_refused(store: ClipStore, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="checkpoint"):
        pretrain(store, tmp_path / "run", CONFIG, start_from=str(tmp_path))
    pretrain(store, tmp_path / "first", CONFIG)
    with pytest.raises(StoreError, match="of another model"):
        pretrain(store, tmp_path / "run", CONFIG, start_from=str(tmp_path / "first"), projector="16-8")
    (tmp_path / "first" / CHECKPOINT).write_bytes(b"half a file")
    with pytest.raises(StoreError, match="damaged"):
        pretrain(store, tmp_path / "run", CONFIG, start_from=str(tmp_path / "first"))
    assert not (tmp_path / "run" / "run.json").exists()


def test_still_frames_and_silence_stay_finite_and_are_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "still.zarr", clips=4, still=True)
    summary = pretrain(store, tmp_path / "run", CONFIG, crop=False, blur=False, epochs=2)
    assert 0 < summary.loss < 1000
    assert all(torch.isfinite(value).all() for value in load_file(tmp_path / "run" / LAST).values())


def test_a_loss_that_is_not_finite_stops_with_advice(store: ClipStore, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="weight-rate"):
        pretrain(store, tmp_path / "run", CONFIG, optimiser="adamw", weight_rate=1e30, bias_rate=1e30)


def test_a_probe_scores_val(store: ClipStore, tmp_path: Path) -> None:
    summary = pretrain(store, tmp_path / "run", CONFIG, probe_every=2)
    lines = Run.open(tmp_path / "run").metrics()
    assert ["probe_accuracy" in line for line in lines] == [False, True, False, True]
    assert summary.best_score == max(line["probe_accuracy"] for line in lines if "probe_accuracy" in line)
    assert 0 <= summary.best_score <= 1


def test_ridge_finds_classes_that_are_linear() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 5, generator=generator, dtype=torch.float64)
    labels = (x @ torch.randn(5, 3, generator=generator, dtype=torch.float64)).argmax(1)
    predicted = ridge_classes(x[:400], labels[:400], x[400:], 3)
    assert (predicted == labels[400:]).double().mean() > 0.85


def test_all_clips_are_trained_on_where_there_are_no_splits(tmp_path: Path) -> None:
    assert len(training_videos(make_store(tmp_path / "clips.zarr", clips=3, splits=False))) == 3


def test_another_config_in_the_same_folder_is_refused(store: ClipStore, tmp_path: Path) -> None:
    pretrain(store, tmp_path / "run", CONFIG, epochs=1)
    with pytest.raises(StoreError, match="epochs"):
        pretrain(store, tmp_path / "run", CONFIG, epochs=2)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "tpu"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="device"):
        pick_device(name)


HEALTHY = EpochMeans(loss=10, on_diagonal=9, off_diagonal=200, diagonal=0.3, redundancy=1e-3, spread=0.5)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, None),
        ({"loss": float("nan")}, "finite"),
        ({"spread": 1e-5}, "constant"),
        ({"redundancy": 0.8}, "copies"),
        ({"redundancy": 0.0, "diagonal": 0.0}, "nothing changes"),
    ],
)
def test_collapse_is_named(change: dict[str, float], word: str | None) -> None:
    found = collapse(replace(HEALTHY, **change))
    assert found is None if word is None else word in str(found)


@pytest.mark.slow
def test_two_processes_train_to_the_weights_of_one(store: ClipStore, tmp_path: Path) -> None:
    pretrain(store, tmp_path / "one", CONFIG, epochs=2)
    script = (
        "import sys\n"
        "from avel.pipeline.pretraining.pretrain import pretrain\n"
        "from tests.pipeline.pretraining.test_pretrain import CONFIG\n"
        "pretrain(sys.argv[1], sys.argv[2], CONFIG, epochs=2)"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    (tmp_path / "train.py").write_text(script)
    root = Path(__file__).parents[3]
    subprocess.run(
        [*command, str(tmp_path / "train.py"), store.location.url, str(tmp_path / "two")],
        check=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    one, two = load_file(tmp_path / "one" / LAST), load_file(tmp_path / "two" / LAST)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)
