"""Fixtures that every test may use: the real data, where it is."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("AVEL_SHARED", "../shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and specifications; skips where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real data at {SHARED / 'data'}; set AVEL_SHARED to the folder that holds it")
    return SHARED.resolve()


@pytest.fixture(scope="session")
def data(shared: Path) -> Path:
    """The `data` folder of the real data."""
    return shared / "data"
