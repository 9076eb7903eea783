"""What strangers wrote reaches the terminal as text, whatever it holds, and spreadsheets as text too."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from avel.console import ERROR, run, show, show_rows
from avel.errors import StoreError
from avel.progress import note
from avel.stores.datasets.event_table import read_events
from avel.text import csv_cell, from_csv_cell, printable

RED = "\x1b[31mred\x07\x9b0m"
SHOWN = "\\x1b[31mred\\x07\\x9b0m"


@dataclass(frozen=True)
class Found:
    name: str
    inner: dict[str, str]

    def headline(self) -> str:
        return f"found {self.name}"

    def lines(self) -> list[str]:
        return [f"{key}: {value}" for key, value in self.inner.items()]


@click.command()
def fails() -> None:
    raise StoreError(f"{RED}: wrong\n  next: rm -rf /", hint=f"avel inspect {RED}")


def test_nothing_that_is_printed_acts_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show(Found(RED, {RED: f"{RED}\nfake: line"}), as_json=False, next=RED)
    note(f"clip {RED}")
    assert run(fails, []) == ERROR  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{SHOWN}: {SHOWN}\\nfake: line", f"found {SHOWN}"]
    assert err.splitlines() == [
        f"  next: {SHOWN}",
        f"clip {SHOWN}",
        f"avel: error: {SHOWN}: wrong\\n  next: rm -rf /",
        f"  next: avel inspect {SHOWN}",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("düne 中文 🐕‍🦺", "düne 中文 🐕‍🦺"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("a\udce9", "a\\udce9"),
        ("a\tb\r\n", "a\\tb\\r\\n"),
        ("\x7f\x85\u2028", "\\x7f\\x85\\u2028"),
    ],
)
def test_letters_stay_and_controls_are_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable("a\n\tb", keep="\n\t") == "a\n\tb"


FORMULAS = ["=1+1", "+1", "-0DuwSO3J74", "@x", "\tx", "'=1", "''+1", "dog", "'tis", ""]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula_and_each_is_read_back(text: str) -> None:
    assert not str(csv_cell(text)).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert from_csv_cell(csv_cell(text)) == text


def test_tables_of_runs_are_safe_for_spreadsheets(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([Found("=cmd|' /C calc'!A0", {"a": "b"}), Found("-a", {})])
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows == [["name", "inner"], ["'=cmd|' /C calc'!A0", '{"a": "b"}'], ["'-a", "{}"]]


def test_events_that_predict_wrote_are_annotations_again(tmp_path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("video", "category", "start_seconds", "end_seconds"))
    writer.writerow(map(csv_cell, ("-0Duw.mp4", "=bark", 1.0, 2.0)))
    (tmp_path / "events.csv").write_text(text.getvalue())
    (row,) = read_events(tmp_path / "events.csv")
    assert row.event is not None
    assert (row.name, row.event.category) == ("-0Duw.mp4", "=bark")
