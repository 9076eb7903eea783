"""Plans a sweep: lists its trials, and groups those that train as one program."""

import dataclasses
import itertools
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from avel.config import Setting, resolve, settings_of
from avel.errors import ConfigError
from avel.heads.config import HEADS, TrainConfig
from avel.heads.models.head import head_class
from avel.heads.training.trials import Trial
from avel.text import listed
from avel.values import Range


def plan(
    base: TrainConfig | None, options: Mapping[str, Any], settings: Mapping[str, Sequence[Any]]
) -> list[Trial]:
    """Lists the trials of a sweep, all combinations of `settings` on top of `options`, by all seeds.

    A setting named with its head ("tacma.theta") is varied in the trials of this head alone.

    Raises:
        ConfigError: a setting without values, one that a head does not know, or one that is named twice;
            two trials alike.
    """
    found = find_settings(base, options, settings)
    planned: dict[TrainConfig, Trial] = {}
    for values in itertools.product(*settings.values()):
        swept = dict(zip(settings, values, strict=True))
        config = resolve(TrainConfig, "train-head", base=base, options={**options, **swept})
        head_class(config)  # refuses a head that cannot learn under this supervision
        varied = found[config.head.name]
        if any(swept[key] != settings[key][0] for key in settings if key not in varied):
            continue  # only settings of other heads differ from a combination that is planned already
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
    base: TrainConfig | None, options: Mapping[str, Any], settings: Mapping[str, Range | Sequence[Any]]
) -> dict[str, dict[str, Setting]]:
    """Finds what is varied in the trials of each head: name of the head -> key -> its setting.

    A key is the name of a setting that all heads have ("lr"), or the place of one in a file ("tacma.theta");
    those of other heads are left out. `resolve` refuses keys that no head knows.

    Args:
        options: the settings with one value, by such keys too.
        settings: the settings that are varied, with their values.

    Raises:
        ConfigError: values that cannot be varied; a setting that only some of the heads have, or one of a
            head that is not chosen; two keys that mean the same setting, or a key and an option that do.
    """
    for key, values in settings.items():
        _check_values(key, values)
    heads = cast("Sequence[Any]", settings.get("head", ()))
    choices = [{"head": head} for head in heads] or [{"head": options["head"]} if "head" in options else {}]
    configs = [resolve(TrainConfig, "train-head", base=base, options=choice) for choice in choices]
    known = {
        config.head.name: {key: each for each in settings_of(config) for key in (each.name, each.key)}
        for config in configs
    }
    _check_owners(known, {**options, **settings}, settings)
    return {head: _find_varied(of_head, options, settings) for head, of_head in known.items()}


def first_values(settings: Mapping[str, Range | Sequence[Any]]) -> dict[str, Any]:
    """Returns the first value of each setting that is varied."""
    return {key: values.low if isinstance(values, Range) else values[0] for key, values in settings.items()}


def _check_values(key: str, values: Any) -> None:
    """Checks that a setting can be varied over these values.

    Raises:
        ConfigError: the setting is the seed or the task, or the values are not a list, or an empty one.
    """
    if key in ("seed", "seeds"):
        raise ConfigError(f"cannot vary {key!r}", hint="--seeds sets how many seeds, --seed the first")
    if key == "task":
        raise ConfigError("cannot vary 'task': a run has one task", hint="make a run for each task")
    if isinstance(values, Range):
        if key == "head":
            raise ConfigError(f"cannot vary 'head': {values} is a range", hint="--set head=mlp,tacma")
        return
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(
            f"cannot vary {key!r}: {values!r} is not a list", hint=f'{{"{key}": [{values!r}]}} is one'
        )
    if not values:
        raise ConfigError(f"cannot vary {key!r}: it has no values", hint="--set theta=0,0.03 has two")


def _check_owners(
    known: Mapping[str, Mapping[str, Setting]], given: Mapping[str, Any], varied: Collection[str]
) -> None:
    """Checks that each setting is one that all heads have, or is named with its head.

    Args:
        known: head -> key -> its setting.

    Raises:
        ConfigError: only some heads have it, or a varied one is of a head that is not trained.
    """
    for key, value in given.items():
        name = key.replace("-", "_")
        owner = name.rpartition(".")[0]
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
        having = [head for head in known if name in known[head]]
        if not owner and 0 < len(having) < len(known):
            lacking = next(head for head in known if head not in having)
            raise ConfigError(
                f"{name}={text}: head {lacking!r} has no setting {name!r}",
                hint=" ".join(f"--set {head}.{name}={text}" for head in having)
                + f" gives it to {listed(having)} alone",
            )
        if key in varied and owner in HEADS and owner not in known:
            raise ConfigError(
                f"cannot vary {key!r}: {owner} is not chosen",
                hint=f"--set head={','.join((*known, owner))} trains trials of it too",
            )


def _find_varied(
    known: Mapping[str, Setting], options: Mapping[str, Any], settings: Mapping[str, Range | Sequence[Any]]
) -> dict[str, Setting]:
    """Returns key -> setting, for the varied keys that one head knows; `known` are all that it knows."""
    found: dict[str, Setting] = {}
    key_of: dict[str, str] = {}
    for key, values in settings.items():
        setting = known.get(key.replace("-", "_"))
        if setting is None:
            continue
        if (twin := key_of.setdefault(setting.key, key)) != key:
            raise ConfigError(
                f"cannot vary both {twin!r} and {key!r}: they are one setting", hint="give one of them"
            )
        texts = [] if isinstance(values, Range) else [value for value in values if isinstance(value, str)]
        if texts and typing.get_origin(setting.value_type) is tuple:
            raise ConfigError(
                f"cannot vary {key!r}: it is a list",
                hint=f"--{setting.name.replace('_', '-')} {','.join(texts)} gives it to all trials",
            )
        found[key] = setting
    for key, value in options.items():
        setting = known.get(key.replace("-", "_"))
        if setting is not None and setting.key in key_of:
            raise ConfigError(
                f"cannot vary {key_of[setting.key]!r}: {key}={value!r} sets it already",
                hint="give one of them",
            )
    return found


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
    """Groups trials that train as one program: they differ in seed and `Head.buffered` settings alone."""
    groups: dict[Any, list[Trial]] = {}
    for trial in trials:
        config = trial.config
        unset: dict[str, Any] = dict.fromkeys(head_class(config).buffered)
        alike = dataclasses.replace(config, seed=0, head=dataclasses.replace(config.head, **unset))
        groups.setdefault(alike if stacks(config) else trial.name, []).append(trial)
    return list(groups.values())
