"""Cross-validates settings of heads and of AV-BT: neither has seen the clips of the fold that is held out.

    python benchmarks/folds.py heads small.zarr folds --config small.toml --groups photos.csv --seeds 2
    python benchmarks/folds.py encoders small.zarr folds --config small.toml --groups photos.csv --seeds 1

`avel sweep --folds` evaluates heads on one cache, whose encoder has seen the clips of all folds. Here AV-BT
is trained for each fold, on the clips that neither choose an epoch nor are held out; test clips take no part.
The folds stay in the folder: the same command goes on where it stopped, and with more seeds adds some. Each
line is compared with the first one of its head, or with another: `--against "tacma, lr 1e-3, standardised"`.
`--lines "mlp, 100 epochs" "tacma, 100 epochs"` makes these alone, and the line they are compared with.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from last_block import WithLastBlock, activations
from numpy.typing import NDArray
from torch import Tensor

from avel.config import resolve
from avel.heads.config import TrainConfig
from avel.heads.evaluation.paired import WOULD_SHOW, WOULD_SHOW_NOTE, difference, tally
from avel.heads.evaluation.predictions import Predictions, read_predictions
from avel.heads.folds import HELD_OUT, FoldCache, deal, join_folds, read_groups, train_and_val
from avel.heads.presets import PRESETS as HEAD_PRESETS
from avel.heads.tasks.results import Spread
from avel.heads.tasks.task import Task
from avel.heads.train import LoadedCache, train_head
from avel.heads.training.data import Data, Split
from avel.heads.training.records import read_trials
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.config import CacheConfig, PretrainConfig
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.pretraining.presets import PRESETS
from avel.pipeline.pretraining.pretrain import standardise
from avel.pipeline.pretraining.projector import ProjectedEncoder
from avel.pipeline.pretraining.schedule import make_optimizer
from avel.pipeline.pretraining.training import Trainer
from avel.pipeline.pretraining.vectors import FrozenVectors, frozen_vectors
from avel.progress import Progress, note, set_verbosity
from avel.stores.clips import ClipStore
from avel.stores.datasets.labels import take
from avel.stores.features import TEMPORAL, FeatureCache
from avel.stores.runs import Run
from avel.stores.tensors import load_tensors, save_tensors
from avel.temporal import TemporalSizes
from avel.text import table

FOLDS = 5
Pair = tuple[Tensor, Tensor]

PAPER_HEAD: dict[str, Any] = {**HEAD_PRESETS["paper"], "patience": 40, "together": "never"}
"""Settings of the paper, but training ends after 40 epochs without a better one."""
FASTER: dict[str, Any] = {"lr": 1e-3, "standardise": False, "together": "never"}
STANDARD, DROP = {"standardise": True}, {"dropout": 0.5}
MLP, TACMA = FASTER | {"head": "mlp", "epochs": 60}, FASTER | {"head": "tacma", "epochs": 40}


def tried(faster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns name -> settings of one head, first the paper's, then what is tried at the higher rate."""
    paper = PAPER_HEAD | {"head": faster["head"]}
    return {
        "the paper's": paper,
        "the paper's, standardised": paper | STANDARD,
        "the paper's, standardised, 100 epochs": paper | STANDARD | {"epochs": 100},
        "the paper's, standardised, 600 epochs": paper | STANDARD | {"epochs": 600},
        "the paper's, standardised, patience 10": paper | STANDARD | {"patience": 10},
        "the paper's, standardised, no patience": paper | STANDARD | {"patience": 0},
        "lr 1e-3": faster,
        "lr 1e-3, standardised": faster | STANDARD,
        "lr 1e-3, weight decay 1e-3": faster | {"weight_decay": 1e-3},
        "lr 1e-3, dropout": faster | DROP,
        "lr 1e-3, standardised, dropout": faster | STANDARD | DROP,
    }


