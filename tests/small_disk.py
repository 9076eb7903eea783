"""Disks that fill up: a small tmpfs, which can grow, and commands that may write small files only."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

BLOCK = 512
"""Bytes in the unit of `ulimit -f`."""


@dataclass(frozen=True)
class SmallDisk:
    """A mounted tmpfs."""

    path: Path

    def remount(self, options: str) -> None:
        """Changes its options: "size=1m", "nr_inodes=0" for no limit, "ro"."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)

    def free(self) -> int:
        """Bytes that may still be written."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int) -> Path:
        """A file that takes all but `leave` bytes."""
        file = self.path / "filler"
        file.write_bytes(bytes(self.free() - leave))
        return file


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
    """Holds that a command ended with exit 1, one line that names the place and why, and the next step."""
    assert ended.returncode == 1, (ended.returncode, ended.stdout, ended.stderr)
    what, step = ended.stderr.splitlines()
    assert what.startswith(f"avel: error: {place}"), what
    assert why in what
    assert step == "  next: make room or mend the place, then the same command again"
