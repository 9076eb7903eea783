"""`search`: draws settings from ranges, chooses the best on validation, and trains it with all seeds."""

from __future__ import annotations

import dataclasses
import itertools
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from avel.config import Setting, convert, digest, resolve
from avel.errors import ConfigError, StoreError, TrainingError, import_extra
from avel.heads.config import HEADS, TrainConfig
from avel.heads.evaluation.evaluation import Evaluation
from avel.heads.models.head import code_digest
from avel.heads.tasks.choose import choose_task
from avel.heads.train import LoadedCache, digests_of_negatives, digests_of_weights, train_head
from avel.heads.training.data import Data
from avel.heads.training.fit import fit
from avel.heads.training.forecast import check_step_fits, note_long_training
from avel.heads.training.plan import check_comparable, find_settings, first_values, settings_text
from avel.heads.training.trials import Trial
from avel.progress import note
from avel.stores.documents import read_document, write_document
from avel.stores.files import check_can_write, only_one, write_json
from avel.text import as_plain, describe, listed, plural, table
from avel.values import Range

if typing.TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 5
"""Trials drawn at random, and never pruned, before Optuna uses their results."""
WARMUP_EPOCHS = 5
"""Epochs that every trial gets before it can be pruned."""
INPUT_SETTINGS = ("audio", "visual", "negatives", "init")
"""Settings that name what a trial reads; the request records a digest of each value that is searched over."""
SHOWN_TRIALS = 10
"""Trials that a terminal shows, the best first."""


@dataclass(frozen=True)
class SearchTrial:
    """Settings of one trial, and its best validation score over the epochs it was trained for.

    Attributes:
        state: "pruned" trials were behind the median of the others; "failed" ones could not be trained.
    """

    number: int
    settings: dict[str, Any]
    state: Literal["finished", "pruned", "failed"]
    epochs: int
    validation_percent: float | None


@dataclass(frozen=True)
class SearchResult:
    """Results of a search. All choices were made on validation; the test split is used by `evaluation` alone.

    Attributes:
        best: settings of the trial with the best validation score.
        evaluation: test results of the run at `run`, trained with these settings and all seeds.
        trials: all trials, the best on validation first.
    """

    run: str
    best: dict[str, Any]
    evaluation: Evaluation
    trials: tuple[SearchTrial, ...]

    def headline(self) -> str:
        """Returns the result of the best settings in one line."""
        return self.evaluation.headline()

    def lines(self) -> list[str]:
        """Returns the text that a terminal shows."""
        rows: list[tuple[Any, ...]] = [
            (
                each.number,
                settings_text(each.settings),
                each.state,
                each.epochs,
                "" if each.validation_percent is None else f"{each.validation_percent:.1f}",
            )
            for each in self.trials[:SHOWN_TRIALS]
        ]
        states = [each.state for each in self.trials]
        counts = ", ".join(f"{states.count(state)} {state}" for state in ("finished", "pruned", "failed"))
        return [
            *table(("trial", "settings", "state", "epochs", "validation, one seed"), rows),
            "",
            f"{plural(len(self.trials), 'trial')}: {counts}",
            f"best on validation: {settings_text(self.best)}, trained with all seeds into {self.run}",
        ]


