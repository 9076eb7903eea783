"""Makes options of commands from config dataclasses, and resolves the values that are given for them."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from avel.config import Setting, flat, read_table, resolve, settings_of, to_toml
from avel.errors import ConfigError
from avel.progress import note
from avel.stores.datasets.formats import FORMATS as DATASET_FORMATS
from avel.stores.kinds import kind_of
from avel.text import describe, is_union
from avel.values import Range, default_text, parse_range, split_set

F = TypeVar("F", bound=Callable[..., Any])
SWITCH = "[on|off]"
"""Value of a switch, as help shows it."""


class SettingOption(click.Option):
    """Option of one setting. Its own default is None, since a file or a preset may give the value.

    It is eager: help shows the defaults that result from the settings before `--help`.
    """

    def __init__(self, declarations: Sequence[str], *, setting: Setting, config_type: type[Any]) -> None:
        self.setting, self.config_type = setting, config_type
        metavar = _metavar(setting)
        super().__init__(declarations, default=None, help=setting.help, metavar=metavar, is_eager=True)

    def get_help_record(self, context: click.Context) -> tuple[str, str] | None:
        """Returns its flags, and its help with default and bounds."""
        record, (setting, default) = super().get_help_record(context), self._with_default(context)
        return record and (record[0], _help(setting, default))

    def help_records(self, context: click.Context) -> Iterator[tuple[str, tuple[str, str] | None]]:
        """Yields its heading and record, then those of the chosen component's settings without an option."""
        yield self._with_default(context)[0].heading or "Settings", self.get_help_record(context)
        options = {each.name: each for each in context.command.params if isinstance(each, SettingOption)}
        if self.setting.registry and any(each.setting.default_varies for each in options.values()):
            config = self._config(context)
            heading = f"Settings of {self.setting.of(config)} itself, given by --set KEY=VALUE"
            for each in settings_of(config):
                if each.name not in options:
                    yield heading, (f"{each.name} {_metavar(each)}", _help(each, each.of(config)))

    def _with_default(self, context: click.Context) -> tuple[Setting, Any]:
        """Returns the setting as the chosen component has it, and its default."""
        if not self.setting.default_varies:
            return self.setting, self.setting.default
        config = self._config(context)
        return next((each, each.of(config)) for each in settings_of(config) if each.name == self.name)

    def _config(self, context: click.Context) -> Any:
        """Returns the config that results from the options before `--help` whose default is fixed."""
        options = [each for each in context.command.params if isinstance(each, SettingOption)]
        names = [each.name for each in options if not each.setting.default_varies]
        given = {name: value for name in names if (value := context.params.get(name)) is not None}
        return resolve(self.config_type, context.command.name or "", options=given)


def _help(setting: Setting, default: Any) -> str:
    """Returns what a setting means, with its default and bounds."""
    text = default_text(default)
    if setting.shown:
        text = setting.shown if default == setting.default else f"{text}, {setting.shown}"
    return f"{setting.help}  [default: {'; '.join(filter(None, (text, setting.bounds)))}]"


def settings(
    config_type: type[Any],
    stage: str,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    vary: bool = False,
) -> Callable[[F], F]:
    """Gives a command `--config`, `--set`, and one option for each setting of `config_type`.

    The command receives the resolved config as `config`, which is also printed to stderr. Settings without
    effect are not printed: those that concern clips (`of_clips`) if `store` is a feature cache, those of the
    CNNs if an `encoder` is given, since it has its own, and those that the config itself calls `idle`.

    Args:
        stage: the config's table in a TOML file.
        presets: settings by the name of their preset, for `--preset`.
        vary: for a sweep. Instead of `config` the command receives `several`, name -> values of each setting
            with several values in `--set`; `single`, name -> value of all others that are given; and
            `check`, a function that takes choices among the former, checks all settings with each of them,
            and prints the config of the first.
    """
    options = settings_of(config_type)

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def call(*, config_file: Path | None, sets: tuple[str, ...], **values: Any) -> Any:
            by_option = {each.name: value for each in options if (value := values.pop(each.name)) is not None}
            preset = (presets or {}).get(values.pop("preset", None) or "", {})

            def check(*choices: Mapping[str, Any]) -> Any:
                sources: dict[str, Any] = {"preset": preset, "file": config_file, "sets": sets}
                given = [{**by_option, **choice} for choice in choices]
                configs = [resolve(config_type, stage, **sources, options=each) for each in given]
                _check_used(sets, configs)
                on_cache = "store" in values and kind_of(values["store"]) == "cache"
                idle = [*getattr(configs[0], "idle", ()), *(config_type.of_clips if on_cache else ())]
                if values.get("encoder") is not None:  # it has CNNs of its own
                    idle += [kind for kind in ("visual", "audio") if not configs[0].changed([kind])]
                note(to_toml(configs[0], stage, idle).strip())
                return configs[0]

            if not vary:
                return command(config=check({}), **values)
            sets, several = varied(sets)  # `check` reads these `sets`, too
            # What is varied wins over a preset and a file, as every --set does
            beneath = {
                key: value
                for key, value in _values(preset, config_file, stage, ()).items()
                if key not in several and key.rpartition(".")[2] not in several
            }
            single = beneath | dict(map(split_set, sets)) | by_option
            return command(several=several, single=single, check=check, **values)

        added = _sources("KEY=VALUE", presets)
        for each in options:
            flag = each.name.replace("_", "-")
            names = f"--{flag}/--no-{flag}" if _metavar(each) == SWITCH else f"--{flag}"
            about = {"setting": each, "config_type": config_type}
            added.append(click.option(names, each.name, cls=SettingOption, **about))
        return with_options(command, call, added)

    return decorate


