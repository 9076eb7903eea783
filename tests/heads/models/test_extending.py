"""docs/extending.md: its head, in a package of its own, is found through the entry point and trains."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.heads.synthetic import write_cache

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"


def block(language: str) -> str:
    """The page's first code block of a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_head_of_the_page_trains_from_a_package_of_its_own(tmp_path: Path) -> None:
    code = block("python")
    assert len(code.splitlines()) <= 32
    package = tmp_path / "site"
    described = package / "gated-1.0.dist-info"
    described.mkdir(parents=True)
    (package / "gated.py").write_text(code)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: gated\nVersion: 1.0\n")
    section, line = block("toml").splitlines()
    assert section == '[project.entry-points."avel.heads"]'
    (described / "entry_points.txt").write_text(f"[avel.heads]\n{line.replace(chr(34), '')}\n")
    cache = write_cache(tmp_path / "features.h5")
    program = (
        "import sys; from avel.heads.train import train_head\n"
        "found = train_head(sys.argv[1], sys.argv[2], head='gated', d_e=16, epochs=40, seeds=2)\n"
        "print(found['groups']['gated']['accuracy_percent']['mean'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(cache), str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) > 70