def search(
    cache: Path | str,
    folder: Path | str,
    settings: Mapping[str, Range | Sequence[Any]],
    *,
    trials: int,
    config: TrainConfig | None = None,
    **options: Any,
) -> SearchResult:
    """Searches settings with Optuna, then trains the best with `config.seeds` seeds into `folder/best-...`.

    A trial has one seed, reads the train and validation splits alone, and is pruned where its best validation
    score is below the median of the others at the same epoch. The same call resumes an interrupted search;
    a larger `trials` continues a finished one.

    >>> search("ave.h5", "runs/lr", {"lr": Range(1e-4, 1e-2, log=True)}, trials=40)  # doctest: +SKIP

    Args:
        settings: name -> a range of numbers, or the values to choose from.
        trials: number of trials, those of earlier calls included.

    Raises:
        ConfigError: optuna is not installed; a setting that the head does not know or that is a list, or a
            range of a setting that is not a number; trials whose validation scores are not comparable.
        TrainingError: the cache cannot be trained on, or every trial failed.
        StoreError: `folder` holds another search.
    """
    optuna = import_extra("optuna", "search")
    found = find_settings(config, options, settings)
    first = {**options, **first_values(settings)}
    base = resolve(TrainConfig, "train-head", base=config, options=first)
    ranges = _ranges(found, settings)
    configs = [base] + [
        dataclasses.replace(base, **{name: value})
        for name in INPUT_SETTINGS
        for value in cast("tuple[Any, ...]", ranges.get(name, ()))  # _converted refuses a range of text
    ]
    folder = Path(folder)
    check_can_write(folder, folder=True)
    loaded = LoadedCache.open(cache, base.device)
    loaded.check([base])
    # All combinations that a trial may draw must choose their epochs by the same kind of labels
    choosing = {name: ranges.get(name, (getattr(base, name),)) for name in ("supervision", "select_by")}
    combined = itertools.product(*cast("Iterable[tuple[Any, ...]]", choosing.values()))
    check_comparable(
        (dataclasses.replace(base, **dict(zip(choosing, values, strict=True))) for values in combined),
        choose_task(loaded.cache, base.task).name,
    )
    _record_request(folder, ranges, configs, loaded)
    with only_one(folder, "search"):
        study = _study(optuna, folder, base.seed)
        left = trials - len(_ended_trials(study))
        objective = _Objective(ranges, config, options, loaded)
        if left > 0:
            note_long_training([[Trial("", base)]] * left, loaded.data, loaded.device)
            study.optimize(objective, n_trials=left, catch=(ConfigError, TrainingError))
        ended = sorted(_ended_trials(study), key=lambda each: -(each.validation_percent or -1))
        finished = [each for each in ended if each.state == "finished"]
        if not finished:
            raise TrainingError(f"{folder}: every trial failed", hint="give narrower ranges")
        best = finished[0].settings
        note(f"\n== the best of {plural(len(ended), 'trial')} on validation: {settings_text(best)}")
        chosen = resolve(TrainConfig, "train-head", base=config, options={**options, **best})
        evaluation = train_head(loaded, folder / f"best-{digest(chosen)[:8]}", chosen)
        result = SearchResult(evaluation.run, best, evaluation, tuple(ended))
        write_json(folder / "search.json", as_plain(result))
    return result


@dataclass(frozen=True)
class SearchRequest:
    """A search's ranges, and digests of all other settings, of the cache and of what else is read.

    Attributes:
        code: name of a head -> digest of its source code.
        negatives, init: as in `HeadInputs`.
    """

    ranges: dict[str, str]
    config: str
    cache: str
    code: dict[str, str]
    negatives: dict[str, str] = field(default_factory=dict)
    init: dict[str, str] = field(default_factory=dict)


class _Objective:
    """Trains one trial, and reports every epoch to Optuna."""

    def __init__(
        self,
        ranges: Mapping[str, Range | Sequence[Any]],
        config: TrainConfig | None,
        options: Mapping[str, Any],
        loaded: LoadedCache,
    ) -> None:
        self.ranges, self.config, self.options, self.loaded = ranges, config, options, loaded
        self._without_test: dict[int, Data] = {}

    def __call__(self, trial: optuna.Trial) -> float:
        """Returns the best validation score of a new trial."""
        try:
            return self._train(trial)
        except (ConfigError, TrainingError) as error:
            trial.set_user_attr("failure", error.message)
            raise

    def _train(self, trial: optuna.Trial) -> float:
        chosen: dict[str, Any] = {}
        for name, values in self.ranges.items():  # the head comes first
            owner = name.rpartition(".")[0]
            if owner in ("", chosen.get("head")):
                chosen[name] = _suggested(trial, name, values)
        config = resolve(TrainConfig, "train-head", base=self.config, options={**self.options, **chosen})
        config = dataclasses.replace(config, seeds=1)
        self.loaded.check([config])
        note(f"\n== trial {trial.number}: {settings_text(chosen)}")
        best = 0.0

        def log(line: dict[str, Any]) -> None:
            nonlocal best
            trial.set_user_attr("epochs", line["epoch"])
            if "failure" in line:
                raise TrainingError(f"trial {trial.number}: {line['failure']}")
            best = max(best, line["val_score"])
            trial.set_user_attr("validation", best)
            trial.report(best, line["epoch"])
            if trial.should_prune():
                raise import_extra("optuna", "search").TrialPruned

        group, device = [Trial(f"trial {trial.number}", config)], self.loaded.device
        check_step_fits(group, self._data(config), device)
        fit(group, self._data(config), device, log)
        return best

    def _data(self, config: TrainConfig) -> Data:
        """Returns the inputs of the head without the test split."""
        whole = self.loaded.data(config)
        if id(whole) not in self._without_test:
            splits = {name: split for name, split in whole.splits.items() if name != "test"}
            self._without_test[id(whole)] = dataclasses.replace(whole, splits=splits)
        return self._without_test[id(whole)]