def varied(sets: Sequence[str]) -> tuple[tuple[str, ...], dict[str, list[str] | Range]]:
    """Divides `--set` items into those with one value, and name -> values or range of the others.

    >>> varied(["theta=0,0.03", "epochs=60", "lr=log:1e-4..1e-2"])
    (('epochs=60',), {'theta': ['0', '0.03'], 'lr': Range(low=0.0001, high=0.01, log=True)})

    Raises:
        ConfigError: one of several values is empty; a setting with several values is named twice.
    """
    several: dict[str, list[str] | Range] = {}
    named: set[str] = set()
    single: list[str] = []
    for item in sets:
        name, _, values = item.partition("=")
        key = name.strip().replace("-", "_")
        between = parse_range(values.strip())
        if key in several or (("," in values or between) and key in named):
            raise ConfigError(f"--set {item!r} names {key} again", hint="give all its values in one --set")
        named.add(key)
        if between is not None:
            several[key] = between
        elif "," in values:
            several[key] = listed = [value.strip() for value in values.split(",")]
            if "" in listed:
                raise ConfigError(
                    f"--set {item!r} holds an empty value", hint="separate values by single commas"
                )
        else:
            single.append(item)
    return tuple(single), several


def _check_used(sets: Sequence[str], configs: Sequence[Any]) -> None:
    """Checks that each setting of `--set` has an effect in at least one config.

    Raises:
        ConfigError: one belongs to a component that none of them has chosen.
    """
    used = {key for config in configs for each in settings_of(config) for key in (each.name, each.key)}
    for item in sets:
        key = split_set(item)[0].replace("-", "_")
        if key not in used:
            owner, _, name = key.rpartition(".")
            raise ConfigError(
                f"--set {item} has no effect: {(other := owner.rpartition('.')[2])} is not chosen",
                hint=f"choose {other}, or give --set {name}=VALUE",
            )


