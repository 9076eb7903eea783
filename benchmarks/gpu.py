"""Measures what avel should reach on a GPU, each figure beside its target; needs no network and no data.

    python benchmarks/gpu.py step training       # an estimated 8 minutes on an H100
    python benchmarks/gpu.py cache               # 5, estimated too
    python benchmarks/gpu.py heads checkpoints   # 3, estimated too

A part that fails says why, the others run, and the exit code is 1. On a bare machine: download the wheels
elsewhere (`pip download 'torch==2.11.*' torchvision 'torchaudio==2.11.0' . -d wheels`; torchaudio 2.11.1 does
not load beside torch 2.11), carry them along, and run `pip install --no-index --find-links wheels avel`. The
clips are made up, as large as real ones. On a CPU small networks show that the script runs, and nothing else:
no figure is then compared with its target.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import heads as heads_benchmark
import torch
import torchvision
from cache import make_store
from torchvision.io import ImageReadMode

from avel.ahead import usable_cores
from avel.config import resolve
from avel.device import has_jpeg_engine, tf32
from avel.errors import AvelError
from avel.heads.config import TrainConfig
from avel.heads.training.data import read_data
from avel.heads.training.fit import Training
from avel.heads.training.graphs import EAGER_STEPS
from avel.heads.training.trials import Trial
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.caching.encode import PartEncoder
from avel.pipeline.caching.request import make_request
from avel.pipeline.config import CacheConfig, PretrainConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.pretraining.loader import Batch, ClipLoader
from avel.pipeline.pretraining.pretrain import pretrain
from avel.pipeline.pretraining.projector import ProjectedEncoder
from avel.pipeline.pretraining.schedule import make_optimizer
from avel.pipeline.pretraining.training import Trainer, determinism, move_to_device
from avel.progress import Progress, set_verbosity
from avel.stores.clips import ClipStore
from avel.stores.feature_parts import Parts
from avel.stores.features import FeatureCache
from avel.stores.runs import Run

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if ON_GPU else torch.device("cpu")
NAME = torch.cuda.get_device_name(0) if ON_GPU else "a CPU: no figure is compared with its target"
CLIPS, BATCH, TRIALS = (640, 128, 20) if ON_GPU else (12, 4, 3)
HEAD = "tacma" if ON_GPU else "mlp"  # TACMA takes minutes in bfloat16 on a CPU that lacks it
AVE_CLIPS, AVE_TRAIN = 4143, 3339
WEIGHTS: dict[str, Any] = {"visual_weights": "random", "audio_weights": "random"}
if not ON_GPU:
    WEIGHTS |= {"visual_backbone": "tiny", "audio_backbone": "tiny", "crop_size": 32}
TRAINING = WEIGHTS | {"backbone_batchnorm": "frozen", "batch_size": BATCH}
TRAINING |= {} if ON_GPU else {"projector": "32-32"}
STEP_TARGETS = {"H100": 480.0, "H200": 650.0}
COMPILED_TARGETS = {"H100": 750.0, "H200": 1000.0}
COMPILE_GAIN = 1.15
Work = Callable[[], Any]


def main() -> int:
    """Runs the parts that were named; returns how many failed."""
    parts = {
        "step": step,
        "training": training,
        "cache": caching,
        "heads": heads,
        "checkpoints": checkpoints,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=parts)
    parser.add_argument("--store", type=Path, help="keeps the clips that are made up, for the next call")
    options = parser.parse_args()
    set_verbosity(0)
    failed = 0
    print(f"{NAME}, torch {torch.__version__}, {usable_cores()} cores", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.parts:
            began = time.perf_counter()
            try:
                with tf32(DEVICE), determinism(PretrainConfig(), DEVICE):
                    parts[name](Path(folder), options.store or Path(folder) / "clips.zarr")
            except Exception:  # one that fails must not cost the figures of the others
                traceback.print_exc()
                failed += 1
            print(f"{name} took {time.perf_counter() - began:.0f} s", flush=True)
    return failed


def show(what: str, figure: float, unit: str, least: float | None = None, most: float | None = None) -> None:
    """Prints a figure, its target, and whether it is met."""
    line = f"{what:<62} {figure:>10.4g} {unit:<10}"
    if least is not None or most is not None:
        target = f">= {least:g}" if least is not None else f"<= {most:g}"
        met = figure >= least if least is not None else figure <= (most or 0)
        line += f" {target:<10} {('met' if met else 'MISSED') if ON_GPU else 'not compared'}"
    print(line, flush=True)


def of_device(targets: dict[str, float]) -> float | None:
    """Returns the target of this GPU, None for one without a target."""
    return next((target for name, target in targets.items() if name in NAME), None)


def seconds_of(work: Work, times: int = 3, warm: int = 1) -> float:
    """Returns the median seconds of `work`, until the GPU is done with it."""
    found = []
    for turn in range(warm + times):
        began = time.perf_counter()
        work()
        if ON_GPU:
            torch.cuda.synchronize()
        if turn >= warm:
            found.append(time.perf_counter() - began)
    return statistics.median(found)


def open_store(path: Path) -> ClipStore:
    """Opens the store of made-up clips, which is made the first time."""
    return ClipStore.open(path if path.exists() else make_store(path, CLIPS))


def trainer_of(**changes: Any) -> Trainer:
    """Returns a trainer of the paper's AV-BT; weights are random, batch norms frozen as if pretrained."""
    options = TRAINING | {"clips_at_once": 0} | changes
    config = resolve(PretrainConfig, "pretrain", options=options)
    projected = move_to_device(ProjectedEncoder(build_encoder(config), config), config, DEVICE)
    trainer = Trainer(projected, make_optimizer(projected, config), config, DEVICE)
    trainer.model.train()
    return trainer


