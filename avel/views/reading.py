"""Reads a finished head run for plots and report: its predictions by sample, and its cache."""

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avel.errors import StoreError
from avel.heads.evaluation.predictions import Predictions, no_predictions, read_predictions
from avel.heads.tasks.metrics import Labels, confusion
from avel.heads.tasks.task import Task
from avel.heads.training.records import TRAIN_AGAIN, HeadInputs, TrialRecord, read_trial, task_of
from avel.stores.datasets.labels import events_known, in_clip
from avel.stores.features import FeatureCache
from avel.stores.runs import Run
from avel.text import plural


@dataclass(frozen=True)
class HeadRun:
    """A run of `avel train-head`: R samples with predictions of M trials.

    Attributes:
        trials: (M,) names of the trials.
        number: (R,) number of each sample in its dataset.
        leaked: (R,) whether the sample's video is also in train.
        label: (R, T, ...) as the task makes them; -1 where events are not known, -2 after the end of a clip
            that is shorter than others.
        probability: (M, R, T, K) float32.
    """

    run: Run
    name: str
    task: Task
    trials: tuple[str, ...]
    number: NDArray[np.int64]
    video_id: tuple[str, ...]
    split: NDArray[np.str_]
    leaked: NDArray[np.bool_]
    label: Labels
    probability: NDArray[np.float32]

    @property
    def records(self) -> list[TrialRecord]:
        """Returns the records of the trials: (M,)."""
        return [read_trial(self.run, name) for name in self.trials]

    @cached_property
    def prediction(self) -> Labels:
        """Returns the predicted labels, by the task's usual decoder: (M, R, T, ...)."""
        return np.stack([self.task.cut(self.task.decode(each), self.label) for each in self.probability])

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Returns True for samples whose events are known: (R,)."""
        return events_known(self.label)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Returns the number of segments of each sample's clip, T or fewer: (R,)."""
        return np.asarray(in_clip(self.label).sum(1))

    @cached_property
    def cache(self) -> FeatureCache:
        """Returns the feature cache that the run was trained on, opened by `open_cache`."""
        return open_cache(self.run)

    def places_of(self, split: str) -> NDArray[np.int64]:
        """Returns the indices of a split's samples in the arrays.

        Raises:
            StoreError: the run has no predictions of that split.
        """
        chosen = np.flatnonzero(self.split == split)
        if not len(chosen):
            raise no_predictions(self.run, split, sorted(set(self.split.tolist())))
        return chosen

    def has_labels(self, split: str) -> bool:
        """Returns whether the run has predictions of samples of that split whose events are known."""
        return bool((self.known & (self.split == split)).any())

    def known_places_of(self, split: str) -> NDArray[np.int64]:
        """Returns the indices of a split's samples whose events are known.

        Raises:
            StoreError: the run has no predictions of that split, or no labels beside them.
        """
        places = self.places_of(split)
        if not self.known[places].any():
            others = " or ".join(sorted(set(self.split[self.known].tolist())))
            raise StoreError(
                f"{self.run.path}: no sample of split {split!r} has known events",
                hint=f"choose {others}" if others else "annotate samples, then cache and train again",
            )
        return places[self.known[places]]

    def place_of(self, video_id: str) -> int:
        """Returns the index of a video's first sample in the arrays.

        Raises:
            StoreError: the run has no predictions of it.
        """
        if video_id not in self.video_id:
            splits = " or ".join(sorted(set(self.split.tolist())))
            raise StoreError(
                f"{self.run.path}: no predictions of video {video_id!r}", hint=f"choose a video of {splits}"
            )
        return self.video_id.index(video_id)

    def predictions(self, split: str) -> list[Predictions]:
        """Returns the predictions of each trial on a split, as `evaluate_split` takes them.

        Raises:
            StoreError: the run has no predictions of that split.
        """
        places = self.places_of(split)
        video_id = np.array(self.video_id, object)[places]
        about = self.number[places], video_id, self.leaked[places], self.label[places]
        return [
            Predictions(trial, split, *about, probability[places])
            for trial, probability in zip(self.trials, self.probability, strict=True)
        ]

    def score(self, split: str) -> NDArray[np.float64]:
        """Returns the main metric of each trial on the samples of a split with known events: (M,)."""
        places = self.known_places_of(split)
        trials = (self.task.sample_scores(each, self.label[places]) for each in self.prediction[:, places])
        weights = self.task.weights(self.label[places])
        return np.array([np.average(scores, weights=weights) for scores in trials])

    def confusion(self, split: str) -> NDArray[np.int64]:
        """Counts segments by label and prediction, summed over trials: (K, K).

        Raises:
            StoreError: segments may have several labels.
        """
        if not self.task.one_label:
            raise StoreError(
                f"{self.run.path}: its segments may have several labels, so there is no confusion matrix",
                hint="avel plot RUN timeline, or avel report",
            )
        places, classes = self.known_places_of(split), self.task.outputs
        counted = [confusion(trial, self.label[places], classes) for trial in self.prediction[:, places]]
        return np.asarray(np.sum(counted, 0), np.int64)

    def trivial_baselines(self, split: str) -> dict[str, float]:
        """Returns rule without a model -> its main metric on a split."""
        return self.task.trivial_baselines(self.label[self.known_places_of(split)])


