"""What every command shares: options made from config dataclasses, printing, errors and exit codes."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import sys
import traceback
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from avel.config import describe, resolve, to_toml
from avel.errors import AvelError, ConfigError, UnknownNameError
from avel.progress import note, set_verbosity
from avel.text import as_plain, lines

F = TypeVar("F", bound=Callable[..., Any])

DONE, ERROR, USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: all done, error, wrong usage, finished but some clips failed, interrupted."""


def settings(
    config_type: type[Any],
    stage: str,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    vary: bool = False,
) -> Callable[[F], F]:
    """Gives a command one option for each field of `config_type`, `--config` and `--set`.

    The command receives the resolved config as `config`, after it was printed to stderr. With `vary`, a
    `--set` of several values is not resolved but given to the command: `settings`, name to values.
    """
    names = [field.name for field in dataclasses.fields(config_type)]

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def call(*, config_file: Path | None, sets: tuple[str, ...], **values: Any) -> Any:
            given = {name: value for name in names if (value := values.pop(name)) is not None}
            chosen = (presets or {}).get(values.pop("preset", None) or "", {})
            if vary:
                _refuse_lists(config_type, sets)
                sets, values["settings"] = varied(sets)
                _refuse_both(values["settings"], given)
            config = resolve(config_type, stage, preset=chosen, file=config_file, sets=sets, options=given)
            note(to_toml(config, stage).strip())
            return command(config=config, **values)

        for add in reversed(_options(config_type, presets)):
            call = add(call)
        return typing.cast(F, call)

    return decorate


def varied(sets: Sequence[str]) -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """The `--set` items of one value as they are, and those of several values as name -> values.

    >>> varied(["theta=0,0.03", "epochs=60"])
    (('epochs=60',), {'theta': ['0', '0.03']})

    Raises:
        ConfigError: an empty value among several; a setting named twice, at least once with several values.
    """
    several: dict[str, list[str]] = {}
    named: set[str] = set()
    for item in sets:
        name, _, values = item.partition("=")
        key = name.strip().replace("-", "_")
        if key in several or ("," in values and key in named):
            raise ConfigError(f"--set {item!r} names {key} again", hint="give all its values in one --set")
        named.add(key)
        if "," in values:
            several[key] = [value.strip() for value in values.split(",")]
            if "" in several[key]:
                raise ConfigError(
                    f"--set {item!r} holds an empty value", hint="separate values by single commas"
                )
    return tuple(item for item in sets if "," not in item), several


def _refuse_both(settings: Mapping[str, Sequence[str]], given: Mapping[str, Any]) -> None:
    """Raises where a swept setting was given as an option too, which would do nothing."""
    for key in settings:
        if key in given:
            flag = f"--{key.replace('_', '-')} {given[key]}"
            raise ConfigError(
                f"{flag} beside --set {key}={','.join(settings[key])}", hint="give its values in --set alone"
            )


def _refuse_lists(config_type: type[Any], sets: Sequence[str]) -> None:
    """Raises where a setting that is itself a list is given several values: they would be taken apart."""
    hints = typing.get_type_hints(config_type)
    for item in sets:
        name, _, values = item.partition("=")
        hinted = hints.get(name.strip().replace("-", "_"))
        if "," in values and describe(hinted).startswith("a comma-separated list"):
            flag = name.strip().replace("_", "-")
            raise ConfigError(
                f"--set {item!r}: {name} is a list, which a sweep cannot vary",
                hint=f"--{flag} {values} gives it to all members",
            )


def stage_settings(
    stages: Mapping[str, tuple[str, type[Any]]], presets: Mapping[str, Mapping[str, Any]], preset_of: str
) -> Callable[[F], F]:
    """Gives a command of several stages `--config`, `--preset` and `--set STAGE.KEY=VALUE`.

    Args:
        stages: parameter of the command -> (stage, its config); each is resolved, and printed to stderr.
        preset_of: the stage that presets are about.
    """

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
                chosen = presets.get(preset or "", {}) if stage == preset_of else {}
                config = resolve(config_type, stage, preset=chosen, file=config_file, sets=by_stage[stage])
                note(to_toml(config, stage).strip())
                values[name] = config
            return command(**values)

        for add in reversed(_sources("STAGE.KEY=VALUE", presets)):
            call = add(call)
        return typing.cast(F, call)

    return decorate


def _sources(metavar: str, presets: Mapping[str, Any] | None) -> list[Callable[[Any], Any]]:
    """The options by which settings come in bulk: a file, `--set`, and presets where there are any."""
    added = [
        click.option(
            "--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings."
        ),
        click.option("--set", "sets", multiple=True, metavar=metavar, help="One setting; may be repeated."),
    ]
    if presets:
        choice = click.Choice(sorted(presets))
        added.append(click.option("--preset", type=choice, help="Settings of a row of the paper, by name."))
    return added


def _options(config_type: type[Any], presets: Mapping[str, Any] | None) -> list[Callable[[Any], Any]]:
    hints = typing.get_type_hints(config_type)
    added = _sources("KEY=VALUE", presets)
    for field in dataclasses.fields(config_type):
        added.append(_option(field, hints[field.name]))
    return added


def _option(field: dataclasses.Field[Any], hinted: Any) -> Callable[[Any], Any]:
    flag = field.name.replace("_", "-")
    shown = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    text = f"{field.metadata['help']}  [default: {shown}]"
    if hinted is bool:
        return click.option(f"--{flag}/--no-{flag}", field.name, default=None, help=text)
    metavar = {"a whole number": "INTEGER", "a number": "NUMBER", "text": "TEXT"}.get(describe(hinted))
    if typing.get_origin(hinted) is typing.Literal:
        metavar = "[" + "|".join(map(str, typing.get_args(hinted))) + "]"
    return click.option(f"--{flag}", field.name, metavar=metavar or "TEXT", help=text)


def json_option(command: F) -> F:
    """`--json`: the result as one JSON document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")(
        command
    )


def show(result: Any, as_json: bool) -> None:
    """Prints a result on stdout: JSON for scripts, aligned `name  value` lines for people."""
    plain = as_plain(result)
    if as_json:
        click.echo(json.dumps(plain, indent=2))
        return
    for line in lines(plain):
        click.echo(line)


def show_rows(results: Sequence[Any], as_csv: bool) -> None:
    """Prints results of one kind on stdout with all they hold: CSV, a line each, or JSON."""
    rows = [as_plain(result) for result in results]
    if not as_csv:
        click.echo(json.dumps(rows, indent=2))
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(json.dumps(cell) if isinstance(cell, dict) else cell for cell in row.values())


def run(group: click.Group, arguments: list[str] | None = None) -> int:
    """Runs the command line and gives its exit code; every error ends with what to do next."""
    try:
        code = group.main(arguments, prog_name="avel", standalone_mode=False)
    except click.exceptions.Abort:
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = USAGE
    except AvelError as error:
        note(traceback.format_exc().rstrip(), level=2)
        click.echo(f"avel: error: {error}", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        code = ERROR
    if code == INTERRUPTED:
        click.echo("avel: interrupted; give the same command again to go on", err=True)
    return code if isinstance(code, int) else DONE


def verbosity(quiet: bool, verbose: bool) -> None:
    """Sets how much is written to stderr."""
    set_verbosity(0 if quiet else 2 if verbose else 1)