HEADS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "mlp": {
        **tried(MLP),
        "the paper's, dropout": PAPER_HEAD | DROP | {"head": "mlp"},
        "lr 1e-3, concatenated": MLP | {"merge": "concatenate"},
        "lr 1e-3, concatenated, standardised": MLP | STANDARD | {"merge": "concatenate"},
    },
    "tacma": {
        **tried(TACMA),
        **{
            f"lr 1e-3, {standard}theta {theta:g}": TACMA | more | {"theta": theta}
            for standard, more in (("", {}), ("standardised, ", STANDARD))
            for theta in (0.0, 0.3, 1.0)
        },
    },
}
"""Head -> name -> settings, the first of which the others of a head are compared with."""
BASE = "small"
ENCODERS: Mapping[str, Mapping[str, Any]] = {
    BASE: {},
    "middle frames alone": {"middle": True},
    "each clip's time alone": {"correlate": "clip"},
    "half of the clips": {"part": 0.5},
    "a quarter of the clips": {"part": 0.25},
    "random Bi-LSTMs": {"epochs": 0},
    "CNN vectors": {},
    "AV-BT beside CNN vectors": {},
    "25 epochs": {"epochs": 25},
    "100 epochs": {"epochs": 100},
    "200 epochs": {"epochs": 200},
    "a projector of 2048": {"projector": "2048-2048-2048"},
    "a projector of 128": {"projector": "128-128-128"},
    "separate projectors": {"shared_projector": False},
    "Bi-LSTMs of 64": {"hidden": 64},
    "Bi-LSTMs of 256": {"hidden": 256},
    "Linears of 256": {"visual_width": 256, "audio_width": 256},
    "no Linears": {"visual_width": 1280, "audio_width": 1024},
    "augmented frames": {"frozen_augment": True},
    "16 frames": {"frozen_frames": 16},
    "last block learned": {"last_block": 10},
}
"""Name -> what differs from the preset `small` at 50 epochs. `features_of` makes those named CNN vectors."""
READERS: Mapping[str, dict[str, Any]] = {
    "mlp": MLP | STANDARD,
    "tacma": TACMA | STANDARD,
    "tacma with theta 1": TACMA | STANDARD | {"theta": 1.0},
}
"""Heads that each of these encoders is evaluated with."""
TUNED = ", fine-tuned"
FINE_TUNED = (BASE, "random Bi-LSTMs", "half of the clips", "a quarter of the clips")
"""Encoders whose Bi-LSTMs are also fine-tuned with each of these heads."""
FUSING = {"avel": {"head": "avel"}, "psp": {"head": "psp"}}
"""Heads that read the CNNs' vectors, at their published settings but standardised, 10 epochs of patience."""
WIDE = ("CNN vectors", "AV-BT beside CNN vectors")
"""Features whose audio and visual widths differ, so that the MLP must concatenate them."""
FEW = ", a quarter of the labels"
FEW_LABELS = (BASE, "CNN vectors", BASE + TUNED, "random Bi-LSTMs" + TUNED)
"""Features and weights for heads that learn from a quarter of the train samples, in as many steps."""
EPOCHS = 50
TUNING = {"warmup_epochs": 1, "lr_scale_backbone": 0.1}
"""Settings of the epochs in which the last block learns."""
SHOWN = ("accuracy", "event_f1")


@dataclasses.dataclass(frozen=True)
class Clips:
    """Vectors of all videos of a store, and the samples of train and val with their folds.

    Attributes:
        middle: cnn_a (V, T, Da), cnn_v (V, T, Dv) of the middle frames, which features are made from.
        drawn: k, whether each frame is augmented -> cnn_a (V, T, Da), cnn_v (V, T, k, Dv), which AV-BT learns
            from; zeros for test videos.
        activations: k -> what the last block of MobileNetV2 reads of k frames, (V, T, k, 160, 7, 7).
        fold: (R,) fold of each sample.
        group_of: video -> group, which stays in one fold.
    """

    cache: LoadedCache
    config: PretrainConfig
    middle: Pair
    drawn: Callable[[int, bool], Pair]
    activations: Callable[[int], Tensor]
    samples: Split
    fold: NDArray[np.int64]
    group_of: Mapping[str, str]
    task: Task


