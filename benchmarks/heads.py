"""Times training of heads at AVE's size: 4143 samples of 4097 videos, 10 segments, 256 features, K = 29.

    python benchmarks/heads.py limit loop trials busy    # each against its baseline, taken in turns
    python benchmarks/heads.py accuracy --cache ave.h5    # float32 and bfloat16, test accuracy of both

limit     training epochs of TACMA against the bare matrix products of the same shapes, forward and backward
loop      the same epochs against a DataLoader loop in the style of published code on the same HDF5 file
trials    20 trials stacked against the same in turn, epochs with their scores on val and test
busy      such epochs of a small and a large head while another process fills one core, against none
zoo       every head at AVE's size, vectors and maps, against the bare products of its layers (heads_zoo.py)
accuracy  what bfloat16 does to the test accuracy

Features are made up (class prototypes and noise) unless --cache is given; with --annotations (AVE's folder)
labels and splits are AVE's. --clock cpu counts processor time of one thread, for machines that are not quiet.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from heads_baselines import PlainLoop, bare_products
from heads_zoo import zoo

from avel.config import resolve
from avel.device import choose_device, tf32
from avel.heads.config import HEADS, TrainConfig
from avel.heads.train import train_head
from avel.heads.training.data import Data, read_data
from avel.heads.training.fit import Training
from avel.heads.training.trials import Trial
from avel.progress import set_verbosity
from avel.stores.cached_samples import CachedSamples
from avel.stores.datasets.formats import read_dataset
from avel.stores.datasets.labels import ClassTable, EventsOnGrid, EventTable
from avel.stores.feature_samples import samples_of_videos
from avel.stores.features import FeatureCache, write_features
from avel.text import table

SAMPLES, VIDEOS, SEGMENTS, WIDTH, EVENTS = 4143, 4097, 10, 256, 28
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Epoch = Callable[[], Any]


def main() -> None:
    """Runs the parts that were named, prints a table, and JSON where asked."""
    options = _options()
    set_verbosity(0)
    torch.set_num_threads(1 if options.clock == "cpu" else options.threads or torch.get_num_threads())
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    heads = options.heads.split(",") if options.heads else list(HEADS)
    inputs = [options.inputs] if options.inputs else ["vectors", "maps"]
    found = zoo(heads, options.minutes, options.rounds, clock, inputs) if "zoo" in options.parts else []
    if options.parts != ["zoo"]:
        found += of_cache(options)
    if options.json:
        print(json.dumps({"results": found, "threads": torch.get_num_threads(), "clock": options.clock}))
        return
    header = ("part", "what", "against", "seconds", "baseline seconds", "baseline / what")
    print("\n".join(table(header, [tuple(line[key] for key in header) for line in found])))


def of_cache(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs the parts that read a cache."""
    with tempfile.TemporaryDirectory() as folder, tf32(choose_device(options.device)):
        cache = options.cache or make_cache(Path(folder) / "ave.h5", options.annotations)
        parts = {"limit": limit, "loop": loop, "trials": trials, "busy": busy}
        found = [line for name in options.parts if name in parts for line in parts[name](cache, options)]
        if "accuracy" in options.parts:
            found += accuracy(cache, Path(folder), options)
    return found


