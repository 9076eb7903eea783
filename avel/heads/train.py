"""`train_head` and `sweep`: train heads on a feature cache and evaluate them, in a run folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avel.device import choose_device, hardware_of
from avel.heads.config import HEADS, TrainConfig
from avel.heads.evaluation.evaluate import evaluate, predict_split
from avel.heads.evaluation.evaluation import Evaluation
from avel.heads.evaluation.predictions import write_predictions
from avel.heads.models.head import (
    Model,
    Widths,
    build_model,
    code_digest,
    head_class,
    projected_width,
    weak_labels_of,
)
from avel.heads.tasks.choose import choose_task
from avel.heads.training.code import keep_files, read_train_config
from avel.heads.training.data import (
    Data,
    arrays_of,
    check_labels,
    choose_inputs,
    note_left_out,
    read_data,
    replaced_inputs,
)
from avel.heads.training.fit import TrialOutcome, can_stack, fit
from avel.heads.training.forecast import check_step_fits, note_long_training
from avel.heads.training.negatives import add_negatives
from avel.heads.training.plan import check_comparable, plan, stackable_groups
from avel.heads.training.records import (
    HeadInputs,
    is_trained,
    load_model,
    read_trained,
    read_trials,
    trained_groups,
    write_trial,
)
from avel.heads.training.start import start_from
from avel.heads.training.trials import Trial
from avel.progress import note
from avel.stores.features import FeatureCache
from avel.stores.files import check_can_write, only_one, sha256_file
from avel.stores.runs import RECORD, Run, forget_unused, remove_head_run
from avel.stores.watching import Watchers, check_watchers
from avel.text import as_plain

PREDICTED_SPLITS = ("val", "test")


def train_head(
    cache: Path | str | LoadedCache,
    run: Path | str,
    config: TrainConfig | None = None,
    *,
    overwrite: bool = False,
    **options: Any,
) -> Evaluation:
    """Trains one head, `config.seeds` times, and returns its results on the test split.

    Train and val need labels; without labels in test, or without test samples, its figures are None. With
    weak supervision it is enough to know the classes of train clips. The task is found from the events of the
    cache: one label a segment, or, where an event is in one modality alone, several labels in each modality.
    A run goes on where it stopped, and takes more seeds later; with `overwrite` it is trained again.

    >>> train_head("features.h5", "runs/tacma", head="tacma", seeds=5)  # doctest: +SKIP

    Raises:
        TrainingError: the cache cannot be trained on, or no trial stayed finite.
        StoreError: `run` holds another run.
    """
    return sweep(cache, run, {}, config, overwrite=overwrite, **options)


def sweep(
    cache: Path | str | LoadedCache,
    run: Path | str,
    settings: Mapping[str, Sequence[Any]],
    config: TrainConfig | None = None,
    *,
    overwrite: bool = False,
    **options: Any,
) -> Evaluation:
    """Trains every combination of `settings`, `config.seeds` times each; resumes an interrupted sweep.

    A finished run takes more seeds later; with `overwrite` it is trained again.

    >>> sweep("features.h5", "runs/theta", {"theta": [0, 0.03]}, seeds=5)  # doctest: +SKIP

    Raises:
        ConfigError: a setting that the head does not know, or that the cache's features do not fit; trials
            whose validation scores are not comparable.
        TrainingError: the cache cannot be trained on, or no trial stayed finite.
        StoreError: `run` holds another run, or one of a head whose code has changed since.
    """
    planned = plan(config, options, settings)
    check_can_write(Path(run), folder=True)
    configs = [trial.config for trial in planned]
    base = replace(configs[0], seeds=len({config.seed for config in configs}))
    loaded = cache if isinstance(cache, LoadedCache) else LoadedCache.open(cache, base.device)
    loaded.check(configs)
    if not loaded.fold:  # settings are compared on the fold that is held out, not on val
        check_comparable(configs, choose_task(loaded.cache, base.task).name)
    check_watchers(base.metrics_hook, base.tensorboard)
    inputs = _inputs(loaded, planned)
    if overwrite:
        remove_head_run(Path(run))
    folder = _open(Path(run), base, inputs, hardware_of(loaded.device))
    with only_one(folder.path, "run"):
        if folder.finished:
            note(
                f"{folder.path}: finished on {folder.finished_on}, nothing to train; --overwrite trains again"
            )
        else:
            _train(folder, planned, loaded)
            _predict_and_evaluate(folder, loaded)
    results = folder.read_results(Evaluation)
    groups, trained = results.groups, trained_groups(read_trials(folder))
    order = [*(name for name in trained if name in groups), *groups]  # results.json sorts them by name
    return replace(results, groups={name: groups[name] for name in order})


def _open(path: Path, base: TrainConfig, inputs: HeadInputs, hardware: str) -> Run:
    """Begins a run, or goes on with the one at `path`, to which `base` and `inputs` may add seeds."""
    if (path / RECORD).is_file():
        with only_one(path, "run"):
            forget_unused(path)
    if (path / RECORD).is_file():
        run = Run.open(path, "heads")
        before, there = read_train_config(run.record.config, path / RECORD), run.read_inputs(HeadInputs)
        if before.seeds < base.seeds and set(there.trials) < set(inputs.trials):
            fewer = replace(base, seeds=before.seeds)
            fewer_trials = replace(inputs, trials=there.trials)
            # Ask with the seeds of before first: `create` refuses any other difference
            run = Run.create(path, "heads", fewer, inputs=as_plain(fewer_trials))
            with only_one(path, "run"):
                return run.reopen(base, as_plain(inputs))
    return Run.create(path, "heads", base, inputs=as_plain(inputs), hardware=hardware)


class LoadedCache:
    """Features of a cache, each kind of input loaded and checked once, for any number of runs.

    Attributes:
        fold: name of the fold of a cross-validation that is held out; "" for the cache's own splits.
    """

    fold = ""

    def __init__(self, cache: FeatureCache, device: torch.device) -> None:
        self.cache, self.device = cache, device
        # (inputs, task, path of negatives or "") -> data
        self._loaded: dict[tuple[str, str, str], Data] = {}
        self._noted: set[str] = set()

    @classmethod
    def open(cls, path: Path | str, device: str = "auto") -> LoadedCache:
        """Opens a cache; features are loaded when the first head asks for them."""
        return cls(FeatureCache.open(path), choose_device(device))

    def data(self, config: TrainConfig) -> Data:
        """Returns the features and splits for a head.

        Raises:
            TrainingError: the cache does not hold them, or they cannot be trained on.
            ConfigError: the clips differ in length, and the head takes clips of one length alone.
        """
        key = choose_inputs(self.cache, config), choose_task(self.cache, config.task).name, ""
        if key not in self._loaded:
            self._loaded[key] = self.read(config)
        data, with_negatives = self._loaded[key], (*key[:2], config.negatives)
        if with_negatives not in self._loaded:
            self._loaded[with_negatives] = add_negatives(data, config)
        data = self._loaded[with_negatives]
        if data.features.lengths is not None:
            head_class(config).check_lengths()
        return data

    def read(self, config: TrainConfig) -> Data:
        """Reads the features and splits for a head, without negatives."""
        return read_data(self.cache, config, self.device)

    def data_and_model(self, config: TrainConfig) -> tuple[Data, Model]:
        """Returns the features and splits for a head, and an untrained model.

        Raises:
            ConfigError, TrainingError: the head cannot be trained on the cache.
        """
        data = self.data(config)
        check_labels(self.cache, data.splits, config)
        return data, build_model(config, data.widths, 0)

    def check(self, configs: Iterable[TrainConfig]) -> None:
        """Checks that every head can be trained on the cache, before a run folder is made.

        Raises:
            ConfigError, TrainingError: one cannot.
        """
        weak: Data | None = None
        for config in dict.fromkeys(replace(config, seed=0) for config in configs):
            data, model = self.data_and_model(config)
            if config.init:
                self._note_once(f"{config.init}: weights of {start_from(model, config.init)}")
            self._note_once(replaced_inputs(self.cache, config))
            self._note_once(_projection(config, data.widths))
            weak = data if weak_labels_of(config, data.task.name) == "event" else weak
        if weak is not None:
            note_left_out(self.cache, weak.splits["train"])

    def named_features(self, configs: Iterable[TrainConfig]) -> tuple[str, ...]:
        """Returns the names of those features beside avel's own (`FeatureCache.named`) that heads read."""
        wanted = {choose_inputs(self.cache, config) for config in configs}
        read = {name for inputs in wanted for names in arrays_of(inputs) for name in names}
        return tuple(sorted(read & {*self.cache.named}))

    def _note_once(self, text: str) -> None:
        if text and text not in self._noted:
            self._noted.add(text)
            note(text)


