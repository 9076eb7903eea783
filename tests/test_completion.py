"""Completion in the shell: its source is printed, it completes, and it loads nothing heavy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_architecture import HEAVY

ROOT = Path(__file__).parent.parent
AVEL = "import sys; from avel.cli import main; sys.argv = ['avel']; main()"


def completed(typed: str) -> list[str]:
    """What is proposed for the last word of a command line."""
    place = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    environment = os.environ | place | {"_AVEL_COMPLETE": "bash_complete"}
    command = [sys.executable, "-c", AVEL]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True).stdout
    return [line.removeprefix("plain,") for line in shown.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_source_is_printed_and_documented(shell: str) -> None:
    environment = os.environ | {"_AVEL_COMPLETE": f"{shell}_source"}
    command = [sys.executable, "-c", AVEL]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True).stdout
    assert f"_AVEL_COMPLETE={shell}_complete" in shown
    assert f"_AVEL_COMPLETE={shell}_source avel" in (ROOT / "docs" / "cli.md").read_text()


@pytest.mark.parametrize(
    ("typed", "proposed"),
    [
        ("avel ext", ["extract"]),
        ("avel train", ["train-head"]),
        ("avel extract d s --retry", ["--retry-failed"]),
        ("avel pretrain s r --preset table4", ["table4-agva", "table4-separate-projectors"]),
        ("avel evaluate r --split v", ["val"]),
    ],
)
def test_commands_options_and_choices_are_completed(typed: str, proposed: list[str]) -> None:
    assert completed(typed) == proposed


def test_completing_loads_nothing_heavy() -> None:
    code = f"""
import atexit, sys
atexit.register(lambda: print("MODULES", *sorted({{name.split(".")[0] for name in sys.modules}})))
{AVEL}
"""
    place = {"COMP_WORDS": "avel ext", "COMP_CWORD": "1", "_AVEL_COMPLETE": "bash_complete"}
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, env=os.environ | place, capture_output=True, text=True).stdout
    assert shown.startswith("plain,extract\n")
    assert not set(shown.split("MODULES ")[1].split()) & HEAVY
