"""Trains trials of one architecture side by side, each with its own data order, best epoch and end."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from avel.device import explain_full_memory, tf32
from avel.heads.config import HeadConfig, TrainConfig
from avel.heads.models.head import Model, build_model, head_class
from avel.heads.training.data import Data, Features, Split
from avel.heads.training.graphs import ReplayedStep
from avel.heads.training.start import start_from
from avel.heads.training.trials import Alone, Stacked, Trial, TrialFigures
from avel.memory import reuse_freed_memory
from avel.nn import mask_of
from avel.progress import Progress
from avel.text import plural

CLIPS_AT_ONCE = 512
"""Clips scored in one pass, summed over stacked trials; in training more, if a GPU holds all inputs."""
GPU_INPUT_BYTES = 2**31
"""Most bytes of float32 inputs in one forward pass on a GPU; M stacked trials count each input M times."""
SMALL_STEP_FLOP = 1e9
"""Operations of a training step below which a CPU spends more time on calling torch than on computing."""
MEMORY_HINT = "name a smaller --batch-size, or --together never"
Log = Callable[[dict[str, Any]], None]


@dataclass(eq=False)
class TrialOutcome(TrialFigures):
    """One trial in training or after it; `state` has weights and buffers at the best validation epoch."""

    trial: Trial
    state: dict[str, Tensor] = field(default_factory=dict)


def fit(
    trials: Sequence[Trial],
    data: Data,
    device: torch.device,
    log: Log,
    ended: Callable[[TrialOutcome], None] = lambda outcome: None,
) -> list[TrialOutcome]:
    """Trains trials side by side, and returns each at its best validation epoch.

    Their configs may differ in the seed and in the settings that the head has as buffers. Each result is that
    of training the trial alone, up to rounding. `ended` is called with each trial when its training ends.

    Raises:
        DeviceMemoryError: a step does not fit on the GPU.
    """
    config = trials[0].config
    which = f"seed {config.seed}" if len(trials) == 1 else f"{len(trials)} trials"
    own_random = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with own_random, tf32(device), explain_full_memory(MEMORY_HINT):
        torch.manual_seed(config.seed)  # for dropout and noise, which stacked heads lack
        training = Training(trials, data, device)
        with Progress(config.head.epochs, "epochs", of=f"{config.head.name}, {which}") as progress:
            while training.alive:
                trained = training.alive
                lines = training.epoch()
                for line in lines:
                    log(line)
                for outcome in trained:
                    if outcome not in training.alive:
                        ended(outcome)
                left = f", {plural(len(lines), 'trial')} left" if len(lines) < len(trials) else ""
                best = max((line.get("val_score", 0.0) for line in lines), default=0.0)
                progress.advance(note=f"val {best:.4f}{left}")
    return training.outcomes


class Training:
    """State of training between epochs: trials that still train, their optimizer, their data orders.

    Attributes:
        last_gain: trial -> the last epoch with a new best val score; `patience` counts from it.
    """

    def __init__(self, trials: Sequence[Trial], data: Data, device: torch.device) -> None:
        reuse_freed_memory()
        self.data, self.device, self.config = data, device, trials[0].config
        self.train_samples, self.targets = data.training(self.config)
        self.by_videos = self.config.selects_by_videos(data.task.name)
        self.outcomes = [TrialOutcome(trial) for trial in trials]
        self.alive = list(self.outcomes)
        self.last_gain = dict.fromkeys(self.outcomes, 0)
        models = [make_model(trial, data) for trial in trials]
        self.group = Stacked(models, device) if len(models) > 1 else Alone(models[0], device)
        small = step_flop(models, self.config, data) < SMALL_STEP_FLOP
        self.threads = 1 if small else torch.get_num_threads()
        self.orders = [torch.Generator().manual_seed(trial.config.seed) for trial in trials]
        self.total_losses = torch.zeros(len(trials), device=device)
        self.replays = can_replay(self.group, data.features, device)
        self.optimizer = torch.optim.Adam(
            self.group.parameters(),
            weight_decay=self.config.head.weight_decay,
            fused=True,
            capturable=self.replays,
        )
        if self.replays:  # a tensor: a captured graph reads the rate from its memory
            self.optimizer.param_groups[0]["lr"] = torch.zeros((), device=device)
        self._replayed: dict[int, ReplayedStep] = {}

    def epoch(self) -> list[dict[str, Any]]:
        """Trains one epoch, measures val and test, drops trials that end; returns a log line of each."""
        number = self.alive[0].epochs + 1
        began = time.perf_counter()
        losses = self.train_epoch(number).tolist()
        seconds = (time.perf_counter() - began) / len(self.alive)
        self.group.train(False)
        val, *tests = (self.score(split) for split in self.evaluated_splits())
        test = tests[0] if tests else None
        lines = []
        for place, outcome in enumerate(self.alive):
            outcome.epochs = number
            outcome.train_seconds += seconds
            line = {"trial": outcome.trial.name, "epoch": number, "loss": losses[place]}
            if not math.isfinite(losses[place]):
                outcome.failure = f"the loss is {losses[place]} in epoch {number}"
                lines.append(line | {"loss": None, "failure": outcome.failure})
            elif math.isnan(val[place] + (test[place] if test else 0)):  # the last step spoiled the weights
                outcome.failure = f"the scores are not finite after epoch {number}"
                lines.append(line | {"failure": outcome.failure})
            else:
                measured = {"val_score": val[place]} | ({"test_score": test[place]} if test else {})
                self._record(place, outcome, **measured)
                lines.append(line | measured)
        self._drop([place for place, outcome in enumerate(self.alive) if self._done(outcome)])
        return lines

    def train_epoch(self, number: int, steps: int | None = None) -> Tensor:
        """Trains one epoch, or `steps` of it, and returns the mean loss of each trial: -> (M,)."""
        rate, parameters = learning_rate(self.config.head, number), self.optimizer.param_groups[0]
        parameters["lr"] = parameters["lr"].fill_(rate) if self.replays else rate
        self.group.train(True)
        self.group.begin_epoch(number)
        train = self.train_samples
        order = torch.stack([torch.randperm(len(train), generator=random) for random in self.orders])
        rows = torch.split(order.to(self.device), self.config.head.batch_size, 1)[:steps]
        self.total_losses.zero_()
        with cpu_threads(self.threads):
            if self.replays:
                for chunk in rows:
                    self._replayed_step(chunk.shape[1])(chunk)
            else:
                features, videos = self.data.features, [train.videos[chunk] for chunk in rows]
                batches = zip(rows, videos, features.batches(videos), strict=True)
                for chunk, chosen, (audio, visual) in batches:
                    self._step(audio, visual, self.targets[chunk], features.lengths_of(chosen))
        return self.total_losses / len(train)

    def _replayed_step(self, size: int) -> ReplayedStep:
        """Returns the step on batches of this size; the last batch of an epoch has one of its own."""

        def step(rows: Tensor) -> None:
            features, videos = self.data.features, self.train_samples.videos[rows]
            self._step(*features.of(videos), self.targets[rows], features.lengths_of(videos))

        if size not in self._replayed:
            self._replayed[size] = ReplayedStep(step, self.device)
        return self._replayed[size]

    def _step(self, audio: Tensor, visual: Tensor, targets: Tensor, lengths: Tensor | None) -> None:
        """Trains on a batch: (M, B, T, ...) twice, (M, B, ...), (M, B); adds to `total_losses`."""
        with arithmetic(self.config, self.device):
            losses = self.group.losses(audio, visual, targets, lengths)
        for weight in self.group.parameters():  # optimizer.zero_grad takes five times as long
            weight.grad = None
        losses.backward(torch.ones_like(losses))  # type: ignore[no-untyped-call]
        if self.config.head.clip_norm:
            self.group.clip(self.config.head.clip_norm)
        self.optimizer.step()
        self.total_losses += losses.detach() * targets.shape[1]

    def _clips_at_once(self) -> int:
        """Returns how many clips are scored in one pass: what suits a CPU's caches, or what fits on a GPU."""
        if self.device.type == "cpu":
            return max(1, CLIPS_AT_ONCE // len(self.alive))
        widths, features = self.data.widths, self.data.features
        numbers = widths.segments * (widths.audio + widths.visual * max(1, widths.cells))
        most = CLIPS_AT_ONCE if features.tensors is None else len(features.tensors[0])
        return max(1, min(most, GPU_INPUT_BYTES // (4 * numbers * len(self.alive))))

    def evaluated_splits(self) -> list[Split]:
        """Returns val, and test where the events of any of its samples are known."""
        test = self.data.splits.get("test")
        return [self.data.splits["val"], *([test] if test is not None and test.known.any() else [])]

    def score(self, split: Split) -> list[float]:
        """Returns the main metric of each trial, a fraction; NaN where its logits are not finite.

        If the epoch is chosen by videos, the metric on val is that of the labels of whole videos.
        """
        by_videos = self.by_videos and split is self.data.splits["val"]
        points = torch.zeros(len(self.alive), dtype=torch.float64, device=self.device)
        known = torch.from_numpy(split.has_video_label if by_videos else split.known).to(self.device)
        chunks = torch.split(torch.arange(len(split), device=self.device), self._clips_at_once())
        features = self.data.features
        inputs = features.batches([split.videos[chunk] for chunk in chunks])
        for chunk, (audio, visual) in zip(chunks, inputs, strict=True):
            lengths = features.lengths_of(split.videos[chunk])
            with torch.no_grad(), arithmetic(self.config, self.device):
                logits = self.group.logits(audio, visual, lengths)
            if by_videos:
                mask = None if lengths is None else mask_of(lengths, logits.shape[-2])
                each = self.data.task.video_points(logits, split.video_labels[chunk], mask)
            else:
                each = self.data.task.points(logits, split.labels[chunk])
            counts = (each * known[chunk]).sum(-1, dtype=torch.float64)
            points += torch.where(logits.isfinite().flatten(1).all(1), counts, math.nan)
        full = known.sum() if by_videos else (self.data.task.full_points(split.labels) * known).sum()
        scores: list[float] = (points / full).tolist()
        return scores

    def _record(
        self, place: int, outcome: TrialOutcome, val_score: float, test_score: float | None = None
    ) -> None:
        """Records scores; copies the weights if the score on val is the best so far."""
        best = outcome.best_test_score
        if test_score is not None and (best is None or test_score > best):
            outcome.best_test_score, outcome.best_test_epoch = test_score, outcome.epochs
        # Scores by videos are often equal; of equal epochs keep the last, which has learned most
        better = val_score > outcome.val_score
        if better:
            self.last_gain[outcome] = outcome.epochs
        if better or (self.by_videos and val_score == outcome.val_score):
            outcome.val_score, outcome.test_score = val_score, test_score
            outcome.best_epoch = outcome.epochs
            outcome.state = self.group.state(place)

    def _done(self, outcome: TrialOutcome) -> bool:
        epochs_without_gain = outcome.epochs - self.last_gain[outcome]
        return (
            0 < self.config.patience <= epochs_without_gain
            or bool(outcome.failure)
            or outcome.epochs == self.config.head.epochs
        )

    def _drop(self, places: list[int]) -> None:
        """Removes trials from the group and from the optimizer's state."""
        if not places:
            return
        staying = [place for place in range(len(self.alive)) if place not in places]
        self.alive = [self.alive[place] for place in staying]
        self.orders = [self.orders[place] for place in staying]
        self.total_losses = self.total_losses[staying]
        self._replayed.clear()  # their graphs still train the dropped trials
        if self.alive and isinstance(self.group, Stacked):
            self.group.keep(staying, self.optimizer)


def can_replay(group: Stacked | Alone, features: Features, device: torch.device) -> bool:
    """Returns whether training steps can be replayed as CUDA graphs.

    That takes stacked heads, which draw no random numbers, and inputs in the GPU's memory. With negatives it
    is not possible: the host reads which clips of a batch are negatives.
    """
    on_gpu = features.tensors is not None and features.negatives is None
    return device.type == "cuda" and isinstance(group, Stacked) and on_gpu


def make_model(trial: Trial, data: Data) -> Model:
    """Builds a trial's model, with AV-BT's Bi-LSTMs, statistics of train features, and weights of `init`."""
    model = build_model(trial.config, data.widths, trial.config.seed)
    if model.temporal is not None:
        model.temporal.load_state_dict(data.temporal)
    for name, standard in (("audio", model.standard_a), ("visual", model.standard_v)):
        if standard is not None and "train" in data.splits:
            standard.set(*data.statistics[name])
    if trial.config.init:
        start_from(model, trial.config.init)
    return model


def learning_rate(config: HeadConfig, epoch: int) -> float:
    """Returns the learning rate of an epoch, counted from 1: warm-up, steps of the schedule, cosine."""
    passed = epoch - 1
    if epoch < config.warmup_epochs:
        return config.lr * epoch / config.warmup_epochs
    steps = passed // config.lr_decay_every if config.lr_decay_every else 0
    steps += sum(passed >= after for after in config.milestones)
    lr = config.lr * config.lr_decay**steps
    if config.cosine:
        rest = max(1, config.epochs - config.warmup_epochs)
        lr *= (1 + math.cos(math.pi * max(0, passed - config.warmup_epochs) / rest)) / 2
    return lr


def arithmetic(config: TrainConfig, device: torch.device) -> torch.autocast:
    """Returns a context in which matrix products are computed in the config's dtype."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16")


def can_stack(config: TrainConfig, data: Data, device: torch.device) -> bool:
    """Returns whether trials of this config are trained as one batched program.

    The size decides, not a timing, so that a machine always gives the same numbers. On a CPU stacking is
    faster for small heads alone (docs/heads.md).
    """
    if config.together == "never" or not head_class(config).stackable or data.temporal:  # vmap has no LSTM
        return False
    if getattr(config.head, "dropout", 0):  # each trial draws its own from its seed
        return False
    if config.together == "always" or device.type != "cpu":
        return True
    return step_flop([build_model(config, data.widths, 0)], config, data) < SMALL_STEP_FLOP


def step_flop(models: Sequence[Model], config: TrainConfig, data: Data) -> float:
    """Estimates the operations of a training step: for each weight and segment two forward, four backward."""
    weights = sum(weight.numel() for model in models for weight in model.parameters())
    train, _ = data.training(config)
    return 6.0 * weights * min(config.head.batch_size, len(train)) * train.labels.shape[1]


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Gives torch `count` threads for as long as the context lasts.

    A second thread does not speed up small products, and slows them where another process uses its core.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
