"""`avel pretrain` as a whole: what a run writes, resuming, several processes, what is refused."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from avel.config import to_toml
from avel.errors import (
    AvelError,
    ConfigError,
    StoreError,
    TrainingError,
    WeightsError,
    WriteError,
)
from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.encoders.header import BEST, LAST
from avel.pipeline.encoders.saved import load_encoder
from avel.pipeline.pretraining import checkpoint, record
from avel.pipeline.pretraining.checkpoint import CHECKPOINT
from avel.pipeline.pretraining.monitor import EpochMeans
from avel.pipeline.pretraining.pretrain import make_batches, pretrain, training_videos
from avel.pipeline.pretraining.probe import Probe, features_of, ridge_classes
from avel.pipeline.pretraining.settings import check_config, device_of_process
from avel.pipeline.pretraining.training import Trainer
from avel.pipeline.pretraining.vectors import FrozenVectors, compute_vectors
from avel.stores.clip_writer import write_dataset
from avel.stores.clips import ClipStore
from avel.stores.datasets.sample import Event, Samples
from avel.stores.manifest import ManifestWriter
from avel.stores.runs import Run
from tests.pipeline.configs import changed
from tests.pipeline.pretraining.clip_store import make_store
from tests.pipeline.pretraining.small_runs import CONFIG, FROZEN, pretrain_in_two_goes, same_weights


def test_a_run_writes_what_it_did(store: ClipStore, tmp_path: Path) -> None:
    summary = pretrain(store, tmp_path / "run", CONFIG)
    assert (summary.clips, summary.epochs) == (6, 4), "the two val clips are left out"
    lines = Run.open(tmp_path / "run", "pretrain").metrics()
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        total = line["on_diagonal"] + CONFIG.objective.lambd * line["off_diagonal"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
        assert line["clips_per_second"] > 0
        assert set(line["moved"]) == {"visual_cnn", "audio_cnn", "visual_lstm", "audio_lstm", "projector"}
    assert all(moved > 0 for moved in lines[-1]["moved"].values())
    assert load_encoder(tmp_path / "run").width == 8
    assert load_encoder(tmp_path / "run" / BEST).width == 8
    assert pretrain(store, tmp_path / "run", CONFIG) == summary, "a finished run is not run again"


def test_the_loss_falls(store: ClipStore, tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimizer": "adamw", "epochs": 15, "warmup_epochs": 0.0, "lr": 1e-2}
    pretrain(store, tmp_path / "run", CONFIG, **options)
    losses = [line["loss"] for line in Run.open(tmp_path / "run").metrics()]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "options",
    [{}, FROZEN | {"optimizer": "adamw"}, {"start_from": "first"}, {"deterministic": True}],
    ids=["whole", "frozen", "tuned", "deterministic"],
)
def test_resuming_gives_the_weights_of_an_uninterrupted_run(
    store: ClipStore, tmp_path: Path, options: dict[str, Any]
) -> None:
    if "start_from" in options:
        pretrain(store, tmp_path / "first", CONFIG, **FROZEN)
        options = {"start_from": str(tmp_path / "first")}
    config = changed(CONFIG, **options)
    pretrain(store, tmp_path / "whole", config)
    pretrain_in_two_goes(store, tmp_path / "twice", config)
    assert same_weights(tmp_path / "whole", tmp_path / "twice")
    assert same_weights(tmp_path / "whole", tmp_path / "twice", CHECKPOINT)
    whole, twice = (Run.open(tmp_path / name).metrics() for name in ("whole", "twice"))
    assert [line["loss"] for line in whole] == [line["loss"] for line in twice]


def test_frozen_cnns_stay_and_the_rest_moves(store: ClipStore, tmp_path: Path) -> None:
    pretrain(store, tmp_path / "run", CONFIG, **FROZEN)
    last = Run.open(tmp_path / "run").metrics()[-1]
    assert set(last["moved"]) == {"visual_lstm", "audio_lstm", "projector"}
    encoder = load_encoder(tmp_path / "run")
    assert not torch.equal(encoder.temporal.visual_standard.std, torch.ones(128))


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
        {"batch_size": 1},
        {"standardise": True},
        {"deterministic": True},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_option_trains(store: ClipStore, tmp_path: Path, options: dict[str, Any]) -> None:
    summary = pretrain(store, tmp_path / "run", CONFIG, epochs=1, **options)
    assert 0 < summary.loss < 1000


def test_standardisation_of_a_large_store_is_computed_on_clips_from_all_over_it(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avel.pipeline.pretraining.pretrain.STANDARD_CLIPS", 2)
    encoder = build_encoder(CONFIG)
    make_batches(encoder, store, training_videos(store), tmp_path, changed(CONFIG, standardise=True))
    _, cnn_v = compute_vectors(encoder, store, ["c1", "c5"], 1)  # of c0, c1, c2, c4, c5 and c6
    torch.testing.assert_close(encoder.temporal.visual_standard.mean, cnn_v.float().mean((0, 1, 2)))


def test_a_short_run_warms_up_for_half_of_its_epochs(
    store: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(store, tmp_path / "run", CONFIG, warmup_epochs=10.0)
    assert "warm-up cut from 10 to 2 epochs" in capsys.readouterr().err
    lines = Run.open(tmp_path / "run").metrics()
    assert [line["lr_fraction"] for line in lines[:2]] == pytest.approx([0.5, 1.0])
    assert lines[-1]["lr_fraction"] < 0.7
    assert Run.open(tmp_path / "run").config(PretrainConfig).optimizer.warmup_epochs == 2


@pytest.mark.parametrize(
    ("options", "noted"),
    [
        (
            {"frozen_frames": 2, "frozen_augment": True},
            "freeze_backbone is false: frozen_frames, frozen_augment",
        ),
        (FROZEN | {"clips_at_once": 2, "compile": True}, "freeze_backbone is true: compile, clips_at_once"),
        ({"crop": False, "crop_scale": (0.5, 1.0)}, "crop is false: crop_scale"),
        ({"optimizer": "adamw", "momentum": 0.8, "trust": 0.1}, "optimizer is adamw: momentum, trust"),
    ],
    ids=["whole", "frozen", "crop", "adamw"],
)
def test_settings_that_change_nothing_are_noted(
    capsys: pytest.CaptureFixture[str], options: dict[str, Any], noted: str
) -> None:
    check_config(CONFIG)
    assert capsys.readouterr().err == ""
    check_config(changed(CONFIG, **options))
    assert capsys.readouterr().err == f"without effect, since {noted}\n"


@pytest.mark.parametrize("name", ["flip", "blur", "crop_scale", "augment_per"])
def test_augmentations_that_frozen_cnns_would_not_see_are_refused(
    store: ClipStore, tmp_path: Path, name: str
) -> None:
    change = {"flip": True, "blur": False, "crop_scale": (0.5, 1.0), "augment_per": "frame"}[name]
    with pytest.raises(ConfigError, match=name) as caught:
        pretrain(store, tmp_path / "run", CONFIG, **FROZEN, **{name: change})
    assert caught.value.hint == "--frozen-augment"
    pretrain(store, tmp_path / "run", CONFIG, **FROZEN, **{name: change}, frozen_augment=True, epochs=1)


@pytest.mark.parametrize(
    "options",
    [
        {"visual_weights": "none.pth"},
        {"backbone_batchnorm": "batch", "clips_at_once": 2},
        {"probe_every": 1, **FROZEN},
    ],
    ids=["before the record", "after it", "before vectors"],
)
def test_a_refused_call_leaves_no_run_folder(tmp_path: Path, options: dict[str, Any]) -> None:
    store = make_store(tmp_path / "unlabelled.zarr", 3, splits=False)
    with pytest.raises(AvelError):
        pretrain(store, tmp_path / "run", CONFIG, **options)
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(AvelError):
        pretrain(store, tmp_path / "mine", CONFIG, **options)
    assert (tmp_path / "mine").exists(), "a folder that was there before stays"


@pytest.mark.parametrize(
    ("name", "value"),
    [("projector", "16-x"), ("crop_scale", (1.0, 0.5)), ("frozen_vectors", __file__)],
    ids=["projector", "crop_scale", "frozen_vectors"],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_is_made(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    monkeypatch.setattr("avel.pipeline.pretraining.pretrain.build_encoder", pytest.fail)
    with pytest.raises(ConfigError, match=name):
        pretrain(store, tmp_path / "run", CONFIG, **{name: value})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["visual", "audio"])
def test_random_cnns_are_refused_unless_asked_for(kind: str, store: ClipStore, tmp_path: Path) -> None:
    options: dict[str, Any] = {f"{kind}_weights": "published"}
    with pytest.raises(WeightsError, match=f"--{kind}-weights is published") as caught:
        pretrain(store, tmp_path / "run", CONFIG, **options)
    assert f"--{kind}-weights random" in caught.value.hint
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_loss_that_is_not_finite_stops_with_advice(store: ClipStore, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--lr"):
        pretrain(store, tmp_path / "run", CONFIG, optimizer="adamw", lr=1e30, lr_bias=1e30)


def test_a_probe_scores_val(store: ClipStore, tmp_path: Path) -> None:
    summary = pretrain(store, tmp_path / "run", CONFIG, probe_every=2)
    lines = Run.open(tmp_path / "run").metrics()
    assert ["probe_accuracy" in line for line in lines] == [False, True, False, True]
    assert summary.best_score == max(line["probe_accuracy"] for line in lines if "probe_accuracy" in line)
    assert 0 <= summary.best_score <= 1


@pytest.mark.parametrize(
    ("scores", "best"), [((0.1, 0.3, 0.2), 2), ((0.3, 0.2, 0.1), 1), ((0.2, 0.2, 0.1), 1)]
)
def test_the_best_epoch_is_the_first_one_with_the_highest_score(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...], best: int
) -> None:
    left = iter(scores)
    monkeypatch.setattr(Probe, "score", lambda probe, encoder: next(left))
    summary = pretrain(store, tmp_path / "run", CONFIG, epochs=3, probe_every=1)
    assert (summary.best_epoch, summary.best_score) == (best, max(scores))
    with safe_open(tmp_path / "run" / BEST, "pt") as file:
        assert json.loads(file.metadata()["about"]) == {"epoch": best, "score": max(scores)}


def test_without_a_probe_the_lowest_loss_is_best(store: ClipStore, tmp_path: Path) -> None:
    summary = pretrain(store, tmp_path / "run", CONFIG, optimizer="adamw")
    losses = [line["loss"] for line in Run.open(tmp_path / "run").metrics()]
    assert (summary.best_epoch, summary.best_score) == (1 + losses.index(min(losses)), -min(losses))


def test_checkpoints_are_as_far_apart_as_asked_for(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    monkeypatch.setattr(
        "avel.pipeline.pretraining.record.save_checkpoint",
        lambda path, state, reached: kept.append(reached.epochs),
    )
    pretrain(store, tmp_path / "run", CONFIG, epochs=5, checkpoint_every=3)
    assert kept == [3, 5]


def test_the_best_encoder_is_that_of_a_checkpoint(store: ClipStore, tmp_path: Path) -> None:
    summary = pretrain(store, tmp_path / "run", CONFIG, epochs=5, checkpoint_every=2, optimizer="adamw")
    losses = {line["epoch"]: line["loss"] for line in Run.open(tmp_path / "run").metrics()}
    assert summary.best_epoch == min((2, 4, 5), key=losses.__getitem__)
    with safe_open(tmp_path / "run" / BEST, "pt") as file:
        assert json.loads(file.metadata()["about"])["epoch"] == summary.best_epoch


def test_a_checkpoint_is_written_while_the_next_epoch_trains(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = {number: threading.Event() for number in range(4)}
    train, save = Trainer.epoch, checkpoint.save_checkpoint

    def epoch(self: Trainer, number: int, *more: Any) -> EpochMeans:
        begun[number].set()
        return train(self, number, *more)

    def after_the_next_began(path: Path, state: dict[str, torch.Tensor], reached: checkpoint.Reached) -> None:
        assert begun[min(reached.epochs, 3)].wait(20), "training waits for the file"
        save(path, state, reached)

    monkeypatch.setattr(Trainer, "epoch", epoch)
    monkeypatch.setattr(record, "save_checkpoint", after_the_next_began)
    pretrain(store, tmp_path / "run", CONFIG)
    monkeypatch.undo()
    pretrain(store, tmp_path / "same", CONFIG)
    for name in (LAST, CHECKPOINT):
        assert same_weights(tmp_path / "run", tmp_path / "same", name), "as it was when the epoch ended"


def test_a_checkpoint_that_cannot_be_written_ends_the_run(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*state: Any) -> None:
        raise WriteError("no space left")

    monkeypatch.setattr(record, "save_checkpoint", full)
    with pytest.raises(WriteError, match="no space left"):
        pretrain(store, tmp_path / "run", CONFIG)
    assert not Run.open(tmp_path / "run").finished


def test_frozen_cnns_are_in_the_encoder_and_not_in_the_checkpoint(store: ClipStore, tmp_path: Path) -> None:
    pretrain_in_two_goes(store, tmp_path / "run", changed(CONFIG, **FROZEN))
    kept = load_file(tmp_path / "run" / CHECKPOINT)
    assert not [name for name in kept if name.startswith(("model.encoder.visual.", "model.encoder.audio."))]
    assert any(name.startswith("model.encoder.temporal.visual_lstm.") for name in kept)
    tuned = {"freeze_backbone": False, "epochs": 1, "start_from": str(tmp_path / "run")}
    pretrain(store, tmp_path / "tuned", changed(CONFIG, **tuned))
    first, second = (load_file(tmp_path / name / LAST) for name in ("run", "tuned"))
    name = "visual.layers.0.weight"
    assert torch.allclose(first[name], second[name], atol=1e-2), "starts from the CNNs of the frozen run"
    assert not torch.equal(first[name], second[name])


def test_the_time_that_checkpoints_take_is_counted(store: ClipStore, tmp_path: Path) -> None:
    summary = pretrain(store, tmp_path / "run", CONFIG)
    lines = Run.open(tmp_path / "run").metrics()
    assert all(line["seconds_between"] > 0 for line in lines)
    assert summary.seconds >= round(sum(line["seconds"] + line["seconds_between"] for line in lines), 1)


@pytest.mark.parametrize("frames", [1, 3])
def test_as_many_frames_are_kept_as_asked_for(store: ClipStore, tmp_path: Path, frames: int) -> None:
    config = changed(CONFIG, freeze_backbone=True, frozen_frames=frames)
    batches = make_batches(build_encoder(config), store, training_videos(store), tmp_path, config)
    assert isinstance(batches, FrozenVectors)
    assert batches.cnn_v.shape[:3] == (6, 10, frames)


def test_a_probe_takes_few_clips_to_the_device_at_once(
    store: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = build_encoder(changed(CONFIG, agva=True)).eval()
    vectors = compute_vectors(encoder, store, store.staged, 2)
    sizes: list[int] = []
    encoder.temporal.visual_lstm.register_forward_hook(
        lambda module, inputs, output: sizes.append(len(inputs[0]))
    )
    with torch.no_grad():
        whole = features_of(encoder, *vectors)
        monkeypatch.setattr("avel.pipeline.pretraining.probe.PROBED_AT_ONCE", 3)
        torch.testing.assert_close(features_of(encoder, *vectors), whole)
    assert sizes == [8, 3, 3, 2]


def test_ridge_finds_classes_that_are_linear() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 5, generator=generator, dtype=torch.float64)
    labels = (x @ torch.randn(5, 3, generator=generator, dtype=torch.float64)).argmax(1)
    predicted = ridge_classes(x[:400], labels[:400], x[400:], 3)
    assert (predicted == labels[400:]).double().mean() > 0.85


def test_a_probe_of_several_labels_a_segment_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "clips.zarr")
    both = (Event("Bark", 0, 5), Event("Bell", 4, 8))
    samples = Samples.of(tuple(dataclasses.replace(sample, events=both) for sample in store.dataset.samples))
    write_dataset(store.location, dataclasses.replace(store.dataset, samples=samples))
    with pytest.raises(TrainingError, match="a segment has one label") as caught:
        Probe(ClipStore.open(tmp_path / "clips.zarr"), frozen=True, workers=1)
    assert caught.value.hint == "leave out --probe-every"


def test_a_store_without_train_samples_is_refused_with_what_shows_its_splits(tmp_path: Path) -> None:
    store = make_store(tmp_path / "clips.zarr", clips=4)
    rest = Samples.of((store.dataset.samples[3],))
    write_dataset(store.location, dataclasses.replace(store.dataset, samples=rest))
    with pytest.raises(TrainingError, match="no train sample among 4 staged clips") as caught:
        training_videos(ClipStore.open(tmp_path / "clips.zarr"))
    assert caught.value.hint.startswith(f"avel inspect {tmp_path}/clips.zarr shows")


def test_all_clips_are_trained_on_where_there_are_no_splits(tmp_path: Path) -> None:
    assert len(training_videos(make_store(tmp_path / "clips.zarr", clips=3, splits=False))) == 3


@pytest.mark.parametrize("splits", [True, False])
def test_clips_whose_videos_left_the_dataset_are_not_trained_on(tmp_path: Path, splits: bool) -> None:
    store = make_store(tmp_path / "clips.zarr", clips=3, splits=splits)
    fewer = make_store(tmp_path / "fewer.zarr", clips=2, splits=splits)
    write_dataset(store.location, fewer.dataset)
    store = ClipStore.open(tmp_path / "clips.zarr")
    assert store.staged == ("c0", "c1", "c2")
    assert training_videos(store) == ["c0", "c1"]


def test_another_config_in_the_same_folder_is_refused(store: ClipStore, tmp_path: Path) -> None:
    pretrain(store, tmp_path / "run", CONFIG, epochs=1)
    with pytest.raises(StoreError, match="epochs"):
        pretrain(store, tmp_path / "run", CONFIG, epochs=2)


def test_clips_of_other_files_are_not_taken_for_those_of_a_run(tmp_path: Path) -> None:
    store, options = make_store(tmp_path / "clips.zarr", clips=3), {**FROZEN, "epochs": 1}
    pretrain(store, tmp_path / "run", CONFIG, frozen_vectors=str(tmp_path / "vectors"), **options)
    other = dataclasses.replace(store.entries["c1"], source_sha256="of another file")
    ManifestWriter(store.location).append([other])
    store = ClipStore.open(tmp_path / "clips.zarr")
    with pytest.raises(StoreError, match="other inputs: clip_sources"):
        pretrain(store, tmp_path / "run", CONFIG, frozen_vectors=str(tmp_path / "vectors"), **options)
    (kept,) = (tmp_path / "vectors").iterdir()
    assert len([*kept.iterdir()]) == 1
    pretrain(store, tmp_path / "new", CONFIG, frozen_vectors=str(tmp_path / "vectors"), **options)
    assert len([*kept.iterdir()]) == 2, "the vectors of the changed clip are computed again"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "tpu", "meta", "mps"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="device"):
        device_of_process(name)


def test_a_gpu_that_is_not_there_is_refused_beside_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="device 'cuda:99' is not there: torch finds 2 GPUs"):
        device_of_process("cuda:99")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="process 2 of torchrun has no GPU: torch finds 2"):
        device_of_process("auto")


@pytest.mark.parametrize(
    ("name", "local_rank", "index"),
    [("cuda:0", "1", 0), ("cuda:1", "0", 1), ("cuda", "1", 1), ("auto", "0", 0)],
)
def test_a_gpu_is_the_one_that_is_named_or_the_processs_own(
    monkeypatch: pytest.MonkeyPatch, name: str, local_rank: str, index: int
) -> None:
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert [device_of_process(name)] == taken == [torch.device("cuda", index)]
    monkeypatch.setenv("WORLD_SIZE", "2")
    if ":" in name:
        with pytest.raises(ConfigError, match="several processes one GPU") as caught:
            device_of_process(name)
        assert caught.value.hint == "--device cuda"
    else:
        assert device_of_process(name).index == index


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 2])
def test_torchrun_trains_to_the_weights_of_one_process(store: ClipStore, tmp_path: Path, epochs: int) -> None:
    config = changed(CONFIG, epochs=epochs, probe_every=1)  # only the first process probes: others are early
    expected = pretrain(store, tmp_path / "one", config)
    (tmp_path / "two.toml").write_text(to_toml(config, "pretrain"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "avel", "pretrain", store.location.url, str(tmp_path / "two"), "--json"]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [*torchrun, *command, "--config", str(tmp_path / "two.toml")],
        check=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        timeout=240,
        stdout=subprocess.PIPE,
        text=True,
    )
    printed = json.loads(done.stdout)  # one process prints
    assert printed == Run.open(tmp_path / "two").results
    assert printed["loss"] == pytest.approx(expected.loss, rel=1e-3)
    assert printed["epochs"] == epochs
    one, two = load_file(tmp_path / "one" / LAST), load_file(tmp_path / "two" / LAST)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)