def limit(cache: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Times a TACMA epoch against its bare products, in each dtype; and bfloat16 against float32."""
    epochs: dict[str, Epoch] = {}
    for name, dtype in DTYPES.items():
        epochs[f"tacma {name}"] = training_epoch_of(cache, [0], options, dtype=name)
        epochs[f"products {name}"] = bare_epoch(cache, dtype)
    seconds = in_turns(epochs, options)
    pairs = [(f"tacma {name}", f"products {name}") for name in DTYPES]
    return [compared("limit", *pair, seconds) for pair in [*pairs, ("tacma bfloat16", "tacma float32")]]


def loop(cache: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Times a TACMA epoch against the published style of loop, without and with two loading processes."""
    opened = FeatureCache.open(cache)
    width = opened.shapes["f_a"][-1]
    epochs = {f"tacma {name}": training_epoch_of(cache, [0], options, dtype=name) for name in DTYPES}
    workers = (0,) if options.clock == "cpu" else (0, 2)  # a child's processor time is not counted
    for count in workers:
        epochs[f"loop, {count} workers"] = PlainLoop(cache, width, opened.classes, count).epoch
    seconds = in_turns(epochs, options)
    best = min(
        (f"loop, {count} workers" for count in workers), key=lambda name: statistics.median(seconds[name])
    )
    return [compared("loop", f"tacma {name}", best, seconds) for name in DTYPES]


def trials(cache: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Times M trials at once against the same in turn: a large head, a small one, small batches."""
    found = []
    for head, batch in (("tacma", 128), ("tacma", 16), ("mlp", 128)):
        seeds = list(range(options.trials))
        stacked = epoch_of(cache, seeds, options, head=head, batch_size=batch)
        alone = [epoch_of(cache, [seed], options, head=head, batch_size=batch) for seed in seeds]
        epochs: dict[str, Epoch] = {"stacked": stacked, "in turn": partial(run_all, alone)}
        line = compared("trials", "stacked", "in turn", in_turns(epochs, options))
        found.append(line | {"what": f"{len(seeds)} {head} batch {batch}, stacked"})
    return found


def run_all(epochs: list[Epoch]) -> None:
    """Runs one after another."""
    for epoch in epochs:
        epoch()


def busy(cache: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Times an epoch beside a process that fills one core, for a head of small and one of large steps."""
    epochs: dict[str, Epoch] = {}
    for head in ("mlp", "tacma"):
        alone = epoch_of(cache, [0], options, head=head)
        epochs |= {f"{head}, quiet": alone, f"{head}, one core taken": beside_a_busy_process(alone)}
    seconds = in_turns(epochs, options)
    return [
        compared("busy", f"{head}, one core taken", f"{head}, quiet", seconds) for head in ("mlp", "tacma")
    ]


def beside_a_busy_process(epoch: Epoch) -> Epoch:
    """Returns the same epoch, run while another process computes without a pause."""

    def run() -> None:
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
            epoch()
            other.kill()

    return run


def accuracy(cache: Path, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures test accuracy at the best validation epoch in both dtypes.

    Percents stand where the table says seconds.
    """
    means: dict[str, float] = {}
    for name in DTYPES:
        settings = {"seeds": options.seeds, "epochs": options.epochs, "device": options.device, "dtype": name}
        results = train_head(cache, folder / name, resolve(TrainConfig, "train-head", options=settings))
        measured = results.groups["tacma"].accuracy_percent
        assert measured is not None, "test samples without labels"
        assert measured.mean is not None
        means[name] = measured.mean
    line = {"part": "accuracy, %", "what": "tacma bfloat16", "against": "tacma float32"}
    ratio = means["float32"] / means["bfloat16"]
    return [
        line | {"seconds": means["bfloat16"], "baseline seconds": means["float32"], "baseline / what": ratio}
    ]


def epoch_of(cache: Path, seeds: list[int], options: argparse.Namespace, **settings: Any) -> Epoch:
    """Returns a function that trains the trials one epoch more and scores them on val and test."""
    return training_of(cache, seeds, options, **settings).epoch


def training_epoch_of(cache: Path, seeds: list[int], options: argparse.Namespace, **settings: Any) -> Epoch:
    """Returns a function that trains one epoch more without scores: gather, forward, backward, Adam."""
    training = training_of(cache, seeds, options, **settings)
    return lambda: training.train_epoch(1).tolist()  # which waits for the device


def training_of(cache: Path, seeds: list[int], options: argparse.Namespace, **settings: Any) -> Training:
    """Returns trials that are trained together, on data that is loaded once."""
    config = resolve(TrainConfig, "train-head", options={"device": options.device, "epochs": 1000} | settings)
    device = choose_device(config.device)
    if (key := (cache, device)) not in _loaded:
        _loaded[key] = read_data(FeatureCache.open(cache), config, device)
    group = [Trial(str(seed), dataclasses.replace(config, seed=seed)) for seed in seeds]
    return Training(group, _loaded[key], device)


_loaded: dict[tuple[Path, torch.device], Data] = {}


def bare_epoch(cache: Path, dtype: torch.dtype, batch: int = 128) -> Epoch:
    """Returns a function that does the products of all batches of one epoch, the last one smaller."""
    opened = FeatureCache.open(cache)
    samples = int((opened.samples.split == "train").sum())
    sizes = (opened.grid_segments, opened.shapes["f_a"][-1], opened.classes, dtype)
    whole, rest = bare_products(batch, *sizes), bare_products(samples % batch or batch, *sizes)

    def epoch() -> None:
        for _ in range(samples // batch):
            whole()
        if samples % batch:
            rest()

    return epoch


def in_turns(epochs: dict[str, Epoch], options: argparse.Namespace) -> dict[str, list[float]]:
    """Times each epoch in turn, A B A B ..., after one of each to warm up; returns the seconds."""
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for turn in range(options.rounds + 1):
        for name, epoch in epochs.items():
            began = clock()
            epoch()
            if turn:
                seconds[name].append(clock() - began)
    return seconds


def compared(part: str, what: str, against: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Returns a line of the table: medians of both, and the median of their ratio turn by turn."""
    ratios = [base / own for own, base in zip(seconds[what], seconds[against], strict=True)]
    return {
        "part": part,
        "what": what,
        "against": against,
        "seconds": statistics.median(seconds[what]),
        "baseline seconds": statistics.median(seconds[against]),
        "baseline / what": statistics.median(ratios),
    }


def make_cache(path: Path, annotations: Path | None) -> Path:
    """Writes a cache of AVE's size: a vector for each class, and noise that leaves some segments unclear."""
    random = np.random.default_rng(0)
    samples = _ave_samples(annotations) if annotations else _made_up_samples(random)
    classes = tuple(map(str, range(EVENTS)))
    label = EventsOnGrid(samples.known, samples.events, classes, SEGMENTS, 1.0, str, None).labels()
    label_of_video = np.full((VIDEOS, SEGMENTS), EVENTS)
    label_of_video[samples.video] = label
    arrays = {}
    for name in ("f_a", "f_v"):
        prototypes = random.normal(size=(EVENTS + 1, WIDTH)).astype(np.float32)
        noise = random.normal(size=(VIDEOS, SEGMENTS, WIDTH)).astype(np.float32)
        arrays[name] = 0.1 * prototypes[label_of_video] + 0.5 * noise
    ids = tuple(f"video {number}" for number in range(VIDEOS))
    names = tuple(f"event {number}" for number in range(EVENTS))
    write_features(path, video_ids=ids, categories=names, samples=samples, arrays=arrays)
    return path


def _ave_samples(folder: Path) -> CachedSamples:
    """Reads AVE's own samples, events and splits."""
    dataset = read_dataset(folder)
    samples, _ = samples_of_videos(dataset, tuple(video.video_id for video in dataset.videos), {})
    return samples


def _made_up_samples(random: np.random.Generator) -> CachedSamples:
    """Makes samples and splits of AVE's sizes; two thirds of the events last the whole clip, as in AVE."""
    offset = np.where(random.random(SAMPLES) > 2 / 3, random.integers(0, SEGMENTS, SAMPLES), SEGMENTS)
    category = random.integers(0, EVENTS, SAMPLES)
    onset, both = np.zeros(SAMPLES), np.zeros(SAMPLES, np.int64)
    events = EventTable(np.arange(SAMPLES), category, onset, offset.astype(np.float64), both)
    return CachedSamples(
        number=np.arange(SAMPLES),
        video=np.arange(SAMPLES) % VIDEOS,
        split=np.array(["train"] * 3339 + ["val"] * 402 + ["test"] * 402, object),
        leaked=np.zeros(SAMPLES, bool),
        known=np.ones(SAMPLES, bool),
        events=events,
        tag=np.full(SAMPLES, "", object),
        classes=ClassTable(np.zeros(SAMPLES, bool), *np.zeros((2, 0), np.int64)),
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("limit", "loop", "trials", "busy", "zoo", "accuracy"))
    parser.add_argument("--cache", type=Path, help="a real feature cache in the place of the made-up one")
    parser.add_argument("--annotations", type=Path, help="folder of AVE's annotation files")
    parser.add_argument("--rounds", type=int, default=7, help="turns; medians are shown")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3, help="of accuracy")
    parser.add_argument("--epochs", type=int, default=100, help="of accuracy")
    parser.add_argument("--device", default="cpu", help="of heads; products and loop are on the CPU")
    parser.add_argument("--heads", default="", help="of zoo, separated by commas; all unless given")
    parser.add_argument("--inputs", choices=("vectors", "maps"), help="of zoo; vectors first unless given")
    parser.add_argument("--minutes", type=float, default=6, help="of zoo; what is left then has no figures")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