def _projection(config: TrainConfig, widths: Widths) -> str:
    """Says that a head has a projection although --project was not given; "" where this is not so."""
    width = projected_width(config, widths)
    if config.project is not None or width is None:
        return ""
    return (
        f"head {config.head.name} adds audio to visual features, {widths.audio} and {widths.visual} wide: a "
        f"Linear for each brings them to {width} (--project)"
    )


def digests_of_negatives(configs: Iterable[TrainConfig], named: Iterable[str]) -> dict[str, str]:
    """Returns path -> digest of the caches of negatives that heads learn from, with `named` features."""
    paths = dict.fromkeys(config.negatives for config in configs if config.negatives)
    return {path: FeatureCache.open(path).digest_with(named) for path in paths}


def digests_of_weights(configs: Iterable[TrainConfig]) -> dict[str, str]:
    """Returns path -> SHA-256 of the files of weights that heads start from."""
    paths = dict.fromkeys(config.init for config in configs if config.init)
    return {path: sha256_file(Path(path)) for path in paths}


def _inputs(loaded: LoadedCache, planned: Sequence[Trial]) -> HeadInputs:
    cache, configs = loaded.cache, [trial.config for trial in planned]
    heads, named = {head_class(config) for config in configs}, loaded.named_features(configs)
    task = choose_task(cache, configs[0].task)
    return HeadInputs(
        cache=str(cache.path.resolve()),
        cache_digest=cache.digest_with(named),
        named=named,
        segments=cache.grid_segments,
        segment_seconds=cache.segment_seconds,
        negatives=digests_of_negatives(configs, named),
        init=digests_of_weights(configs),
        task=task.name,
        tracks=task.tracks,
        categories=cache.categories,
        swept=tuple(dict.fromkeys(name for trial in planned for name in trial.settings)),
        trials=tuple(trial.name for trial in planned),
        head_code={head.Config.name: HEADS.origin(head.Config.name) for head in heads},
        head_code_digest={head.Config.name: code_digest(head) for head in heads},
        tags={} if loaded.fold else _tags(cache),
        fold=loaded.fold,
    )


