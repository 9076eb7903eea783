"""Measures AV-BT training beside its limits: clips/s of the loader, of the network, and of both together.

    python benchmarks/pretrain.py clips.zarr --visual-weights random --audio-weights random

(a) frames only, from plain JPEG files: torch's DataLoader, one item a clip, as a script would do it
(b) avel's loader: random frames of a clip store and their log-mel patches, decoded, on the device
(c) forward, loss, backward and LARS on one batch that is already on the device, augmentation included
(d) training: (b) and (c) together, as `avel pretrain` runs them

(a) and (b) take turns, so do (c) and (d); medians. "d / limit" is (d) over the slower of (b) and (c). Printed
as well: the step's floating-point operations, the bytes that weights, gradients and momenta move, the bytes
that all operators read and write (as if no cache held them and nothing were fused), and what a large matrix
product reaches here. Options that are not listed below are those of `avel pretrain`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from step_work import step_work
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg, read_file

from avel.ahead import reading_threads
from avel.config import resolve
from avel.device import choose_dtype, tf32
from avel.pipeline.config import PretrainConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.pretraining.loader import Batch, Batches, ClipLoader, random_choices
from avel.pipeline.pretraining.projector import ProjectedEncoder
from avel.pipeline.pretraining.schedule import make_optimizer
from avel.pipeline.pretraining.settings import device_of_process
from avel.pipeline.pretraining.training import Trainer, determinism, move_to_device
from avel.progress import Progress, set_verbosity
from avel.stores.clips import ClipStore
from avel.text import table


class JpegFiles(Dataset[Tensor]):
    """Dataset of (a): one clip's random frames from a folder of JPEG files, uint8 (T, 3, H, W)."""

    def __init__(self, folder: Path, store: ClipStore, clips: int) -> None:
        self.folder, self.clips, self.grid = folder, clips, store.grid

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, clip: int) -> Tensor:
        inside = random_choices(0, 0, clip, self.grid.segments, self.grid.frames_per_segment)
        each = self.grid.frames_per_segment
        names = [self.folder / f"{clip}-{segment * each + k}.jpg" for segment, k in enumerate(inside)]
        return torch.stack([decode_jpeg(read_file(str(name)), ImageReadMode.RGB) for name in names])


class Same(Batches):
    """One batch on the device, again and again: what (c) trains on."""

    def __init__(self, batch: Batch, steps: int) -> None:
        self.batch, self.batch_size, self.clips = batch, len(batch.clips), len(batch.clips) * steps

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yields the same batch, `steps` times."""
        return iter([self.batch] * self.steps)


def rate(work: Callable[[], int], device: torch.device) -> float:
    """Returns the clips/s of `work`, which returns how many clips it did."""
    began = time.perf_counter()
    clips = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clips / (time.perf_counter() - began)


def in_turns(ways: dict[str, Callable[[], int]], rounds: int, device: torch.device) -> dict[str, float]:
    """Returns the median clips/s of each way, after one round that warms up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, work in ways.items():
            reached = rate(work, device)
            if turn:
                found[name].append(reached)
    return {name: statistics.median(rates) for name, rates in found.items()}


def drain(batches: Any, epoch: int) -> int:
    """Reads and drops all batches of an epoch; returns the clips in them."""
    return sum(len(batch.clips) for batch in batches.epoch(epoch))


def write_files(store: ClipStore, video_ids: list[str], folder: Path) -> None:
    """Writes every staged frame of some clips as a JPEG file of its own."""
    for clip, video_id in enumerate(video_ids):
        for frame, data in enumerate(store.jpegs(video_id, range(store.grid.frames))):
            (folder / f"{clip}-{frame}.jpg").write_bytes(data)


def product_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Returns the floating-point operations/s of one large matrix product, the most that a step can reach."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = 0.0
    for _ in range(5):
        best = max(best, rate(lambda: (a @ a, 1)[1], device))
    return best * 2.0 * side**3


def bytes_of_weights(trainer: Trainer) -> float:
    """Returns the fewest bytes that a step moves: weights, gradients and the optimizer's state, once each."""
    weights = sum(p.numel() * p.element_size() for p in trainer.projected.parameters() if p.requires_grad)
    kept = [value for state in trainer.optimizer.state.values() for value in state.values()]
    # each is read and written
    moved: int = 2 * weights + sum(value.numel() * value.element_size() for value in kept)
    return 2.0 * moved


