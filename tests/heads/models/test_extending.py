"""docs/extending.md: its head, in a package of its own, is found through the entry point and trains."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from avel.console import DONE, USAGE
from tests.heads.synthetic import write_cache
from tests.installed import block, install

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "extending.md"
IN_TURN = """
import contextlib, io, json, sys
from avel.cli import cli
from avel.console import run
codes, printed = [], []
for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        codes.append(run(cli, words))
    printed.append(out.getvalue())
print(json.dumps([codes, printed]))
"""
"""Runs commands in one process, which spares the start of the others: exit codes, and what each printed."""


def test_the_head_of_the_page_trains_from_a_package_of_its_own(tmp_path: Path) -> None:
    page = PAGE.read_text()
    assert len(block(page, "python").splitlines()) <= 40
    package = install(page, "gated", "avel.heads", tmp_path)
    cache, run = write_cache(tmp_path / "features.h5"), tmp_path / "runs" / "layers"

    shared = ("--head", "gated", "--set", "gate=tanh", "--epochs", "30", "--seeds", "2")
    other, picture, page = tmp_path / "runs" / "sigmoid", tmp_path / "layers.svg", tmp_path / "page"
    commands: list[tuple[object, ...]] = [
        ("heads",),
        ("heads", "gated"),
        ("sweep", cache, run, *shared, "--set", "n_layers=1,2", "--json"),
        ("plot", run, "sweep", "--setting", "n_layers", "--out", picture),
        ("report", run, "--out", page, "--no-tsne"),
        ("train-head", cache, other, "--head", "gated", "--epochs", "2"),
        ("runs", tmp_path / "runs"),
        ("train-head", "--head", "gated", "--help"),
        ("train-head", cache, tmp_path / "r", "--head", "gated", "--set", "n_layers=9"),
    ]
    ended = subprocess.run(
        [sys.executable, "-c", IN_TURN],
        env=os.environ | {"PYTHONPATH": f"{package}:{ROOT}", "OMP_NUM_THREADS": "1"},
        input=json.dumps([list(map(str, words)) for words in commands]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    codes, (heads, settings, swept, _, _, _, listed, help, _) = json.loads(ended.stdout)
    assert codes == [DONE] * 8 + [USAGE], ended.stderr
    assert "gated" in heads
    assert re.search(r"gate +one of sigmoid, tanh +sigmoid +Function that makes", settings)
    assert re.search(r"n_layers +a whole number, from 1 to 8 +1 +Layers", settings)
    assert "Settings of gated itself, given by --set KEY=VALUE:\n  gate [sigmoid|tanh]  Function" in help
    assert re.search(r"n_layers INTEGER +Layers of the classifier.\s+\[default: 1; from 1 to 8\]", help)
    results = json.loads(swept)
    assert set(results["groups"]) == {"n_layers=1", "n_layers=2"}
    assert results["groups"]["n_layers=1"]["accuracy_percent"]["mean"] > 70
    assert "n_layers: Layers" in picture.read_text()
    assert '"setting":"n_layers"' in (page / "data" / "summary.js").read_text()
    config = tomllib.loads((run / "config.toml").read_text())["train-head"]
    assert (config["head"], config["gated"]["gate"], config["seeds"]) == ("gated", "tanh", 2)
    assert "gated n_layers=2" in listed
    assert "gate=tanh" in listed
    assert "gate=sigmoid" in listed
    assert "n_layers='9' must be at most 8" in ended.stderr
