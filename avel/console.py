"""Serves all commands: options made from config dataclasses, printing, errors, exit codes."""

from __future__ import annotations

import csv
import functools
import json
import re
import shlex
import sys
import traceback
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from avel.ahead import limit_threads
from avel.config import (
    Range,
    Setting,
    default_text,
    flat,
    parse_range,
    read_table,
    resolve,
    settings_of,
    split_set,
    to_toml,
)
from avel.errors import AvelError, ConfigError, UnknownNameError
from avel.progress import note, set_verbosity
from avel.stores.datasets.formats import FORMATS as DATASET_FORMATS
from avel.stores.kinds import CommandPath, Kind, check_paths, kind_of
from avel.text import as_plain, csv_cell, describe, printable, wrapped

F = TypeVar("F", bound=Callable[..., Any])

DONE, ERROR, USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: all done, error, wrong usage, finished but some clips failed, interrupted."""
LONGEST_CHOICES = 20
"""Most characters of the choices that help shows beside a flag; more of them stand in its text."""
MOST_LISTED = 16
"""Most choices that help lists; for more of them it names the command that does."""
FLAG_COLUMNS = 24
"""Width of the column of flags; the help of longer ones begins in the next line."""
EVERY_COMMAND = "Every command"
"""Heading of the options that all commands take."""
UNBROKEN = "\0"
"""Stands for a hyphen while help is broken into lines, so that `--no-augment` keeps to one of them."""


class Formatter(click.HelpFormatter):
    """Writes help without breaking a word at a hyphen: one copies options from it."""

    def write(self, string: str) -> None:
        """Writes text whose lines are broken already."""
        super().write(string.replace(UNBROKEN, "-"))

    def write_text(self, text: str) -> None:
        """Writes paragraphs."""
        super().write_text(text.replace("-", UNBROKEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], *args: Any, **more: Any) -> None:
        """Writes a list of names with their meanings beside them."""
        super().write_dl([(name, told.replace("-", UNBROKEN)) for name, told in rows], *args, **more)


class Context(click.Context):
    """Context of every command, whose help is written by `Formatter`."""

    formatter_class = Formatter


class Command(click.Command):
    """A command whose help lists its options under headings, and that takes the options of all commands.

    Of these the short names count only where they stand alone, since ids of clips may begin with a dash: `-v`
    is an option, `-vIdeoOfaDog` an id.
    """

    context_class = Context

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params += _for_every_command()

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments, after writing out the short names -q, -v and -h where they stand alone."""
        end = args.index("--") if "--" in args else len(args)
        full = {"-q": "--quiet", "-v": "--verbose", "-h": "--help"}
        return super().parse_args(context, [full.get(word, word) for word in args[:end]] + args[end:])

    def invoke(self, context: click.Context) -> Any:
        """Runs the command, if each of its paths is of a kind that it takes."""
        arguments = [each for each in self.params if isinstance(each, click.Argument)]
        alone = all(isinstance(each.type, PathTo) for each in arguments)
        check_paths(self.name or "", _paths(arguments, context), alone=alone)
        for option in self.params:
            if isinstance(option, click.Option):
                check_paths(self.name or "", _paths([option], context))
        try:
            return super().invoke(context)
        except EOFError as error:  # which click takes for an interruption
            raise RuntimeError(f"avel {self.name}: EOFError: {error}") from error

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options, those of the command first and those of every command last."""
        listed: dict[str, list[tuple[str, str]]] = {"Options": []}
        last: list[tuple[str, str]] = []
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record is None or not isinstance(parameter, click.Option):
                continue
            heading = getattr(parameter, "heading", None) or "Options"
            if heading == EVERY_COMMAND or {"--json", "--help"} & set(parameter.opts):
                last.append(_narrow(record))
            else:
                listed.setdefault(heading, []).append(_narrow(record))
        for heading, records in (listed | {EVERY_COMMAND: last}).items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records, col_max=FLAG_COLUMNS)


def _paths(parameters: Iterable[click.Parameter], context: click.Context) -> list[CommandPath]:
    """Returns the paths that were given for those of the parameters that take some."""
    places = []
    for parameter in parameters:
        kind, value = parameter.type, context.params.get(parameter.name or "")
        if isinstance(kind, PathTo) and value is not None:
            name = parameter.human_readable_name.strip("[].")
            places += [
                CommandPath(name, str(path), kind.kinds, kind.made, kind.meant)
                for path in (value if isinstance(value, tuple) else (value,))
            ]
    return places


class PathTo(click.ParamType):  # type: ignore[type-arg]  # not generic in older releases
    """A path of certain kinds, the usual one first; it becomes a Path.

    Args:
        made: whether the command writes it.
        text: whether it stays text, since it may be a URL.
        meant: what the command takes, in words, if the name of the first kind does not say it.
    """

    name = "path"

    def __init__(self, *kinds: Kind, made: bool = False, text: bool = False, meant: str = "") -> None:
        self.kinds, self.made, self.text, self.meant = kinds, made, text, meant

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Returns the path."""
        return value if self.text else Path(value)