def _tags(cache: FeatureCache) -> dict[str, tuple[int, ...]]:
    """Returns tag -> numbers of the held-out samples that have it."""
    samples = cache.samples
    held_out = np.isin(samples.split.astype(str), PREDICTED_SPLITS)
    tags = sorted({str(tag) for tag in samples.tag[held_out] if tag})
    return {tag: tuple(samples.number[held_out & (samples.tag == tag)].tolist()) for tag in tags}


def _train(run: Run, planned: Sequence[Trial], loaded: LoadedCache) -> None:
    device = loaded.device
    keep_files(run, {head_class(trial.config) for trial in planned})
    untrained = [trial for trial in planned if not is_trained(run, trial.name)]
    done = {trial.name for trial in planned} - {trial.name for trial in untrained}
    run.rewind([line for line in run.metrics() if line.get("trial") in done])

    def stacks(config: TrainConfig) -> bool:
        return can_stack(config, loaded.data(config), device)

    def write(outcome: TrialOutcome) -> None:
        data = loaded.data(outcome.trial.config)
        if outcome.failure:
            note(f"{outcome.trial.name}: {outcome.failure}; this trial ends here")
        write_trial(run, outcome, data.widths, data.features.inputs)

    groups = stackable_groups(untrained, stacks)
    for group in groups:
        check_step_fits(group, loaded.data(group[0].config), device)
    note_long_training(groups, loaded.data, device)
    base = planned[0].config
    with closing(Watchers(run.path, base.metrics_hook, base.tensorboard)) as watchers:

        def log(line: dict[str, Any]) -> None:
            run.log(**line)
            watchers.log(line)

        for group in groups:
            fit(group, loaded.data(group[0].config), device, log, write)


def _predict_and_evaluate(run: Run, loaded: LoadedCache) -> None:
    """Writes the predictions of all trials that stayed finite, then the results."""
    predictions = (
        predict_split(load_model(run, trial, loaded.device), trial, data, split)
        for trial in read_trained(run)
        for split in PREDICTED_SPLITS
        if split in (data := loaded.data(trial.config)).splits
    )
    write_predictions(run, predictions)
    run.finish(evaluate(run.path))