def loose_settings(
    stage: str,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    config_type: type[Any] | None = None,
) -> Callable[[F], F]:
    """Gives a command `--config`, `--set` and `--preset`; it gets the given values as `settings`, by name.

    They are checked when the settings of each head are resolved, since heads have different ones.

    Args:
        presets: settings by the name of their preset; None for no `--preset`.
        config_type: config of one head; `--set` must then not name settings of other heads.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def call(*, config_file: Path | None, sets: tuple[str, ...], **values: Any) -> Any:
            chosen = (presets or {}).get(values.pop("preset", None) or "", {})
            given = _values(chosen, config_file, stage, sets)
            if config_type is not None:
                _check_used(sets, [resolve(config_type, stage, options=given)])
            return command(settings=given, **values)

        return with_options(command, call, _sources("KEY=VALUE", presets))

    return decorate


def stage_settings(
    stages: Mapping[str, tuple[str, type[Any] | None]],
    presets: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> Callable[[F], F]:
    """Gives a command of several stages `--config`, `--preset` and `--set STAGE.KEY=VALUE`.

    Args:
        stages: parameter of the command -> (stage, type of its config). The command gets each config
            resolved, which is printed to stderr; for a type of None it gets name -> given value.
        presets: stage -> settings by the name of their preset; a name may stand in several stages.
    """
    names = {name for each in presets.values() for name in each}

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def call(
            *, config_file: Path | None, sets: tuple[str, ...], preset: str | None, **values: Any
        ) -> Any:
            by_stage: dict[str, list[str]] = {stage: [] for stage, _ in stages.values()}
            for item in sets:
                stage, dot, setting = item.partition(".")
                if not dot or stage not in by_stage:
                    raise ConfigError(
                        f"--set {item} names no stage", hint=f"--set STAGE.KEY=VALUE; stages are {listed}"
                    )
                by_stage[stage].append(setting)
            for name, (stage, config_type) in stages.items():
                chosen = presets.get(stage, {}).get(preset or "", {})
                if config_type is None:
                    values[name] = _values(chosen, config_file, stage, by_stage[stage])
                    continue
                config = resolve(config_type, stage, preset=chosen, file=config_file, sets=by_stage[stage])
                _check_used(by_stage[stage], [config])
                note(to_toml(config, stage).strip())
                values[name] = config
            return command(**values)

        listed = ", ".join(stage for stage, _ in stages.values())
        return with_options(command, call, _sources("STAGE.KEY=VALUE", names, f" of a stage ({listed})"))

    return decorate


def with_options(command: F, call: Callable[..., Any], options: Sequence[Callable[[Any], Any]]) -> F:
    """Returns `call`, which takes the place of a command, with options that help lists in this order."""
    for add in reversed(options):
        call = add(call)
    return typing.cast(F, call)


def _values(preset: Mapping[str, Any], file: Path | None, stage: str, sets: Sequence[str]) -> dict[str, Any]:
    """Returns name -> value of a preset, a file and `--set`; the last source wins."""
    table = {} if file is None else flat(read_table(file, stage))
    return {**preset, **table, **dict(map(split_set, sets))}


def _sources(metavar: str, presets: Collection[str] | None, of: str = "") -> list[Callable[[Any], Any]]:
    """Returns the options `--config`, `--set`, and `--preset` if there are presets."""
    added = [
        click.option(
            "--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings."
        ),
        click.option(
            "--set", "sets", multiple=True, metavar=metavar, help=f"One setting{of}; may be repeated."
        ),
    ]
    if presets:
        choice = click.Choice(sorted(presets))
        added.append(
            click.option("--preset", type=choice, help="A named set of settings, such as the paper's.")
        )
    return added


def _metavar(setting: Setting) -> str:
    """Returns what help shows for the value of a setting: its choices, or its type."""
    kind = setting.value_type
    if is_union(kind):  # such as float | None
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    parts = typing.get_args(kind)
    if setting.registry is not None or typing.get_origin(kind) is typing.Literal:
        return "[" + "|".join(map(str, setting.registry or parts)) + "]"
    words = {"a whole number": "INTEGER", "a number": "NUMBER", "text": "TEXT", "true or false": SWITCH}
    if typing.get_origin(kind) is tuple:
        return ",".join("..." if part is Ellipsis else words.get(describe(part), "VALUE") for part in parts)
    return words.get(describe(kind), "PATH")


def dataset_options(command: F) -> F:
    """Gives a command the options of a dataset: `annotations`, `format`, and `format_settings` as a dict."""
    choices = click.Choice(["auto", *DATASET_FORMATS])
    options = [
        click.option(
            "--format", type=choices, default="auto", help="Format of the dataset; auto goes by its files."
        ),
        click.option(
            "--format-set",
            "format_sets",
            multiple=True,
            metavar="KEY=VALUE",
            help="One setting of the format; may be repeated.",
        ),
        click.option(
            "--annotations",
            type=click.Path(path_type=Path),
            help="CSV or Parquet of events in a plain folder of videos, ActivityNet's JSON or DESED's TSV.  "
            "[default: the format's own file; none in a plain folder]",
        ),
    ]

    @functools.wraps(command)
    def call(*, format_sets: tuple[str, ...], **values: Any) -> Any:
        pairs = (split_set(item, "--format-set", "longest_seconds=60") for item in format_sets)
        settings = {key.replace("-", "_"): value for key, value in pairs}
        return command(format_settings=settings, **values)

    return with_options(command, call, options)


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
"""Gives a command `--json`, which prints the result as one JSON document on stdout."""
