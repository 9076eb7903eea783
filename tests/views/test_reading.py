"""A run finds the cache it was trained on, or says what lies there instead and what to do."""

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from avel.cli import cli
from avel.errors import StoreError
from avel.heads.train import train_head
from avel.stores.runs import Run
from avel.views.reading import open_cache
from tests.heads.synthetic import write_cache


def test_another_cache_in_the_place_of_the_old_one(tmp_path: Path) -> None:
    cache, run = write_cache(tmp_path / "my features.h5"), tmp_path / "run"
    train_head(cache, run, head="mlp", seeds=1, epochs=2, merge="add", device="cpu")
    assert open_cache(Run.open(run)).path == cache
    write_cache(cache, seed=1)
    with pytest.raises(StoreError, match="other features or samples; it is now made by encoder unknown"):
        open_cache(Run.open(run))
    write_cache(cache, segments=4, events=5)
    with pytest.raises(StoreError, match=r"4 segments instead of 6, other classes \(5, were 3\)") as error:
        open_cache(Run.open(run))
    command = shlex.split(error.value.hint.partition(" or ")[2])
    assert CliRunner().invoke(cli, command[1:]).exit_code == 0
    assert open_cache(Run.open(f"{run}-again")).grid_segments == 4
