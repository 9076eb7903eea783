"""The sdist and the wheel: fit to be published, and whole when installed in a fresh environment."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("avel", "pyproject.toml", "README.md", "LICENSE")


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was made from it."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", made, cwd=source)
    return made


def test_what_is_built_may_be_published(built: Path) -> None:
    files = sorted(built.iterdir())
    assert [path.name.split("-")[0] for path in files] == ["avel", "avel"]
    shown = run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=built)
    assert shown.count("PASSED") == 2


def test_a_wheel_runs_in_an_environment_of_its_own(built: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=tmp_path,
    )
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # torch and the like, not copied
    command = tmp_path / "env" / "bin" / "avel"
    assert run(python, "-P", "-c", "import avel; print(avel.__file__)", cwd=tmp_path).startswith(str(site))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in run(command, "--version", cwd=tmp_path)
    assert "torch" in run(command, "doctor", cwd=tmp_path)
    sources = (path.relative_to(ROOT) for path in (ROOT / "avel").rglob("*") if path.is_file())
    assert not [path for path in sources if path.suffix != ".pyc" and not (site / path).is_file()]