def read_clips(store: Path, out: Path, config: PretrainConfig, groups: Path) -> Clips:
    """Computes the CNNs' vectors once, and deals samples to folds by groups."""
    visual, audio = config.visual, config.audio
    caching = CacheConfig(keep_cnn=True, visual=visual, audio=audio)
    cache_features(store, out / "cnn.h5", caching)
    encoder, clips = build_encoder(config), ClipStore.open(store)
    cache = FeatureCache.open(out / "cnn.h5")
    places = np.arange(len(cache.video_ids))
    middle = torch.from_numpy(cache.read("cnn_a", places)), torch.from_numpy(cache.read("cnn_v", places))
    splits = clips.dataset.split_of_video()
    known = [place for place, name in enumerate(cache.video_ids) if {"train", "val"} & {*splits[name]}]
    names = [cache.video_ids[place] for place in known]

    @lru_cache(2)
    def drawn(frames: int, augmented: bool) -> Pair:
        augmentation = config.augmentation if augmented else None
        some = frozen_vectors(encoder, clips, names, frames, out / "vectors", augmentation)
        audio, visual = (each.new_zeros(len(places), *each.shape[1:]) for each in some)
        audio[torch.tensor(known)], visual[torch.tensor(known)] = some
        return audio, visual

    @lru_cache(2)
    def read_by_last_block(frames: int) -> Tensor:
        path = out / f"activations-{frames}.safetensors"
        if not path.exists():
            save_tensors(path, {"visual": activations(encoder, clips, names, frames)})
        some = load_tensors(path, f"remove {path}")[0]["visual"]
        every = some.new_zeros(len(places), *some.shape[1:])
        every[torch.tensor(known)] = some
        return every

    loaded = LoadedCache.open(out / "cnn.h5", "cpu")
    data = loaded.data(resolve(TrainConfig, "train-head", options=MLP | {"merge": "concatenate"}))
    samples = train_and_val(data)
    group_of = read_groups(groups, samples.video_id)
    fold = deal(np.array([group_of[video] for video in samples.video_id]), samples, FOLDS, 0)
    return Clips(loaded, config, middle, drawn, read_by_last_block, samples, fold, group_of, data.task)


def avbt(
    clips: Clips, fold: int, seed: int, middle: bool = False, part: float = 1, **options: Any
) -> tuple[Pair, dict[str, Tensor]]:
    """Trains AV-BT without two folds -> f_a, f_v of all videos, (V, T, D), and the weights after its CNNs.

    With 0 `epochs` these stay random. In `last_block` more epochs the last block of MobileNetV2 learns too.
    """
    epochs, more_epochs = options.pop("epochs", EPOCHS), options.pop("last_block", 0)
    config = resolve(
        PretrainConfig,
        "pretrain",
        base=clips.config,
        options={"seed": seed, "epochs": epochs or 1, **options},
    )
    learned = (clips.fold != fold) & (clips.fold != (fold + 1) % FOLDS)
    videos = np.unique(clips.samples.videos.numpy()[learned])
    chosen = np.random.default_rng(seed).permutation(videos)[: round(part * len(videos))]
    place = torch.from_numpy(np.sort(chosen) if part < 1 else videos)
    if middle:
        audio, visual = (each[place].half() for each in clips.middle)
        visual = visual.unsqueeze(2)
    else:
        drawn = clips.drawn(config.frozen.frames, config.frozen.augment)
        audio, visual = (each[place] for each in drawn)
    encoder = build_encoder(config)
    projected = ProjectedEncoder(encoder, config)
    standardise(encoder, audio, visual, None)
    together = config.frozen.augment and config.augmentation.augment_per == "clip"
    batches = FrozenVectors(audio, visual, batch_size=config.batch_size, seed=seed, together=together)
    train(projected, batches, config, epochs)
    if more_epochs:
        return tune(clips, projected, place, more_epochs, config), encoder.temporal.state_dict()
    encoder.eval()
    with torch.inference_mode():
        f_a, f_v = encoder.temporal(*(each.float() for each in clips.middle))
    return (f_a.clone(), f_v.clone()), encoder.temporal.state_dict()


def train(projected: ProjectedEncoder, batches: FrozenVectors, config: PretrainConfig, epochs: int) -> None:
    """Trains for some epochs."""
    trainer = Trainer(projected, make_optimizer(projected, config), config, torch.device("cpu"))
    with Progress(epochs * batches.clips, "clips", of="AV-BT") as progress:
        for number in range(epochs):
            trainer.epoch(number, batches, progress)


