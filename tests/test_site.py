"""The documentation as a site: built strictly, asking no other server for anything, at work from disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.chromium import console, phone

ROOT = Path(__file__).parent.parent
PAGES = sorted(page.stem for page in (ROOT / "docs").glob("*.md"))
WAIT_SECONDS = 20.0
FETCHED = re.compile(r"""<(?:script|img|iframe|source)[^>]*?\ssrc=["']?([^"'\s>]+)|<link\s([^>]*)>""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it: a page left out, or a link or anchor to nothing, ends it."""
    out = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "WARNING" not in built.stderr
    return out


@pytest.mark.parametrize("page", PAGES)
def test_a_page_fetches_nothing_from_elsewhere(site: Path, page: str) -> None:
    html = (site / f"{page}.html").read_text()
    links = [found.group(2) or f'href="{found.group(1)}"' for found in FETCHED.finditer(html)]
    fetched = [link for link in links if 'rel="canonical"' not in link]
    assert len(fetched) > 3
    assert [link for link in fetched if "//" in link] == []


@pytest.mark.browser
@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_from_disk_on_screen_and_phone(site: Path, driver: Any, page: str) -> None:
    driver.get((site / f"{page}.html").as_uri())
    assert driver.find_element("tag name", "h1").text
    assert driver.execute_script("return [...document.images].every((image) => image.naturalWidth > 0)")
    requests = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert [name for name in driver.execute_script(requests) if not name.startswith("file:")] == []
    phone(driver)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert console(driver) == []


@pytest.mark.browser
def test_the_search_finds_from_disk(site: Path, driver: Any) -> None:
    driver.get((site / "index.html").as_uri())
    field = driver.find_element("css selector", ".md-search__input")
    field.click()
    field.send_keys("stackable")
    end = time.monotonic() + WAIT_SECONDS
    while not (found := driver.find_elements("css selector", ".md-search-result__link")):
        assert time.monotonic() < end, "the search found nothing"
        time.sleep(0.05)
    assert any("extending.html" in link.get_attribute("href") for link in found)
    assert console(driver) == []
