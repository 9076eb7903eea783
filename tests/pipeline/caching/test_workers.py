"""Workers of one machine share its devices, whenever they join."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from avel.pipeline.caching.workers import place_of


def test_each_worker_of_a_machine_has_a_place_of_its_own_also_one_that_joins_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert [place_of(name) for name in ("tcp://a:1", "tcp://a:2", "tcp://a:1")] == [0, 1, 0]
    code = "from avel.pipeline.caching.workers import place_of; print(place_of('tcp://a:3'))"
    for _ in range(2):  # the place of one that has ended is free again
        late = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert late.stdout == "2\n"
