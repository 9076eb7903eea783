"""Plans a sweep: lists its trials, and groups those that train as one program."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from avel.config import Setting, resolve, settings_of
from avel.errors import ConfigError, UnknownNameError
from avel.heads.config import TrainConfig
from avel.heads.models.head import head_class
from avel.heads.training.trials import Trial


def plan(
    base: TrainConfig | None, options: Mapping[str, Any], settings: Mapping[str, Sequence[Any]]
) -> list[Trial]:
    """Lists the trials of a sweep, all combinations of `settings` on top of `options`, by all seeds.

    Raises:
        ConfigError: a setting without values, one that the head does not know, or one that is named twice;
            two trials alike.
    """
    for key, values in settings.items():
        check_varied("sweep", key, values)
    planned: dict[TrainConfig, Trial] = {}
    for values in itertools.product(*settings.values()):
        swept = dict(zip(settings, values, strict=True))
        config = resolve(TrainConfig, "train-head", base=base, options={**options, **swept})
        head_class(config)  # refuses a head that cannot learn under this supervision
        varied = find_settings(config, swept, options, "sweep")
        chosen = {setting.name: setting.of(config) for setting in varied.values()}
        for seed in range(config.seed, config.seed + config.seeds):
            name = ",".join(f"{key}={value}" for key, value in (chosen | {"seed": seed}).items())
            name = name.replace("/", "%2F")  # files are named after it
            trial = Trial(name, dataclasses.replace(config, seed=seed, seeds=1), chosen)
            if (twin := planned.setdefault(trial.config, trial)) is not trial:
                raise ConfigError(
                    f"the sweep would train {twin.name} twice, also as {name}", hint="give each value once"
                )
    return list(planned.values())


def find_settings(
    config: TrainConfig, keys: Iterable[str], options: Mapping[str, Any], what: str
) -> dict[str, Setting]:
    """Returns the setting of each key, a name or a place in a file ("theta", "tacma.theta").

    Args:
        keys: the settings that are varied.
        options: the settings with one value, by such keys too.
        what: "sweep" or "search", for errors.

    Raises:
        ConfigError: two keys mean the same setting, or a key and an option do.
        UnknownNameError: the config has no such setting; another head may have it.
    """
    settings = settings_of(config)
    by_key = {key: setting for setting in settings for key in (setting.name, setting.key)}
    found: dict[str, Setting] = {}
    key_of: dict[str, str] = {}
    for key in keys:
        setting = by_key.get(key.replace("-", "_"))
        if setting is None:
            raise UnknownNameError("setting", key, [each.name for each in settings], where=what)
        if (twin := key_of.setdefault(setting.key, key)) != key:
            raise ConfigError(
                f"cannot {what} over both {twin!r} and {key!r}: they are one setting", hint="give one of them"
            )
        found[key] = setting
    for key, value in options.items():
        setting = by_key.get(key)
        if setting is not None and setting.key in key_of:
            swept = key_of[setting.key]
            raise ConfigError(
                f"cannot {what} over {swept!r}: {key}={value!r} sets it already", hint="give one of them"
            )
    return found


def check_varied(what: str, key: str, values: Any) -> None:
    """Checks that a setting can be varied over these values; `what` is "sweep" or "search", for errors.

    Raises:
        ConfigError: the setting is the seed or the task, or the values are not a list, or an empty one.
    """
    if key in ("seed", "seeds"):
        raise ConfigError(f"cannot {what} over {key!r}", hint="--seeds sets how many seeds, --seed the first")
    if key == "task":
        raise ConfigError(f"cannot {what} over 'task': a run has one task", hint="make a run for each task")
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(
            f"cannot {what} over {key!r}: {values!r} is not a list",
            hint=f'{{"{key}": [{values!r}]}} is one',
        )
    if not values:
        raise ConfigError(f"cannot {what} over {key!r}: it has no values", hint="--set theta=0,0.03 has two")


def settings_text(settings: Mapping[str, Any]) -> str:
    """Writes varied settings for people, numbers with four digits.

    >>> settings_text({"lr": 1.23456e-3, "d_e": 64})
    'lr=0.001235, d_e=64'
    """
    values = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in settings.items()}
    return ", ".join(f"{key}={value}" for key, value in values.items()) or "as given"


def check_comparable(configs: Iterable[TrainConfig], task: str) -> None:
    """Checks that all trials choose their epochs by the same kind of labels, so that one can be the best.

    Raises:
        ConfigError: some choose by videos, others by segments.
    """
    if len({config.selects_by_videos(task) for config in configs}) > 1:
        raise ConfigError(
            "some trials would choose epochs by videos, others by segments: scores that are not comparable",
            hint="choose by one of the two in all trials, with --select-by, or make a run for each",
        )


def stackable_groups(trials: Sequence[Trial], stacks: Callable[[TrainConfig], bool]) -> list[list[Trial]]:
    """Groups trials that train as one program: they differ in seed and buffered settings alone."""
    groups: dict[Any, list[Trial]] = {}
    for trial in trials:
        config = trial.config
        unset: dict[str, Any] = dict.fromkeys(head_class(config).buffered)
        alike = dataclasses.replace(config, seed=0, head=dataclasses.replace(config.head, **unset))
        groups.setdefault(alike if stacks(config) else trial.name, []).append(trial)
    return list(groups.values())
