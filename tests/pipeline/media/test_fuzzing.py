"""Mutants of small media files are read or refused: in a process of their own, which a crash would end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MUTANTS = 600


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [7, 8])
def test_mutants_are_read_or_refused_with_a_reason(tmp_path: Path, seed: int) -> None:
    command = [sys.executable, "-m", "tests.pipeline.media.fuzzing", str(tmp_path), str(MUTANTS), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # a mutant that ended it is tmp_path/mutant
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert sum(found["ends"].values()) == MUTANTS
    assert found["ends"]["read"] > 0.2 * MUTANTS  # not all of them are broken
    assert found["ends"]["unreadable"] + found["ends"]["truncated"] > 0.2 * MUTANTS
