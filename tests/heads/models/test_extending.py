"""docs/extending.md: its head, in a package of its own, is found through the entry point and trains."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.heads.synthetic import write_cache

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "extending.md"


def block(language: str) -> str:
    """The page's first code block of a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_head_of_the_page_trains_from_a_package_of_its_own(tmp_path: Path) -> None:
    code = block("python")
    assert len(code.splitlines()) <= 40
    package = tmp_path / "site"
    described = package / "gated-1.0.dist-info"
    described.mkdir(parents=True)
    (package / "gated.py").write_text(code)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: gated\nVersion: 1.0\n")
    section, line = block("toml").splitlines()
    assert section == '[project.entry-points."avel.heads"]'
    (described / "entry_points.txt").write_text(f"[avel.heads]\n{line.replace(chr(34), '')}\n")
    cache, run = write_cache(tmp_path / "features.h5"), tmp_path / "runs" / "layers"

    def avel(*words: object) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "avel", *map(str, words)],
            env=os.environ | {"PYTHONPATH": f"{package}:{ROOT}", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "gated" in avel("heads")
    settings = avel("heads", "gated")
    assert re.search(r"gate +one of sigmoid, tanh +sigmoid +What turns", settings)
    assert re.search(r"n_layers +a whole number +1 +Layers", settings)
    shared = ("--head", "gated", "--set", "gate=tanh", "--epochs", "30", "--seeds", "2")
    results = json.loads(avel("sweep", cache, run, *shared, "--set", "n_layers=1,2", "--json"))
    assert set(results["groups"]) == {"n_layers=1", "n_layers=2"}
    assert results["groups"]["n_layers=1"]["accuracy_percent"]["mean"] > 70
    picture = tmp_path / "layers.svg"
    avel("plot", run, "sweep", "--setting", "n_layers", "--out", picture)
    assert "n_layers: Layers" in picture.read_text()
    avel("report", run, "--out", tmp_path / "page", "--no-tsne")
    assert '"setting":"n_layers"' in (tmp_path / "page" / "data" / "summary.js").read_text()
    config = tomllib.loads((run / "config.toml").read_text())["train-head"]
    assert (config["head"], config["gated"]["gate"], config["seeds"]) == ("gated", "tanh", 2)
    other = tmp_path / "runs" / "sigmoid"
    avel("train-head", cache, other, "--head", "gated", "--epochs", "2")
    listed = avel("runs", tmp_path / "runs")
    assert "gated n_layers=2" in listed
    assert "gate=tanh" in listed
    assert "gate=sigmoid" in listed
    failed = subprocess.run(
        [
            sys.executable,
            "-m",
            "avel",
            "train-head",
            str(cache),
            "r",
            "--head",
            "gated",
            "--set",
            "n_layers=9",
        ],
        env=os.environ | {"PYTHONPATH": f"{package}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 2
    assert "n_layers='9' must be at most 8" in failed.stderr
