"""Fixtures and rules that every test shares: the real data, and what may not be skipped silently.

AVEL_SHARED names the folder of real data (default ../shared). With AVEL_REQUIRE_SHARED=1 a test that uses it
fails instead of being skipped; AVEL_REQUIRE_GPU=1 and AVEL_REQUIRE_BROWSER=1 do the same for tests marked
`gpu` and `browser`.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from avel import ahead
from avel.progress import set_verbosity
from tests.chromium import browser
from tests.stores.s3_server import s3_server

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run beside one another: one thread each. Torch reads this at its import, so do processes of tests.
    os.environ["OMP_NUM_THREADS"] = "1"

OMP_NUM_THREADS = os.environ.get("OMP_NUM_THREADS")
SHARED = Path(os.environ.get("AVEL_SHARED", "../shared"))


@pytest.fixture(autouse=True)
def usual_verbosity() -> None:
    """Undoes what a test before has silenced: files of tests run in any order."""
    set_verbosity(1)


@pytest.fixture(autouse=True)
def usual_threads() -> Iterator[None]:
    """Undoes what `--threads` of a test has set, for this process, its children and torch."""
    yield
    if ahead.thread_limit is not None:
        ahead.limit_threads(int(OMP_NUM_THREADS) if OMP_NUM_THREADS else None)
        ahead.thread_limit = None


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps tables whole: pytest-xdist passes the terminal's width to its workers, and tables obey it."""
    monkeypatch.delenv("COLUMNS", raising=False)


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


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket."""
    with s3_server() as url:
        yield url


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A driver of a Chromium with a fresh profile."""
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def gpu(request: pytest.FixtureRequest) -> None:
    """Skips a test marked `gpu` where there is none."""
    if request.node.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns a skip into a failure where AVEL_REQUIRE_* says that the test must run."""
    report = yield
    uses_shared = "shared" in getattr(item, "fixturenames", ()) or item.get_closest_marker("shared")
    demanded = (uses_shared and os.environ.get("AVEL_REQUIRE_SHARED")) or any(
        item.get_closest_marker(mark) and os.environ.get(f"AVEL_REQUIRE_{mark.upper()}")
        for mark in ("gpu", "browser")
    )
    if report.skipped and demanded and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although it must run here: {report.longrepr}"
    return report