def _study(optuna: Any, folder: Path, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="search",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARMUP_EPOCHS),
    )
    # Another seed after a resume: the same one would draw the first settings again
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=STARTUP_TRIALS)
    return study  # type: ignore[no-any-return]


def _ended_trials(study: optuna.Study) -> list[SearchTrial]:
    """Lists the trials that ended; interrupted ones are left out."""
    states: dict[str, Literal["finished", "pruned", "failed"]] = {
        "COMPLETE": "finished",
        "PRUNED": "pruned",
        "FAIL": "failed",
    }
    return [
        SearchTrial(
            each.number,
            dict(each.params),
            states[each.state.name],
            each.user_attrs.get("epochs", 0),
            None if (best := each.user_attrs.get("validation")) is None else 100 * best,
        )
        for each in study.get_trials()
        if each.state.name in states and (each.state.name != "FAIL" or "failure" in each.user_attrs)
    ]


def _record_request(
    folder: Path, ranges: Mapping[str, Range | Sequence[Any]], configs: list[TrainConfig], loaded: LoadedCache
) -> None:
    """Records the request, or checks that it equals the one that was recorded before.

    Args:
        configs: that of the first trial, then the same for each value of `INPUT_SETTINGS` searched over.
    """
    base, named, searched = configs[0], loaded.named_features(configs), ranges.get("head")
    heads = [base.head.name] if searched is None or isinstance(searched, Range) else sorted(searched)
    asked = SearchRequest(
        {name: str(values) for name, values in ranges.items()},
        digest(dataclasses.replace(base, seeds=1)),
        loaded.cache.digest_with(named),
        {name: code_digest(HEADS[name]) for name in heads},
        digests_of_negatives(configs, named),
        digests_of_weights(configs),
    )
    path = folder / "request.json"
    if path.is_file():
        before = read_document(SearchRequest, path.read_bytes(), path, "choose another folder")
        names = [name for name in vars(asked) if getattr(before, name) != getattr(asked, name)]
        if names:
            raise StoreError(
                f"{folder}: holds a search with other {listed(names)}: "
                f"{getattr(before, names[0])}, now {getattr(asked, names[0])}",
                hint="choose another folder",
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise StoreError(f"{folder}: exists and is not a search", hint="choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_document(path, as_plain(asked))


def _ranges(
    found: Mapping[str, Mapping[str, Setting]], settings: Mapping[str, Range | Sequence[Any]]
) -> dict[str, Range | tuple[Any, ...]]:
    """Returns values or bounds by the name of their setting, or by its place if only some heads have it.

    The head comes first, since it decides which of the others a trial has.
    """
    ranges = {}
    for key, values in settings.items():
        of_heads = [varied[key] for varied in found.values() if key in varied]
        name = of_heads[0].name if len(of_heads) == len(found) else of_heads[0].key
        ranges[name] = _converted(of_heads[0], values)
    return dict(sorted(ranges.items(), key=lambda item: item[0] != "head"))


def _converted(setting: Setting, values: Range | Sequence[Any]) -> Range | tuple[Any, ...]:
    """Converts values or bounds to the type of the setting; a head given as a file becomes its name."""
    name = setting.name
    if not isinstance(values, Range):
        if typing.get_origin(setting.value_type) is tuple:
            raise ConfigError(f"cannot search over {name}: it is a list", hint="give it to all trials")
        if setting.registry is not None:
            return tuple(setting.registry.named(value) for value in values)
        return tuple(convert(setting, value, "search") for value in values)
    if setting.value_type not in (int, float):
        none = " or none" if type(None) in typing.get_args(setting.value_type) else ""
        raise ConfigError(
            f"{name}={values} is a range, and {name} is {describe(setting.value_type)}{none}",
            hint="give its values, separated by commas",
        )
    low, high = (convert(setting, value, "range") for value in (values.low, values.high))
    return Range(low, high, values.log)


def _suggested(trial: optuna.Trial, name: str, values: Range | Sequence[Any]) -> Any:
    if not isinstance(values, Range):
        return trial.suggest_categorical(name, list(values))
    if isinstance(values.low, int) and isinstance(values.high, int):
        return trial.suggest_int(name, values.low, values.high, log=values.log)
    return trial.suggest_float(name, values.low, values.high, log=values.log)
