"""Defines the group of all commands, the decorator that adds one, and what several of them take."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from avel.ahead import limit_threads
from avel.console import Command, Context, PathTo, path_of
from avel.progress import set_verbosity

PATH = click.Path(path_type=Path)
STORE, CACHE, RUN = PathTo("store", text=True), PathTo("cache"), PathTo("run")
STORE_OR_CACHE = PathTo("store", "cache", text=True)
NEW_RUN = PathTo("run", made=True)
ENCODER, ANNOTATED = PathTo("run", "file", "dataset"), PathTo("dataset", meant="a folder of annotations")
SPLIT = click.Choice(["val", "test"])
SEGMENTS = click.option(
    "--segments",
    type=click.IntRange(1),
    help="Segments T of a clip.  [default: 10, or those of the longest clip that is annotated]",
)
SEGMENT_SECONDS = click.option(
    "--segment-seconds",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    help="Length of one segment in seconds.",
)


def after_training(run: Path | str) -> str:
    """Returns the command that comes next after a run of heads."""
    return f"avel report {path_of(run)} --out report"


class InOrder(click.Group):
    """Lists its commands in the order in which they are defined, which is that in which one uses them."""

    command_class = Command
    context_class = Context

    def list_commands(self, context: click.Context) -> list[str]:
        """Returns the names in order of definition."""
        return list(self.commands)


@click.group(
    cls=InOrder,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 120,
        "show_default": True,
    },
)
@click.version_option(package_name="avel", prog_name="avel")
@click.option("-q", "--quiet", is_flag=True, help="Print errors and results only.")
@click.option("-v", "--verbose", is_flag=True, help="Print the traceback of an error.")
@click.option(
    "--threads", type=click.IntRange(1), help="Threads that compute and read.  [default: one per core]"
)
def cli(quiet: bool, verbose: bool, threads: int | None) -> None:
    """Audio-visual event localization: clips -> staging -> AV-BT encoders -> features -> fusion heads.

    --quiet, --verbose and --threads may stand before or after COMMAND.
    """
    set_verbosity(0 if quiet else 2 if verbose else 1)
    if threads is not None:
        limit_threads(threads)


def in_lines(example: str) -> str:
    """Returns an example indented, and broken before options where it would pass 80 columns."""
    lines = [""]
    for part in re.split(r" (?=--)", example):
        if len(lines[-1]) + len(part) > 70:
            lines.append("")
        lines[-1] += f" {part}"
    return "  " + " \\\n     ".join(lines).lstrip()


def command(*examples: str, **more: Any) -> Callable[[Callable[..., int]], click.Command]:
    """Adds a command to `cli`; its help ends with the examples."""
    return cli.command(epilog="\b\nExample:\n" + "\n".join(map(in_lines, examples)), **more)
