"""Progress: lines with rate, failures and time left where there is no terminal, a bar where there is one."""

import os
import pty
import re
import subprocess
import sys
import time

import pytest

from avel import progress


def test_a_line_says_where_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress(4, "clips") as bar:
        bar.advance(3, failed=1, note="loss 0.5")
        assert "clips 3/4" in bar.line()
        assert " s left" in bar.line()
        assert "1 failed" in bar.line()
        assert "loss 0.5" in bar.line()
        bar.advance()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "clips 4/4" in shown.err


def test_the_time_left_follows_from_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = progress.Progress(50, "clips", start=10)
    now[0] += 6.0
    assert bar.line() == "clips 10/50  6.0 s so far"
    now[0] += 2.0
    bar.advance(4)  # two seconds a clip, 36 to go; those of an earlier run tell nothing
    assert "clips 14/50  2.0 s each  72 s left" in bar.line()
    now[0] += 992.0  # four clips in 1000 s
    assert "clips 14/50  250.0 s each  2.5 h left" in bar.line()
    bar.advance(36)
    assert bar.line().endswith("in 1000.0 s")


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


def test_a_line_names_the_stage() -> None:
    bar = progress.Progress(3, "epochs", of="tacma, seed 0")
    bar.advance()
    assert bar.line().startswith("tacma, seed 0: epochs 1/3  ")


@pytest.mark.parametrize("columns", [80, 140])
def test_a_bar_keeps_count_and_time_left_within_the_width(columns: int) -> None:
    code = f"""
import os
os.environ["COLUMNS"] = "{columns}"
from avel.progress import Progress
with Progress(1000, "clips", of="CNN vectors") as progress:
    progress.advance(400, failed=12, note="loss 0.25, probe 31.2, moved 1e-3")
"""
    words = in_a_terminal(code)
    assert "400/1000" in words
    assert sum(bool(re.fullmatch(r"\d:\d\d:\d\d", word)) for word in words) >= 2
    last = " ".join(words[max(place for place, word in enumerate(words) if word == "CNN") :])
    assert len(last) <= columns
    assert last.endswith("...") == (columns == 80)


NOTES = """
from avel.progress import Progress, note
note("[bold]3 of 4[/bold] clips in a[b].zarr")
with Progress(4, "clips") as progress:
    progress.advance(3, failed=1)
    note("epoch 3: " + 30 * "loss 0.25 " + "moved 1e-3")
    progress.advance()
note("done")
"""


def in_a_terminal(code: str) -> list[str]:
    """The words that Python code shows on a terminal at its stderr."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 1 << 16):
            shown += block
    except OSError:  # Linux's way to say that the other end is closed
        pass
    assert process.wait() == 0
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).split()


def test_notes_are_the_same_words_in_a_terminal_and_in_a_log() -> None:
    log = subprocess.run([sys.executable, "-c", NOTES], capture_output=True, text=True, check=True).stderr
    terminal = " ".join(in_a_terminal(NOTES))
    assert "━" in terminal
    notes = [line for line in log.splitlines() if not line.startswith("clips ")]
    assert len(notes) == 3
    for line in notes:
        assert " ".join(line.split()) in terminal
    assert "clips 4/4" in log
    assert re.search(r"\d:\d\d:\d\d \d:\d\d:\d\d", terminal)  # time so far, time left
    for figure in ("4/4", "clips/s", "1 failed"):
        assert figure in log
        assert figure in terminal


def test_a_notebook_shows_one_bar_that_moves() -> None:
    """A cell runs in a kernel, and its one output is replaced, the last time by the whole."""
    client = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel")
    import nbformat

    cell = nbformat.v4.new_code_cell(
        "from avel.progress import Progress\n"
        "with Progress(3, 'clips', of='a <b>') as progress:\n"
        "    for _ in range(3):\n"
        "        progress.advance(note='loss 0.1')\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[cell])
    client.NotebookClient(notebook, timeout=60).execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert output.data["text/plain"].startswith("a <b>: clips 3/3  ")
    assert output.data["text/html"].startswith('<progress max="3" value="3"></progress> <code>a &lt;b&gt;: ')
    assert "loss 0.1" in output.data["text/html"]
