"""Command line. Results go to stdout, progress and notes to stderr.

Exit codes: 0 all done, 1 error, 2 wrong usage, 3 finished but some clips failed, 130 interrupted.
"""

import gc
import sys

from avel.commands import features, heads, results, tools
from avel.commands.group import cli
from avel.console import run

__all__ = ["cli", "main"]
COMMAND_MODULES = (features, heads, results, tools)
"""Modules of the commands, in the order in which help lists them."""


def main() -> None:
    """Runs the `avel` command, and exits with its code."""
    code = run(cli)
    gc.freeze()  # else Python collects garbage over every module at exit, which takes 0.2 to 0.4 s
    sys.exit(code)