def _narrow(record: tuple[str, str]) -> tuple[str, str]:
    """Returns flags and help of an option, made to fit into 80 columns."""
    flags, help = record
    flags = re.sub(r"--([\w-]+) / --no-\1", r"--[no-]\1", flags).replace(" RANGE", "")
    help = re.sub(r"x>=(\S+)\]", r"at least \1]", help)
    choices_shown = re.search(r" \[([^\]]*\|[^\]]*)\]", flags)
    if choices_shown is None or len(choices_shown[1]) <= LONGEST_CHOICES:
        return flags, help
    text, bracket, default = help.partition("  [default")
    choices = choices_shown[1].split("|")
    listed = f" One of {', '.join(choices)}." if len(choices) <= MOST_LISTED else ""
    return flags.replace(choices_shown[0], " NAME"), f"{text}{listed}{bracket}{default}"


class EveryCommandOption(click.Option):
    """An option of all commands, whose value goes to `apply` and not to the command."""

    heading = EVERY_COMMAND

    def __init__(self, flag: str, help: str, apply: Callable[[Any], None], **more: Any) -> None:
        def callback(context: click.Context, option: click.Parameter, value: Any) -> None:
            if value:
                apply(value)

        super().__init__([flag], help=help, callback=callback, expose_value=False, **more)


def _for_every_command() -> list[click.Option]:
    quiet, verbose = "Print errors and results only (-q).", "Print the traceback of an error (-v)."
    threads, one = "Threads that compute and read.  [default: the cores]", click.IntRange(1)
    return [
        EveryCommandOption("--threads", threads, limit_threads, type=one, metavar="N"),
        EveryCommandOption("--quiet", quiet, lambda _: set_verbosity(0), is_flag=True),
        EveryCommandOption("--verbose", verbose, lambda _: set_verbosity(2), is_flag=True),
    ]


class SettingOption(click.Option):
    """Option of one setting. Its own default is None, since a file or a preset may give the value."""

    def __init__(self, declarations: Sequence[str], *, setting: Setting) -> None:
        self.heading, self.setting = setting.heading or "Settings", setting
        told = setting.help
        if setting.shown is not None:
            told += f"  [default: {setting.shown or default_text(setting.default)}]"
        switch = setting.value_type is bool
        super().__init__(declarations, default=None, help=told, metavar=None if switch else _metavar(setting))


def settings(
    config_type: type[Any],
    stage: str,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    vary: bool = False,
) -> Callable[[F], F]:
    """Gives a command `--config`, `--set`, and one option for each setting of `config_type`.

    The command receives the resolved config as `config`; it is also printed to stderr. Where `store` is a
    feature cache, the settings in the config's `of_clips`, which have no effect on one, are not printed.

    Args:
        stage: the config's table in a TOML file.
        presets: settings by the name of their preset, for `--preset`.
        vary: for a sweep: the command receives no config but `settings`, name -> values of each setting that
            has several in `--set`, and the other given settings as keywords.
    """
    options = settings_of(config_type)

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def call(*, config_file: Path | None, sets: tuple[str, ...], **values: Any) -> Any:
            by_option = {each.name: value for each in options if (value := values.pop(each.name)) is not None}
            chosen = (presets or {}).get(values.pop("preset", None) or "", {})
            sources: dict[str, Any] = {"preset": chosen, "file": config_file, "options": by_option}
            if not vary:
                config = resolve(config_type, stage, sets=sets, **sources)
                on_cache = "store" in values and kind_of(values["store"]) == "cache"
                note(to_toml(config, stage, config_type.of_clips if on_cache else ()).strip())
                return command(config=config, **values)
            sets, several = varied(sets)
            first = {
                name: values.low if isinstance(values, Range) else values[0]
                for name, values in several.items()
            }
            config = resolve(config_type, stage, sets=sets, **sources | {"options": by_option | first})
            _check_sweep(config, several, by_option)
            note(to_toml(config, stage).strip())
            return command(
                settings=several, **values, **_values(chosen, config_file, stage, sets) | by_option
            )

        return _with_options(command, call, _options(options, presets))

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


