"""Draws the pictures of the docs: `python docs/pictures.py DEMO`, DEMO being a folder made by `avel demo`.

The page is photographed with a headless Chromium (Debian: apt-get install chromium chromium-driver).
"""

from __future__ import annotations

import argparse
import base64
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from avel.views.plots.plot import plot
from avel.views.report.page import report

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

HEADS = ("mlp-audio", "mlp-visual", "mlp-untrained", "mlp-both", "tacma")
SETTLE_SECONDS = 2.0
TOP_WINDOW, WINDOW = (1280, 1020), (1280, 1640)


def main() -> None:
    """All pictures of the docs, from one demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path)
    demo: Path = parser.parse_args().demo
    runs = [demo / "heads" / name for name in HEADS]
    shutil.copyfile(demo / "demo.png", DOCS / "demo.png")
    images = DOCS / "images"
    for kind in ("confusion", "curves", "tsne"):
        plot(demo / "heads" / "tacma", kind, images / f"{kind}.png")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report"
        report(runs, page, copy_videos=True)
        photograph(page, Path(folder) / "profile", images)


def photograph(page: Path, profile: Path, images: Path) -> None:
    """The top of the page, and the clip browser on a screen and on a phone."""
    from tests.chromium import browser, phone

    with browser(profile) as driver:
        shots = {
            "report-top.png": ("header", False),
            "report-clips.png": ("#clips", False),
            "report-phone.png": (".player", True),
        }
        for name, (place, small) in shots.items():
            if small:
                phone(driver)
            else:
                driver.set_window_size(*(WINDOW if place == "#clips" else TOP_WINDOW))
            driver.get((page / "index.html").as_uri())
            time.sleep(SETTLE_SECONDS)
            driver.execute_script("showClips({ mistakes: 'wrong' }); selectClip(list.clips[0], 4.4)")
            time.sleep(SETTLE_SECONDS)
            driver.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
            driver.execute_script(f"document.querySelector('{place}').scrollIntoView()")
            time.sleep(SETTLE_SECONDS)
            (images / name).write_bytes(screen(driver))


def screen(driver: Any) -> bytes:
    """What is in view, as a PNG file."""
    return base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"])


if __name__ == "__main__":
    main()
