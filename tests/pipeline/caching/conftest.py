"""What the tests of the feature cache start from: a store of eleven clips, one failed, and an encoder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.pipeline.caching.small_stores import NAMES, encoder_run, write_store


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small lose with more threads, by much where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "clips.zarr", NAMES, failed=NAMES[4:5])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return encoder_run(tmp_path / "run")
