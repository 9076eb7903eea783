"""Serves all commands: help, kinds of paths, printing, errors, exit codes."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from avel.ahead import limit_threads
from avel.errors import AvelError
from avel.progress import note, set_verbosity
from avel.stores.kinds import CommandPath, Kind, check_paths
from avel.text import as_plain, csv_cell, printable, wrapped

DONE, ERROR, USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: all done, error, wrong usage, finished but some clips failed, interrupted."""
LONGEST_CHOICES = 20
"""Most characters of choices beside a flag; help lists longer ones in the text of the option."""
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
        narrow = [(name, told.replace("-", UNBROKEN)) for name, told in map(_narrow, rows)]
        super().write_dl(narrow, *args, **more)


class Context(click.Context):
    """Context of every command, whose help is written by `Formatter`."""

    formatter_class = Formatter


class Command(click.Command):
    """A command whose help lists its options under headings, and that takes the options of all commands.

    A short name such as `-v` is an option only as a word of its own, since ids of clips may begin with a
    dash, as `-vIdeoOfaDog` does.
    """

    context_class = Context

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params += _for_every_command()

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments, in which -q, -v and -h as words of their own become the long names."""
        end = args.index("--") if "--" in args else len(args)
        full = {"-q": "--quiet", "-v": "--verbose", "-h": "--help"}
        return super().parse_args(context, [full.get(word, word) for word in args[:end]] + args[end:])

    def invoke(self, context: click.Context) -> Any:
        """Runs the command, if each of its paths is of a kind that it takes."""
        arguments = [each for each in self.params if isinstance(each, click.Argument)]
        alone = all(isinstance(each.type, PathTo) for each in arguments)  # paths are the only arguments
        check_paths(self.name or "", _paths(arguments, context), alone=alone)
        for option in self.params:
            if isinstance(option, click.Option):
                check_paths(self.name or "", _paths([option], context))
        try:
            return super().invoke(context)
        except EOFError as error:  # click would take it for an interruption
            raise RuntimeError(f"avel {self.name}: EOFError: {error}") from error

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options, those of the command first and those of every command last."""
        listed: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(context):
            if not isinstance(parameter, click.Option):
                continue
            usual = EVERY_COMMAND if {"--json", "--help"} & set(parameter.opts) else "Options"
            shown = [(getattr(parameter, "heading", usual), parameter.get_help_record(context))]
            if hasattr(parameter, "help_records"):  # an option of a setting
                shown = parameter.help_records(context)
            for heading, record in shown:
                listed.setdefault(heading, []).extend([record] if record else [])
        last = listed.pop(EVERY_COMMAND)
        for heading, records in (listed | {EVERY_COMMAND: last}).items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records, col_max=FLAG_COLUMNS)


def _paths(parameters: Iterable[click.Parameter], context: click.Context) -> list[CommandPath]:
    """Returns the paths that were given, for the parameters that take paths."""
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
    """Returns flags and help of an option, made to fit into 80 columns, and with a default in any case."""
    flags, help = record
    flags = re.sub(r"--([\w-]+) / --no-\1", r"--[no-]\1", flags).replace(" RANGE", "")
    # click writes bounds as [x>=1]
    help = re.sub(r"x>=(\S+)\]", r"at least \1]", help)
    help = re.sub(r"x>(\S+)\]", r"above \1]", help)
    help = re.sub(r"(\S+)<=x<=(\S+)\]", r"from \1 to \2]", help)
    # An option that takes a value, and has no default
    if re.match(r"-.* [A-Z[]", flags) and not re.search(r"\[(default:|required)", help):
        help = re.sub(r"(  \[[^]]*\])?$", r"  [default: none]\1", help, count=1)
    help = re.sub(r"(\[default: .*)\]  \[", r"\1; ", help)
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
    threads = "Threads that compute and read.  [default: one per core]"
    return [
        EveryCommandOption("--threads", threads, limit_threads, type=click.IntRange(1), metavar="N"),
        EveryCommandOption("--quiet", quiet, lambda _: set_verbosity(0), is_flag=True),
        EveryCommandOption("--verbose", verbose, lambda _: set_verbosity(2), is_flag=True),
    ]


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
    """Runs the command line, prints any error with what to do next, and returns the exit code."""
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