def _check_sweep(
    config: Any, several: Mapping[str, Sequence[str] | Range], by_option: Mapping[str, Any]
) -> None:
    """Checks that a sweep can vary these settings.

    Raises:
        ConfigError: a setting is also given as an option, which would have no effect, or is a list, whose
            commas separate its items.
    """
    for setting in settings_of(config):
        if setting.name not in several:
            continue
        swept_values = several[setting.name]
        values = str(swept_values) if isinstance(swept_values, Range) else ",".join(swept_values)
        flag = "--" + setting.name.replace("_", "-")
        swept = f"--set {setting.name}={values}"
        if setting.name in by_option:
            raise ConfigError(
                f"{flag} {by_option[setting.name]} beside {swept}", hint="give its values in --set alone"
            )
        if typing.get_origin(setting.value_type) is tuple:
            raise ConfigError(
                f"{swept}: {setting.name} is a list, which a sweep cannot vary",
                hint=f"{flag} {values} gives it to all trials",
            )


def loose_settings(stage: str, presets: Mapping[str, Mapping[str, Any]] | None = None) -> Callable[[F], F]:
    """Gives a command `--config` and `--set KEY=VALUE`; it receives the given values as `settings`, by name.

    They are checked when the settings of each head are resolved, since heads have different ones.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def call(*, config_file: Path | None, sets: tuple[str, ...], **values: Any) -> Any:
            chosen = (presets or {}).get(values.pop("preset", None) or "", {})
            return command(settings=_values(chosen, config_file, stage, sets), **values)

        return _with_options(command, call, _sources("KEY=VALUE", presets))

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
                    raise UnknownNameError("stage", stage, by_stage, where=f"--set {item}")
                by_stage[stage].append(setting)
            for name, (stage, config_type) in stages.items():
                chosen = presets.get(stage, {}).get(preset or "", {})
                if config_type is None:
                    values[name] = _values(chosen, config_file, stage, by_stage[stage])
                    continue
                config = resolve(config_type, stage, preset=chosen, file=config_file, sets=by_stage[stage])
                note(to_toml(config, stage).strip())
                values[name] = config
            return command(**values)

        return _with_options(command, call, _sources("STAGE.KEY=VALUE", names))

    return decorate


def _with_options(command: F, call: Callable[..., Any], options: Sequence[Callable[[Any], Any]]) -> F:
    """Returns `call`, which stands for a command, with these options in this order."""
    for add in reversed(options):
        call = add(call)
    return typing.cast(F, call)


def _values(preset: Mapping[str, Any], file: Path | None, stage: str, sets: Sequence[str]) -> dict[str, Any]:
    """Returns name -> value of a preset, a file and `--set`; the last source wins."""
    table = {} if file is None else flat(read_table(file, stage))
    return {**preset, **table, **dict(map(split_set, sets))}


def _sources(metavar: str, presets: Collection[str] | None) -> list[Callable[[Any], Any]]:
    """Returns the options `--config`, `--set`, and `--preset` if there are presets."""
    added = [
        click.option(
            "--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings."
        ),
        click.option("--set", "sets", multiple=True, metavar=metavar, help="One setting; may be repeated."),
    ]
    if presets:
        choice = click.Choice(sorted(presets))
        added.append(
            click.option("--preset", type=choice, help="Settings by a name, such as those of the paper.")
        )
    return added


def _options(options: Sequence[Setting], presets: Mapping[str, Any] | None) -> list[Callable[[Any], Any]]:
    """Returns the options of `_sources`, and one for each setting."""
    added = _sources("KEY=VALUE", presets)
    for setting in options:
        flag = setting.name.replace("_", "-")
        names = f"--{flag}/--no-{flag}" if setting.value_type is bool else f"--{flag}"
        added.append(click.option(names, setting.name, cls=SettingOption, setting=setting))
    return added


def _metavar(setting: Setting) -> str:
    """Returns what help shows for the value of a setting: its choices, or its type."""
    parts = typing.get_args(setting.value_type)
    if setting.registry is not None or typing.get_origin(setting.value_type) is typing.Literal:
        return "[" + "|".join(map(str, setting.registry or parts)) + "]"
    words = {"a whole number": "INTEGER", "a number": "NUMBER", "text": "TEXT"}
    if typing.get_origin(setting.value_type) is tuple:
        return ",".join("..." if part is Ellipsis else words[describe(part)] for part in parts)
    return words.get(describe(setting.value_type), "PATH")


def dataset_options(command: F) -> F:
    """Gives a command the options of a dataset: `annotations`, `format`, and `format_settings` as a dict."""
    choices = click.Choice(["auto", *DATASET_FORMATS])
    options = [
        click.option(
            "--format",
            type=choices,
            default="auto",
            help="Format of the dataset; auto goes by its files.",
        ),
        click.option(
            "--format-set",
            "format_sets",
            multiple=True,
            metavar="KEY=VALUE",
            help="One setting of the format.",
        ),
        click.option(
            "--annotations",
            type=click.Path(path_type=Path),
            help="CSV or Parquet of events in a plain folder of videos, ActivityNet's JSON or DESED's TSV.",
        ),
    ]

    @functools.wraps(command)
    def call(*, format_sets: tuple[str, ...], **values: Any) -> Any:
        settings = {key.replace("-", "_"): value for key, value in map(split_set, format_sets)}
        return command(format_settings=settings, **values)

    return _with_options(command, call, options)


def json_option(command: F) -> F:
    """Gives a command `--json`, which prints the result as one JSON document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")(
        command
    )