def batch_of(clips: int, size: int) -> Batch:
    """Returns a batch of noise on the device."""
    frames = torch.randint(0, 256, (clips, 10, 3, size, size), dtype=torch.uint8, device=DEVICE)
    return Batch(list(range(clips)), frames, torch.randn(clips, 10, 96, 64, device=DEVICE))


def train_once(trainer: Trainer, batch: Batch) -> None:
    """Augments a batch and trains on it."""
    trainer.step(*trainer.inputs(batch, 0))


def step(folder: Path, store: Path) -> None:
    """Measures a training step with augmentation, in clips/s, and its peak memory."""
    batch = batch_of(BATCH, 256 if ON_GPU else 36)
    ways: dict[str, dict[str, Any]] = {
        "bfloat16": {"dtype": "bfloat16"},
        "bfloat16, compiled": {"dtype": "bfloat16", "compile": ON_GPU},
        "float32 as TF32": {"dtype": "float32"},
        "bfloat16, all six augmentations": {
            "dtype": "bfloat16", "flip": True, "jitter": True, "grayscale": True, "solarize": True,
        },
    }  # fmt: skip
    targets = {"bfloat16": of_device(STEP_TARGETS), "bfloat16, compiled": of_device(COMPILED_TARGETS)}
    rates: dict[str, float] = {}
    for name, changes in ways.items():
        try:
            if ON_GPU:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            trainer = trainer_of(**changes)
            once = partial(train_once, trainer, batch)
            first = seconds_of(once, times=1, warm=0)
            rates[name] = BATCH / seconds_of(once, 5, 3)
            show(f"AV-BT step, {name}", rates[name], "clips/s", least=targets.get(name))
            show("  its first step", first, "s")
            if ON_GPU and name == "bfloat16":
                show("peak memory of it", torch.cuda.max_memory_allocated() / 2**30, "GiB", most=35)
        except (RuntimeError, AvelError) as error:  # out of memory, or nothing that compiles
            print(f"AV-BT step, {name}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
        trainer = once = None  # type: ignore[assignment]  # its memory, before the next one is made
    if {"bfloat16", "bfloat16, compiled"} <= rates.keys():
        gain = rates["bfloat16, compiled"] / rates["bfloat16"]
        show("compiled / as it is: --compile becomes the default if met", gain, "x", least=COMPILE_GAIN)


def training(folder: Path, store: Path) -> None:
    """Measures loader and training against the network alone, and the GPU's decoding of JPEG files."""
    clips = open_store(store)

    def make_loader() -> ClipLoader:
        return ClipLoader(clips, clips.staged, batch_size=BATCH, workers=8, device=DEVICE, epochs=9)

    loader = make_loader()
    epochs = iter(range(9))
    loading = CLIPS / seconds_of(lambda: sum(len(batch.clips) for batch in loader.epoch(next(epochs))))
    show("loader, 8 workers", loading, "clips/s", least=1000)
    loader.close()
    trainer = trainer_of(dtype="bfloat16")
    batch = batch_of(BATCH, clips.grid.size)
    network = BATCH / seconds_of(partial(train_once, trainer, batch), 5, 3)
    loader, epochs = make_loader(), iter(range(9))
    with Progress(10**9, "clips") as progress:
        whole = CLIPS / seconds_of(lambda: trainer.epoch(next(epochs), loader, progress))
    loader.close()
    show("training from the store", whole, "clips/s")
    show("training / slower of network and loader", whole / min(network, loading), "", least=0.9)
    if ON_GPU:
        show("JPEG engine of the GPU (1: there is one)", float(has_jpeg_engine(DEVICE)), "")
        files = [file for name in clips.staged[:16] for file in clips.jpegs(name, range(clips.grid.frames))]
        data = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        decoding = seconds_of(lambda: torchvision.io.decode_jpeg(data, ImageReadMode.RGB, device=DEVICE))
        show("JPEG files decoded by the GPU, of one call", len(data) / decoding, "frames/s", least=20000)


def caching(folder: Path, store: Path) -> None:
    """Measures `avel cache-features`, in bfloat16, and against the bare forward pass in float32."""
    clips = open_store(store)
    for dtype in ("bfloat16", "float32"):
        options = WEIGHTS | {"dtype": dtype, "workers": 16, "batch_size": 32, "device": str(DEVICE)}
        config = resolve(CacheConfig, "cache-features", options=options)
        path = folder / f"{dtype}.h5"
        once = partial(cache_features, clips.location.url, path, config, overwrite=True)
        whole = len(clips.staged) / seconds_of(once)
        work = make_request(clips, folder / "none.h5", None, config).work(Parts(folder))
        encoder = PartEncoder(work, str(DEVICE))
        batch = encoder.read((0, clips.staged[:32]))
        there = dataclasses.replace(batch, inputs={n: x.to(DEVICE) for n, x in batch.inputs.items()})
        bare = len(there.video_ids) / seconds_of(partial(encoder.encode, there), 9)
        if dtype == "bfloat16":
            show(f"caching, {dtype}, 16 workers", whole, "clips/s", least=1200)
            show(f"  so {AVE_CLIPS} clips take", AVE_CLIPS / whole, "s")
        else:
            show(f"caching, {dtype}, 16 workers", whole, "clips/s")
            show(f"  against the bare forward pass, {bare:.0f} clips/s", whole / bare, "", least=0.9)


def heads(folder: Path, store: Path) -> None:
    """Measures an epoch of trials with their scores on val and test, stacked against in turn."""
    cache = FeatureCache.open(heads_benchmark.make_cache(folder / "ave.h5", None))
    for dtype in ("float32", "bfloat16"):
        options = {"head": HEAD, "dtype": dtype, "device": DEVICE.type, "patience": 0, "epochs": 1000}
        config = resolve(TrainConfig, "train-head", options=options)
        data = read_data(cache, config, DEVICE)
        trials = [Trial(str(seed), dataclasses.replace(config, seed=seed)) for seed in range(TRIALS)]
        stacked = Training(trials, data, DEVICE)
        alone = [Training([trial], data, DEVICE) for trial in trials[:3]]
        together = seconds_of(stacked.epoch, warm=1 + EAGER_STEPS)  # after which all its graphs are captured
        in_turn = sum(seconds_of(each.epoch) for each in alone) / len(alone) * TRIALS
        show(f"{TRIALS} {HEAD} in turn / stacked, {dtype}", in_turn / together, "x", least=10)
        show("  an epoch of all, stacked", 1000 * together, "ms")
        stacked.replays = False
        show("  the same without CUDA graphs", 1000 * seconds_of(stacked.epoch), "ms")


def checkpoints(folder: Path, store: Path) -> None:
    """Measures what a checkpoint adds to an epoch of AVE's size."""
    open_store(store)
    options = TRAINING | {"device": str(DEVICE), "epochs": 5}
    pretrain(store, folder / "run", resolve(PretrainConfig, "pretrain", options=options))
    lines = Run.open(folder / "run").metrics()[1:]
    epoch = statistics.median(line["seconds"] for line in lines) * AVE_TRAIN / CLIPS
    between = statistics.median(line["seconds_between"] for line in lines)
    show(f"checkpoints, in an epoch of {AVE_TRAIN} clips", 100 * between / epoch, "%", most=5)
    show("  between two epochs", between, "s")


if __name__ == "__main__":
    sys.exit(bool(main()))
