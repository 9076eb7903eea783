"""Estimates what training heads takes on a CPU, in time and memory, before it begins."""

import time
from collections.abc import Callable, Sequence

import torch

from avel.errors import ConfigError
from avel.forecast import BYTES_PER_WEIGHT, USABLE, note_long, saved_bytes, shortage
from avel.grid import evenly_spaced
from avel.heads.config import TrainConfig
from avel.heads.models.head import build_model
from avel.heads.training.data import Data
from avel.heads.training.fit import SMALL_STEP_FLOP, Training, step_flop
from avel.heads.training.trials import Alone, Trial
from avel.memory import free_memory
from avel.text import plural

WITH_GRADIENTS = 1.7
"""Peak memory of a step, as a multiple of what autograd saves: measured 1.3 to 2.1 (psp, dam, cman, cmbs)."""
LONG_STEPS = 100
"""Fewer steps than this are quick with any head, so that nothing is measured."""
MEASURED_GROUPS = 4
"""Groups of trials, evenly spaced among all, of which a step is measured."""


def check_step_fits(trials: Sequence[Trial], data: Data, device: torch.device) -> None:
    """Checks that a step of stacked trials fits into a CPU's memory. A GPU raises an error of its own.

    Raises:
        ConfigError: it does not.
    """
    config = trials[0].config
    model = build_model(config, data.widths, 0)
    if device.type != "cpu" or step_flop([model] * len(trials), config, data) < SMALL_STEP_FLOP:
        return
    group, (train, targets) = Alone(model, device), data.training(config)

    def saved(clips: int) -> int:
        rows = torch.arange(clips) % len(train)
        videos = train.videos[rows][None]
        inputs, lengths = data.features.of(videos), data.features.lengths_of(videos)
        own = [*model.parameters(), *model.buffers()]
        return saved_bytes(lambda: group.losses(*inputs, targets[rows][None], lengths), own)

    two, four = saved(2), saved(4)  # saved bytes are linear in clips: `fixed` + clips * `a_clip`
    weights = sum(weight.numel() for weight in model.parameters())
    fixed = (weights * BYTES_PER_WEIGHT + max(0, 2 * two - four)) * len(trials)
    a_clip = WITH_GRADIENTS * (four - two) / 2 * len(trials)
    clips, free = min(config.head.batch_size, len(train)), free_memory()
    of = f" of {plural(len(trials), 'trial')} together" if len(trials) > 1 else ""
    needs = shortage(f"a step of {config.head.name} with {clips} clips{of}", fixed + clips * a_clip, free)
    if needs:
        fitting = int((USABLE * free - fixed) / a_clip)
        smaller = [f"--batch-size {fitting}"] if fitting > 0 else []
        raise ConfigError(needs, hint=" or ".join(smaller + ["--together never"] * (len(trials) > 1)))


def note_long_training(
    groups: Sequence[Sequence[Trial]], data_of: Callable[[TrainConfig], Data], device: torch.device
) -> None:
    """Notes how long training takes on this CPU, group after group, if that is long.

    It measures a step and an evaluation of a few groups, which does not change the training.
    """
    if device.type != "cpu":
        return
    planned = [(group, data_of(group[0].config)) for group in groups]
    epochs = [group[0].config.head.epochs for group in groups]  # if no trial stops early
    steps = [count * steps_of(*each) for count, each in zip(epochs, planned, strict=True)]
    if sum(steps) < LONG_STEPS:
        return
    seconds = measured = 0.0
    for place in evenly_spaced(len(planned), MEASURED_GROUPS):
        seconds += epochs[place] * epoch_seconds(*planned[place], device)
        measured += steps[place]
    trials, advice = plural(sum(map(len, groups)), "trial"), "fewer --epochs or --seeds take less"
    note_long(seconds / measured * sum(steps), trials, f"{advice}, and the run can be interrupted")


def steps_of(group: Sequence[Trial], data: Data) -> int:
    """Returns the number of training steps in an epoch."""
    return -(-len(data.training(group[0].config)[0]) // group[0].config.head.batch_size)


def epoch_seconds(group: Sequence[Trial], data: Data, device: torch.device) -> float:
    """Estimates the time of an epoch of a group and its evaluation, from one step and one evaluation."""
    with torch.random.fork_rng(devices=[]):
        training = Training(group, data, device)
        training.train_epoch(1, steps=1)  # the first one takes longer
        began = time.perf_counter()
        training.train_epoch(1, steps=1)
        trained = time.perf_counter()
        training.group.train(False)
        for split in training.evaluated_splits():
            training.score(split)
        return (trained - began) * steps_of(group, data) + time.perf_counter() - trained
