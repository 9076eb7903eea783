"""Disks that fill up: a small tmpfs, which can grow, and commands that may write small files only."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from avel.console import ERROR

BLOCK = 512
"""Bytes in the unit of `ulimit -f`."""


@dataclass(frozen=True)
class SmallDisk:
    """A mounted tmpfs."""

    path: Path

    def remount(self, options: str) -> None:
        """Changes its options: "size=1m", "nr_inodes=0" for no limit, "ro"."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)

    def fill(self) -> None:
        """Fills it with a file of its own, to the last byte."""
        found = os.statvfs(self.path)
        (self.path / "filler").write_bytes(bytes(found.f_bavail * found.f_frsize))

    def give(self, room: int) -> None:
        """Gives so many bytes of the filler back."""
        filler = self.path / "filler"
        os.truncate(filler, max(0, filler.stat().st_size - room))


@contextmanager
def small_disk(path: Path, options: str) -> Iterator[SmallDisk]:
    """A tmpfs at `path`, for as long as the block runs; skips where this user may not mount."""
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def avel(*arguments: str | Path, largest_file: int | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `avel -q`; where `largest_file` is given, no process of it can write a file of more bytes."""
    command = [sys.executable, "-m", "avel", "-q", *map(str, arguments)]
    if largest_file is not None:
        limit = f'ulimit -S -f {largest_file // BLOCK}; exec "$@"'
        command = ["sh", "-c", limit, "sh", *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def check_refusal(ended: subprocess.CompletedProcess[str], place: Path, why: str) -> None:
    """Asserts that a command ended with exit 1, one line that names the place and why, and the next step."""
    assert ended.returncode == ERROR, (ended.returncode, ended.stdout, ended.stderr)
    check_words(ended.stderr, place, why)


def check_words(said: str, place: Path, why: str = "No space left on device") -> None:
    """Asserts that an error is one line that names the place and why, and the next step."""
    what, step = said.splitlines()
    assert what.startswith(f"avel: error: {place}"), what
    assert why in what
    assert step == "  next: free some space or repair the disk, then give the same command again"