def tune(
    clips: Clips, projected: ProjectedEncoder, place: Tensor, epochs: int, config: PretrainConfig
) -> Pair:
    """Continues on the videos at `place`, with the last block -> f_a, f_v of all videos, (V, T, D)."""
    config = resolve(PretrainConfig, "pretrain", base=config, options={"epochs": epochs} | TUNING)
    tuned = WithLastBlock(projected.encoder, config)
    tuned.projector.load_state_dict(projected.projector.state_dict())
    audio, visual = clips.middle[0][place], clips.activations(config.frozen.frames)[place]
    train(tuned, FrozenVectors(audio, visual, batch_size=config.batch_size, seed=config.seed), config, epochs)
    tuned.eval()
    with torch.inference_mode():
        middle = torch.cat(
            [tuned.vectors(part[:, :, 0].float()) for part in torch.split(clips.activations(1), 16)]
        )
        f_a, f_v = tuned.encoder.temporal(clips.middle[0].float(), middle)
    return f_a.clone(), f_v.clone()


class Unseen(FoldCache):
    """One fold, with features of an encoder that was trained without it; or weights, to be fine-tuned.

    With `few_seed` heads learn from a quarter of the train samples, which are drawn with this seed.
    """

    def __init__(
        self,
        clips: Clips,
        fold: int,
        features: Pair,
        name: str,
        temporal: Mapping[str, Tensor],
        few_seed: int | None = None,
    ) -> None:
        super().__init__(clips.cache, clips.fold, fold, FOLDS)
        self.features, self.temporal, self.few_seed = features, temporal, few_seed
        self.fold = f"{self.fold}, {name}"

    def read(self, config: TrainConfig) -> Data:
        """Reads the samples of the cache, with these features in the place of its own."""
        data, (audio, visual) = super().read(config), self.features
        widths = dataclasses.replace(
            data.widths,
            audio=audio.shape[-1],
            visual=visual.shape[-1],
            temporal=TemporalSizes.of(self.temporal) if self.temporal else None,
        )
        features = dataclasses.replace(data.features, tensors=self.features)
        if self.few_seed is not None:
            train = data.splits["train"]
            drawn = np.random.default_rng(self.few_seed).permutation(len(train))[: len(train) // 4]
            data.splits["train"] = take(train, np.sort(drawn))
        return dataclasses.replace(data, features=features, widths=widths, temporal=self.temporal)


def features_of(clips: Clips, out: Path, name: str, fold: int, seed: int) -> Pair:
    """Returns features of all videos for one fold, kept in `out`; f_a and f_v, or others that heads read."""
    if name == "CNN vectors":
        return clips.middle
    if name == "AV-BT beside CNN vectors":
        pairs = zip(features_of(clips, out, BASE, fold, seed), clips.middle, strict=True)
        f_a, f_v = (torch.cat(pair, -1) for pair in pairs)
        return f_a, f_v
    kept = encoded(clips, out, name, fold, seed)
    return kept["f_a"], kept["f_v"]


def encoded(clips: Clips, out: Path, name: str, fold: int, seed: int) -> dict[str, Tensor]:
    """Returns f_a and f_v of all videos for one fold, and the weights after the CNNs as "temporal.NAME"."""
    path = out / "features" / name.replace(" ", "-") / f"{fold}-{seed}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        (f_a, f_v), state = avbt(clips, fold, seed, **ENCODERS[name])
        weights = {TEMPORAL + name: values for name, values in state.items()}
        save_tensors(path, {"f_a": f_a, "f_v": f_v, **weights})
    return load_tensors(path, f"remove {path}")[0]


def weights_of(clips: Clips, out: Path, name: str, fold: int, seed: int) -> dict[str, Tensor]:
    """Returns the weights after the CNNs of the encoder for one fold."""
    kept = encoded(clips, out, name, fold, seed)
    return {name.removeprefix(TEMPORAL): each for name, each in kept.items() if name.startswith(TEMPORAL)}


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """Predictions of a head for all samples, once for each seed, and the mean of its best epochs."""

    items: tuple[Predictions, ...]
    epoch: float


def evaluate_folds(
    clips: Clips, out: Path, seeds: int, source: str, name: str, settings: Mapping[str, Any]
) -> Evaluated:
    """Trains a head on every fold with every seed, and evaluates it on the fold that it has not seen.

    `source` is the name of an encoder, which may end in `TUNED`, `FEW` or both.
    """
    items, epochs = [], []
    few, encoder = source.endswith(FEW), source.removesuffix(FEW)
    tuned, encoder = encoder.endswith(TUNED), encoder.removesuffix(TUNED)
    for seed in range(seeds):
        parts = []
        for fold in range(FOLDS):
            features = clips.middle if tuned else features_of(clips, out, encoder, fold, seed)
            weights = weights_of(clips, out, encoder, fold, seed) if tuned else {}
            path = out / "heads" / f"{source}, {name}".replace(" ", "-") / f"{fold}-{seed}"
            note(f"== {source}, {name}, fold {fold}, seed {seed}")
            unseen = Unseen(clips, fold, features, f"{encoder} {seed}", weights, seed if few else None)
            train_head(unseen, path, resolve(TrainConfig, "train-head", options=settings), seed=seed)
            run = Run.open(path, "heads")
            parts.append(read_predictions(run)[HELD_OUT][0])
            epochs.append(read_trials(run)[0].best_epoch)
        items.append(join_folds(parts, clips.group_of))
    return Evaluated(tuple(items), float(np.mean(epochs)))


def lines(task: Task, found: Mapping[str, Evaluated], against: Evaluated) -> list[str]:
    """Returns a table of settings, each beside its difference to `against`."""
    rows, base = [], tally(against.items, task)
    for name, each in found.items():
        of_metric = tally(each.items, task)
        figures = [str(Spread.of_fractions(of_metric[metric].value)) for metric in SHOWN]
        differences = ["", "", ""]
        if each is not against:
            differ = [difference(of_metric[key], base[key], each.items[0].video_id) for key in SHOWN]
            differences = [*map(str, differ), differ[0].needed]
        rows.append((name, *figures, f"{each.epoch:.0f}", *differences))
    compared = [f"{metric.replace('_f1', ' F1')} - first" for metric in SHOWN]
    return table(("", "accuracy", "event F1", "best epoch", *compared, WOULD_SHOW), rows)


def main() -> None:
    """Prints a table for each head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["heads", "encoders"])
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, required=True, help="TOML with the CNNs of avel pretrain")
    parser.add_argument("--groups", type=Path, required=True, help="CSV of video_id,group")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--against", default="", help="HEAD, NAME to compare with; default: a head's first")
    parser.add_argument("--lines", nargs="+", default=(), help="these lines alone, as HEAD, NAME")
    given = parser.parse_args()
    set_verbosity(1)
    asked: dict[str, tuple[str, str, Mapping[str, Any]]] = {}
    heads = list(HEADS if given.what == "heads" else READERS)
    if given.what == "heads":
        for head, settings in HEADS.items():
            asked |= {f"{head}, {name}": (BASE, f"{head}, {name}", each) for name, each in settings.items()}
    else:
        for head, usual in READERS.items():
            wide = usual | ({"merge": "concatenate"} if head == "mlp" else {})
            asked |= {f"{head}, {name}": (name, head, wide if name in WIDE else usual) for name in ENCODERS}
            asked |= {f"{head}, {name}{TUNED}": (name + TUNED, head, usual) for name in FINE_TUNED}
            for name in FEW_LABELS:
                settings = wide if name in WIDE else usual
                longer = settings | {"epochs": 2 * settings["epochs"]}  # an epoch is one batch, not two
                asked |= {f"{head}, {name}{FEW}": (name + FEW, head, longer)}
        patient = STANDARD | {"patience": 10, "together": "never"}
        asked |= {
            f"{head}, CNN vectors": ("CNN vectors", head, each | patient) for head, each in FUSING.items()
        }
    for line in (given.against, *given.lines):
        if line not in ("", *asked):
            parser.error(f"{line!r} is none of: {'; '.join(asked)}")
    config = resolve(PretrainConfig, "pretrain", preset=PRESETS["small"], file=given.config)
    clips = read_clips(given.store, given.out, config, given.groups)
    firsts = [next(line for line in asked if line.startswith(f"{head}, ")) for head in heads]
    wanted = {*given.lines, *([given.against] if given.against else firsts)} if given.lines else {*asked}
    found = {
        line: evaluate_folds(clips, given.out, given.seeds, *each)
        for line, each in asked.items()
        if line in wanted
    }
    for head in (*heads, *FUSING):
        of_head = {line: each for line, each in found.items() if line.startswith(f"{head}, ")}
        if not of_head:
            continue
        against = given.against or (next(iter(of_head)) if head in heads else firsts[-1])
        below = [f"first: {against}", WOULD_SHOW_NOTE, ""]
        print("\n".join([*lines(clips.task, of_head, found[against]), *below]))


if __name__ == "__main__":
    main()
