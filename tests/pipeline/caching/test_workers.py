"""Workers of one machine share its devices, whenever they join."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from avel.errors import AvelError
from avel.pipeline.caching import workers
from avel.pipeline.caching.encode import Work
from avel.pipeline.caching.workers import place_of
from avel.pipeline.config import CacheConfig
from avel.stores.feature_parts import Parts


def kill_itself(work: Any, sources: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_call_with_the_way_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_encode_on_device", kill_itself)
    recipe: dict[str, Any] = {"preprocessing": {"dtype": "float32"}}
    work = Work("", None, CacheConfig(device="cpu,cpu"), recipe, Parts(Path()))
    with pytest.raises(AvelError, match=r"was killed.*\n.*the same command goes on.*--batch-size"):
        list(workers.encode_all(work, [{"a": "1"}, {"b": "2"}], None))


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
