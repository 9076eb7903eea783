"""Mutants of every file but media end in an error of ours or in success, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ_SECONDS = float(os.environ.get("AVEL_FUZZ_SECONDS", "15"))
"""CPU time for each seed."""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [0, 1_000_000])
def test_mutants_of_every_file_end_in_our_error_or_in_success(tmp_path: Path, seed: int) -> None:
    command = [sys.executable, "-m", "tests.stores.fuzzing", str(tmp_path), str(FUZZ_SECONDS), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