def reading(store: ClipStore, loader: ClipLoader, options: argparse.Namespace) -> dict[str, Any]:
    """Measures (a) and (b), reading alone."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(store, list(loader.video_ids), Path(folder))
        files = DataLoader(
            JpegFiles(Path(folder), store, loader.clips), batch_size=loader.batch_size, shuffle=True,
            num_workers=loader.workers, persistent_workers=True,
        )  # fmt: skip
        epochs = iter(range(10**6))
        rates = in_turns(
            {
                "a plain JPEG files": lambda: sum(len(frames.to(loader.device)) for frames in files),
                "b loader": lambda: drain(loader, next(epochs)),
            },
            options.rounds,
            loader.device,
        )
    return {"clips_per_second": rates, "loader / files": rates["b loader"] / rates["a plain JPEG files"]}


def training(
    loader: ClipLoader, config: PretrainConfig, options: argparse.Namespace, loader_rate: float
) -> dict[str, Any]:
    """Measures (c) and (d), beside what a large matrix product reaches."""
    device = loader.device
    projected = move_to_device(ProjectedEncoder(build_encoder(config), config), config, device)
    trainer = Trainer(projected, make_optimizer(projected, config), config, device)
    first = next(loader.epoch(0))
    batch = Batch(first.clips, first.visual.clone(), first.audio.clone())
    same = Same(batch, loader.steps)
    with Progress(10**9, "clips") as progress:
        rates = in_turns(
            {
                "c network": lambda: (trainer.epoch(0, same, progress), same.clips)[1],
                "d training": lambda: (trainer.epoch(0, loader, progress), loader.clips)[1],
            },
            options.rounds,
            device,
        )
    work = step_work(lambda: trainer.step(*trainer.inputs(batch, 0)))
    dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    roof = product_rate(device, dtype, 8192 if device.type == "cuda" else 2048)
    steps_per_second = rates["c network"] / len(batch.clips)
    done = work.operations * steps_per_second
    return {
        "clips_per_second": rates,
        "d / limit": rates["d training"] / min(loader_rate, rates["c network"]),
        "teraflop_a_step": work.operations / 1e12,
        "gigabytes_a_step_of_weights": bytes_of_weights(trainer) / 1e9,
        "gigabytes_a_step_operators_touch": work.bytes_touched / 1e9,
        "gigabytes_a_second_operators_touch": work.bytes_touched * steps_per_second / 1e9,
        "teraflops_reached": done / 1e12,
        "teraflops_of_a_matrix_product": roof / 1e12,
        "fraction_of_the_roof": done / roof,
    }


def measure(options: argparse.Namespace, config: PretrainConfig) -> dict[str, Any]:
    """Measures reading and, unless it is left out, training."""
    device, store = device_of_process(config.device), ClipStore.open(options.store)
    loader = ClipLoader(
        store,
        store.staged[: options.clips],
        batch_size=config.batch_size,
        workers=reading_threads(config.workers),
        decode=config.decode,
        device=device,
        seed=config.seed,
    )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    found: dict[str, Any] = {
        "device": name or f"{torch.get_num_threads()} threads",
        "clips_a_step": loader.clips / loader.steps,
        **reading(store, loader, options),
    }
    if options.reading_only:
        return found
    trained = training(loader, config, options, found["clips_per_second"]["b loader"])
    rates = found.pop("clips_per_second") | trained.pop("clips_per_second")
    about = {
        "backbones": f"{config.visual.backbone.name}, {config.audio.backbone.name}",
        "dtype": config.dtype,
    }
    return {"clips_per_second": rates} | found | about | trained


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="a clip store with JPEG frames")
    parser.add_argument("--clips", type=int, default=256, help="clips to use")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count")
    parser.add_argument("--reading-only", action="store_true", help="(a) and (b) alone")
    parser.add_argument("--json", action="store_true")
    options, rest = parser.parse_known_args()
    if len(rest) % 2:
        parser.error(f"settings are pairs of --name and value: {' '.join(rest)}")
    names = [word.removeprefix("--").replace("-", "_") for word in rest[::2]]
    config = resolve(PretrainConfig, "pretrain", options=dict(zip(names, rest[1::2], strict=True)))
    set_verbosity(0)
    device = device_of_process(config.device)
    chosen: Any = choose_dtype(config.dtype, device)
    config = replace(config, dtype=chosen)
    with tf32(device), determinism(config, device):  # as `avel pretrain` runs
        found = measure(options, config)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    rates = found.pop("clips_per_second")
    frames = ClipStore.open(options.store).grid.segments
    print("\n".join(table(("way", "clips/s", "frames/s"), [(n, r, r * frames) for n, r in rates.items()])))
    print("\n".join(f"{name:<36}{value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
