"""The clip store that tests of the loader and of whole runs share."""

import pytest

from avel.stores.clips import ClipStore
from tests.pipeline.pretraining.clip_store import make_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """Eight staged clips, two of them of val."""
    return make_store(tmp_path_factory.mktemp("store") / "clips.zarr")
