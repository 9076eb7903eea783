"""What the tests of plots and report share."""

import pytest

from tests.views.made import Made, make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A staged dataset with awkward names, its cache, and two short head runs."""
    return make(tmp_path_factory.mktemp("made"))
