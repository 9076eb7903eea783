"""`cross_validate`: evaluates settings on folds of train and val, and trains the best."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.config import digest
from avel.digests import digest_of
from avel.errors import ConfigError, DatasetError, TrainingError
from avel.heads.config import TrainConfig
from avel.heads.evaluation.evaluation import Evaluation
from avel.heads.evaluation.paired import (
    WOULD_SHOW,
    WOULD_SHOW_NOTE,
    Difference,
    difference,
    difference_cells,
    tally,
)
from avel.heads.evaluation.predictions import Predictions, compute_metrics, read_predictions
from avel.heads.tasks.metrics import Tally
from avel.heads.tasks.results import Spread, interval_text
from avel.heads.tasks.task import Task
from avel.heads.train import LoadedCache, sweep
from avel.heads.training.data import Data, Split, join
from avel.heads.training.plan import plan, settings_text
from avel.heads.training.records import TrialRecord, read_trials
from avel.heads.training.trials import Trial
from avel.progress import note
from avel.stores.datasets.annotation_text import read_rows
from avel.stores.datasets.labels import take
from avel.stores.files import check_can_write, write_json
from avel.stores.runs import Run
from avel.text import as_plain, plural, table

HELD_OUT = "test"
"""Name under which a run holds its held-out fold: a run is evaluated on its test split."""


@dataclass(frozen=True)
class SettingResult:
    """Score of one combination of settings on samples that its networks have not learned from.

    Attributes:
        score_percent: main metric of the task over all samples of train and val, over seeds.
        interval_percent: its 95 % interval over videos, or over groups of them.
        event_f1_percent: F1 of events, with tolerances of one segment where a segment has one label.
        epochs: mean of the best epochs.
        difference: metric -> these settings minus the first of `FoldsResult.results`; empty in that one.
    """

    settings: dict[str, Any]
    score_percent: Spread
    interval_percent: tuple[float, float] | None
    event_f1_percent: Spread
    epochs: float
    difference: dict[str, Difference]


@dataclass(frozen=True)
class FailedSetting:
    """Settings of which every trial failed in some fold, and the first failure."""

    settings: dict[str, Any]
    failure: str


@dataclass(frozen=True)
class FoldsResult:
    """Results of a cross-validation; the test split is used by `evaluation` alone.

    Attributes:
        groups: number of videos, or of groups of them, that were dealt to the folds.
        results: the settings in the order they were given, without those of `failed`.
        failed: settings of which every trial failed in some fold.
        best: settings with the best score.
        evaluation: results of the run at `run`, trained on the whole train split with these settings.
    """

    run: str
    measure: str
    folds: int
    samples: int
    groups: int
    results: tuple[SettingResult, ...]
    failed: tuple[FailedSetting, ...]
    best: dict[str, Any]
    evaluation: Evaluation

    def headline(self) -> str:
        """Returns the result of the best settings in one line."""
        return self.evaluation.headline()

    def lines(self) -> list[str]:
        """Returns the text that a terminal shows."""
        header = (
            *("settings", self.measure, "95 % interval", "event F1"),
            *("epochs", "minus the first", WOULD_SHOW),
        )
        rows = [
            (
                settings_text(each.settings),
                each.score_percent,
                interval_text(each.interval_percent),
                each.event_f1_percent,
                f"{each.epochs:.0f}",
                *difference_cells(next(iter(each.difference.values()), None)),
            )
            for each in self.results
        ]
        return [
            *table(header, rows),
            "",
            *(f"failed: {settings_text(each.settings)}: {each.failure}" for each in self.failed),
            WOULD_SHOW_NOTE,
            f"{self.samples} samples of train and val, in {self.groups} groups, dealt to {self.folds} folds",
            f"best: {settings_text(self.best)}, trained with all seeds into {self.run}",
        ]


def cross_validate(
    cache: Path | str,
    folder: Path | str,
    settings: Mapping[str, Sequence[Any]],
    *,
    folds: int = 5,
    groups: Path | str | None = None,
    config: TrainConfig | None = None,
    **options: Any,
) -> FoldsResult:
    """Evaluates combinations of `settings` by cross-validation, then trains the best into `folder/best-...`.

    The samples of train and val are dealt to the folds by video, each class evenly. A network learns from all
    folds but two. One of the two chooses its epoch, on the other it is evaluated. So each sample is predicted
    once for each seed, by a network that has learned nothing of its video. Test samples take no part. The
    same call resumes an interrupted one.

    >>> cross_validate("ave.h5", "runs/theta", {"theta": [0, 0.03, 0.3]}, seeds=3)  # doctest: +SKIP

    Args:
        folds: 3 or more.
        groups: CSV with the columns video_id and group: videos of one group stay in one fold. For clips
            that share a recording, a scene or a speaker. By default each video is its own group.

    Raises:
        ConfigError: fewer than 3 folds, or a setting that the head does not know.
        DatasetError: a video without a group.
        TrainingError: fewer groups than folds, or every trial failed.
        StoreError: `folder` holds something else.
    """
    if folds < 3:
        raise ConfigError(
            f"{folds} folds: one chooses the epoch, one is held out, none is left", hint="--folds 5"
        )
    planned = plan(config, options, settings)
    base = planned[0].config
    folder = Path(folder)
    check_can_write(folder, folder=True)
    whole = LoadedCache.open(cache, base.device)
    whole.check(trial.config for trial in planned)
    data = whole.data(dataclasses.replace(base, negatives=""))
    samples = train_and_val(data)
    group_of = None if groups is None else read_groups(Path(groups), samples.video_id)
    group = samples.video_id if group_of is None else np.array([group_of[id] for id in samples.video_id])
    fold = deal(group, samples, folds, base.seed)
    predicted: dict[str, list[Predictions]] = {trial.name: [] for trial in planned}
    ended: dict[str, list[TrialRecord]] = {trial.name: [] for trial in planned}
    for number in range(folds):
        note(f"\n== fold {number + 1} of {folds}")
        path = folder / "folds" / str(number + 1)
        sweep(FoldCache(whole, fold, number, folds), path, settings, config, **options)
        run = Run.open(path, "heads")
        for item in read_predictions(run)[HELD_OUT]:
            predicted[item.trial].append(item)
        for record in read_trials(run):
            ended[record.name].append(record)
    results, failed = _evaluate_settings(data.task, planned, predicted, ended, folds, group_of)
    if not results:
        first = failed[0]
        raise TrainingError(
            f"{folder}: no settings could be trained in every fold; "
            f"{settings_text(first.settings)}: {first.failure}",
            hint="try a lower --lr, with another folder",
        )
    best = max(results, key=lambda each: each.score_percent.mean or 0)
    note(f"\n== the best of {len(results)} settings: {settings_text(best.settings)}")
    chosen = {**options, **best.settings}
    path = folder / f"best-{digest(plan(config, chosen, {})[0].config)[:8]}"
    evaluation = sweep(whole, path, {}, config, **chosen)
    result = FoldsResult(
        evaluation.run,
        evaluation.measure,
        folds,
        len(samples),
        len(np.unique(group[fold >= 0].astype(str))),
        tuple(results),
        tuple(failed),
        best.settings,
        evaluation,
    )
    write_json(folder / "folds.json", as_plain(result))
    return result


class FoldCache(LoadedCache):
    """A cache whose samples of train and val are split again: one fold is held out, the next is val.

    Attributes:
        fold_of_sample: (R,) fold of each sample of train and val, -1 where it is always trained on.
        held_out, val: numbers of the fold that is held out, and of the one that chooses the epoch.
    """

    def __init__(self, whole: LoadedCache, of_sample: NDArray[np.int64], number: int, folds: int) -> None:
        super().__init__(whole.cache, whole.device)
        self.whole, self.fold_of_sample = whole, of_sample
        self.held_out, self.val = number, (number + 1) % folds
        self.fold = f"{number + 1} of {folds}, samples {digest_of(of_sample.tolist())[:8]}"

    def read(self, config: TrainConfig) -> Data:
        data = self.whole.data(dataclasses.replace(config, negatives=""))
        samples = train_and_val(data)
        held_out, val = (self.fold_of_sample == number for number in (self.held_out, self.val))
        parts = {"train": ~(held_out | val), "val": val & samples.known, HELD_OUT: held_out & samples.known}
        splits = {
            name: dataclasses.replace(take(samples, np.flatnonzero(part)), name=name)
            for name, part in parts.items()
        }
        return dataclasses.replace(data, splits=splits)


def deal(group: NDArray[Any], samples: Split, folds: int, seed: int) -> NDArray[np.int64]:
    """Returns the fold of each sample, (R,): groups stay whole, and every label is dealt evenly.

    A label is the class of a video, in video parsing all of its classes. A group goes to the fold with the
    fewest samples of the group's most frequent label; of several such folds, to the smallest. Groups without
    a sample whose events are known are in train in every fold: -1.

    Raises:
        TrainingError: fewer groups with known events than folds.
    """
    names, of_group = np.unique(group.astype(str), return_inverse=True)
    dealt = np.unique(of_group[samples.known])
    if len(dealt) < folds:
        raise TrainingError(
            f"{len(dealt)} groups of videos have known events, too few for {folds} folds",
            hint="give fewer --folds",
        )
    label = [row.tobytes() for row in samples.video_labels.cpu().numpy()]
    sizes = np.bincount(of_group)
    fold = np.full(len(group), -1)
    counts = {name: np.zeros(folds) for name in label}
    total = np.zeros(folds)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.isin(order, dealt)]
    for each in sorted(order.tolist(), key=lambda number: -sizes[number]):
        chosen = np.flatnonzero(of_group == each)
        of_label = Counter(label[sample] for sample in chosen)
        usual = of_label.most_common(1)[0][0]
        place = int(np.lexsort((total, counts[usual]))[0])
        fold[chosen] = place
        total[place] += len(chosen)
        for name, count in of_label.items():
            counts[name][place] += count
    return fold


def train_and_val(data: Data) -> Split:
    """Returns the samples of train and val as one split."""
    return join((data.splits["train"], data.splits["val"]))


def read_groups(path: Path, video_id: NDArray[np.object_]) -> dict[str, str]:
    """Reads video -> group.

    Raises:
        DatasetError: no such CSV, or a video without a group.
    """
    group_of = {row.fields["video_id"]: row.fields["group"] for row in read_rows(path, ("video_id", "group"))}
    missing = sorted({str(each) for each in video_id} - set(group_of))
    if missing:
        raise DatasetError(
            f"{path}: no group for {plural(len(missing), 'video')}, the first is {missing[0]}",
            hint="give each a line: video_id,group",
        )
    return group_of


def _evaluate_settings(
    task: Task,
    planned: Sequence[Trial],
    predicted: Mapping[str, Sequence[Predictions]],
    ended: Mapping[str, Sequence[TrialRecord]],
    folds: int,
    group_of: Mapping[str, str] | None,
) -> tuple[list[SettingResult], list[FailedSetting]]:
    """Returns the results of combinations of settings, and those without results.

    Trials that failed in a fold are left out.

    Args:
        predicted, ended: trial -> its predictions and its records, of each fold.
    """
    results: list[SettingResult] = []
    failed: list[FailedSetting] = []
    first: dict[str, Tally] = {}
    for settings, of_settings in itertools.groupby(planned, lambda trial: trial.settings):
        names = [trial.name for trial in of_settings]
        whole = [join_folds(predicted[name], group_of) for name in names if len(predicted[name]) == folds]
        if not whole:
            failure = next(
                f"fold {fold}, seed {record.seed}: {record.failure}"
                for name in names
                for fold, record in enumerate(ended[name], 1)
                if record.failure
            )
            failed.append(FailedSetting(settings, failure))
            continue
        trained = [record for name in names for record in ended[name] if record.trained]
        metrics, tallies = compute_metrics(whole, task, task.usual_decoder, (1, 1)), tally(whole, task)
        results.append(
            SettingResult(
                settings=settings,
                score_percent=metrics.score_percent,
                interval_percent=metrics.interval_percent,
                event_f1_percent=metrics.events.f1_percent,
                epochs=float(np.mean([each.best_epoch for each in trained])),
                difference={
                    name: difference(tallies[name], first[name], whole[0].video_id) for name in first
                },
            )
        )
        first = first or tallies
    return results, failed


def join_folds(parts: Sequence[Predictions], group_of: Mapping[str, str] | None) -> Predictions:
    """Joins the folds of one trial, ordered by sample; groups take the place of videos in intervals."""
    joined = join(parts)
    if group_of is not None:
        groups = np.array([group_of[id] for id in joined.video_id], object)
        joined = dataclasses.replace(joined, video_id=groups)
    return joined.take(np.argsort(joined.number, kind="stable"))