def show(
    result: Any,
    as_json: bool,
    lines_of: Callable[[Any], list[str]] | None = None,
    *,
    headline: str = "",
    next: str = "",
) -> None:
    """Prints a result on stdout, as JSON for scripts or as lines for people, and what is next on stderr.

    The lines are those of `lines_of`, or of the result's method `lines` if it has one. Then comes the result
    in one line: `headline`, or that of the result's method of this name.
    """
    if as_json:
        click.echo(json.dumps(as_plain(result), indent=2))
        return
    own: Callable[[], list[str]] = getattr(result, "lines", list)
    last = headline or result.headline()
    for line in [*(own() if lines_of is None else lines_of(result)), last]:
        for part in wrapped(printable(line), "  "):  # control characters do not reach the terminal
            click.echo(part)
    if next:
        note("\n".join(wrapped(f"  next: {next}", "    ")))


def path_of(path: Path | str) -> str:
    """Returns a path as one types it in a shell."""
    return shlex.quote(str(path))


def show_rows(results: Sequence[Any]) -> None:
    """Prints results of one kind on stdout as CSV, one line each."""
    rows = [as_plain(result) for result in results]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        cells = (json.dumps(cell) if isinstance(cell, dict) else cell for cell in row.values())
        writer.writerow(printable(csv_cell(cell)) if isinstance(cell, str) else cell for cell in cells)


def run(group: click.Group, arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code. Every error says what to do next."""
    try:
        code = group.main(arguments, prog_name="avel", standalone_mode=False)
    except click.exceptions.Abort:
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = USAGE
    except AvelError as error:
        note(traceback.format_exc().rstrip(), level=2)
        click.echo(f"avel: error: {printable(error.message)}", err=True)
        if error.hint:
            click.echo(f"  next: {printable(error.hint)}", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        click.echo("avel: interrupted; give the same command again to go on", err=True)
    return code if isinstance(code, int) else DONE