def open_cache(run: Run) -> FeatureCache:
    """Opens the cache that a head run was trained on, and checks its digest.

    Raises:
        MissingPathError: it is not there any more.
        StoreError: another cache lies in its place.
    """
    inputs = run.read_inputs(HeadInputs)
    cache = FeatureCache.open(inputs.cache)
    digest = cache.digest_with(inputs.named)
    if digest != inputs.cache_digest:
        again = shlex.join(["avel", "train-head", str(cache.path), f"{run.path}-again"])
        raise StoreError(
            f"{cache.path}: has digest {digest}, but {run.path} was trained on {inputs.cache_digest}: "
            f"{_differences(cache, inputs)}",
            hint=f"put the old cache back, or {again} --config {shlex.quote(str(run.path / 'config.toml'))}",
        )
    return cache


def _differences(cache: FeatureCache, inputs: HeadInputs) -> str:
    """Describes how the cache differs from the one that the run was trained on, and which encoder made it."""
    what = []
    if cache.grid_segments != inputs.segments:
        what.append(f"{plural(cache.grid_segments, 'segment')} instead of {inputs.segments}")
    if cache.categories != inputs.categories:
        what.append(f"other classes ({len(cache.categories)}, were {len(inputs.categories)})")
    return f"{', '.join(what) or 'other features or samples'}; it is now made by encoder {cache.encoder}"


def read_run(path: Path | str) -> HeadRun:
    """Reads a head run: its predictions, and the samples that they are of.

    Raises:
        MissingPathError: there is no run.
        StoreError: not a finished run of a head, or its predictions do not fit together.
    """
    run = Run.open(path, "heads")
    by_split = read_predictions(run)
    order = {"test": 0, "val": 1, "train": 2}
    splits = sorted(by_split, key=lambda split: (order.get(split, 3), split))
    parts = [by_split[split] for split in splits]
    if not parts:
        raise StoreError(f"{run.path}: holds predictions of no split", hint=TRAIN_AGAIN)
    names = tuple(item.trial for item in parts[0])
    if any(tuple(item.trial for item in part) != names for part in parts):
        raise StoreError(f"{run.path}: not every trial has predictions of every split", hint=TRAIN_AGAIN)
    first = [part[0] for part in parts]
    return HeadRun(
        run=run,
        name=run.path.resolve().name,
        task=task_of(run),
        trials=names,
        number=np.concatenate([item.number for item in first]),
        video_id=tuple(str(name) for item in first for name in item.video_id),
        split=np.repeat([item.split for item in first], [len(item.number) for item in first]),
        leaked=np.concatenate([item.leaked for item in first]),
        label=np.concatenate([item.label for item in first]),
        probability=np.concatenate([[item.probabilities for item in part] for part in parts], axis=1),
    )
