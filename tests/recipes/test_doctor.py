"""`avel doctor`: what it finds here, and what it says where something is wrong."""

import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from avel.ahead import limit_threads
from avel.cli import cli
from avel.console import ERROR, run
from avel.errors import AvelError
from avel.pipeline.media import log_mel
from avel.progress import set_verbosity
from avel.recipes import doctor as module
from avel.recipes.doctor import doctor


def test_this_machine_is_well(tmp_path: Path) -> None:
    found = doctor(tmp_path / "not" / "made yet")
    by_name = {check.name: check for check in found.checks}
    assert by_name["one clip"].passed, by_name["one clip"].found
    assert f"torch {metadata.version('torch')}" in by_name["versions"].found
    assert "h264" in by_name["decoders"].found
    assert str(tmp_path) in by_name["disk"].found
    assert len(found.lines()) == len(found.checks) + sum(not check.passed for check in found.checks)


def test_weights_that_are_neither_here_nor_to_be_had_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(module.socket, "create_connection", refused)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (weights,) = [check for check in doctor(tmp_path, self_test=False).checks if "weights" in check.name]
    assert not weights.passed
    assert "no network" in weights.found
    for name in ("resnet50-0676ba61.pth", "vggish-10086976.pth"):
        assert str(tmp_path / "hub" / "checkpoints" / name) in weights.hint
    found = doctor(tmp_path, self_test=False)
    assert found.passed, "one can work without them"
    assert "without published weights" in found.headline()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    for name in ("resnet50-0676ba61.pth", "vggish-10086976.pth"):
        (tmp_path / "hub" / "checkpoints" / name).write_bytes(b"")
    (weights,) = [check for check in doctor(tmp_path, self_test=False).checks if "weights" in check.name]
    assert weights.passed


def test_more_threads_than_cores_are_named(tmp_path: Path) -> None:
    limit_threads(1)
    torch.set_num_threads(3)
    try:
        (threads,) = [each for each in doctor(tmp_path, self_test=False).checks if each.name == "threads"]
    finally:
        limit_threads(None)
    assert (threads.passed, threads.hint) == (False, "--threads 1")
    assert threads.found.startswith("3 threads on 1 core")


def test_a_full_disk_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_DISK_GB", 1e9)
    found = doctor(tmp_path, self_test=False)
    assert not found.passed
    lines = found.lines()
    place = next(number for number, line in enumerate(lines) if line.startswith("FAIL  disk"))
    assert lines[place + 1].startswith("      next: free at least")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKED_LIBRARIES", ("avel", "no-such-library"))
    (versions, *_) = doctor(tmp_path, self_test=False).checks
    assert not versions.passed
    assert "no-such-library" in versions.hint


@pytest.mark.parametrize(("library", "failing"), [("torch", "threads"), ("av", "decoders")])
def test_a_library_that_cannot_be_imported_fails_its_checks_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, failing: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    checks = {check.name: check for check in doctor(tmp_path, self_test=False).checks}
    assert not checks[failing].passed
    assert checks[failing].hint
    assert library in checks[failing].found
    assert checks["disk"].passed


def test_a_stage_that_fails_is_reported_not_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise AvelError("no patches today")

    monkeypatch.setattr(log_mel, "log_mel", broken)
    *_, clip = doctor(tmp_path).checks
    assert (clip.name, clip.passed) == ("one clip", False)
    assert "no patches today" in clip.found
    assert clip.hint


def test_verbose_says_where_a_stage_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`avel -v doctor`, as the failed check says; an error without a message, too."""

    def broken(*_: Any) -> None:
        raise ValueError

    monkeypatch.setattr(log_mel, "log_mel", broken)
    try:
        assert run(cli, ["-v", "doctor"]) == ERROR
    finally:
        set_verbosity(1)
    shown = capsys.readouterr()
    assert re.search(r"FAIL  one clip +ValueError\n +next: avel -v doctor", shown.out)
    assert "Traceback" in shown.err
    assert ", in broken" in shown.err
