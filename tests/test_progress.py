"""Progress: lines with rate, failures and time left where there is no terminal."""

import time

import pytest

from avel import progress


def test_a_line_says_where_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress(4, "clips") as bar:
        bar.advance(3, failed=1, note="loss 0.5")
        assert "clips 3/4" in bar.line()
        assert "1 failed" in bar.line()
        assert "loss 0.5" in bar.line()
        bar.advance()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "clips 4/4" in shown.err


def test_a_line_every_so_often(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    with progress.Progress(3, "epochs") as bar:
        bar.advance()
        bar.advance()
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_long_step_shows_that_it_is_at_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(progress, "TICK_SECONDS", 0.01)
    with progress.Progress(1, "films"):
        time.sleep(0.3)
    assert "films 0/1" in capsys.readouterr().err


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress.set_verbosity(0)
    try:
        with progress.Progress(1, "clips") as bar:
            bar.advance()
        progress.note("hello")
    finally:
        progress.set_verbosity(1)
    assert capsys.readouterr().err == ""
