"""Results as text."""

import json
import math
from dataclasses import dataclass
from typing import Literal

import pytest

from avel.text import as_plain, duration, from_plain, plural, size, table, wrapped


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (plural(1, "clip"), "1 clip"),
        (plural(1200, "class"), "1,200 classes"),
        (duration(0.25), "0.2 s"),
        (duration(12), "12 s"),
        (duration(200), "3.3 min"),
        (duration(9000), "2.5 h"),
        (size(1), "1 byte"),
        (size(13_409_138), "13.4 MB"),
    ],
)
def test_numbers_come_with_their_unit(shown: str, text: str) -> None:
    assert shown == text


ROWS = [("dog", "barks, and runs after the ball", "82.4 ± 3.6"), ("bell", "rings", "100.0 ± 0.0")]


def test_words_of_a_table_go_on_in_the_next_line_where_it_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "33")
    assert table(("class", "what it does", "recall"), ROWS) == [
        "class  what it does   recall",
        "-----  -------------  -----------",
        "dog    barks, and     82.4 ± 3.6",
        "       runs after",
        "       the ball",
        "bell   rings          100.0 ± 0.0",
    ]


def test_columns_that_are_too_many_follow_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    shown = table(("head", "one figure", "another"), [("psp", "82.4 ± 3.6", "12.0 ± 0.1")])
    assert shown == [
        "head  one figure",
        "----  ----------",
        "psp   82.4 ± 3.6",
        "",
        "head  another",
        "----  ----------",
        "psp   12.0 ± 0.1",
    ]


def test_a_pipe_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert len(table(("class", "words"), [("dog", "bark " * 60)])) == 3
    assert wrapped("word " * 60) == ["word " * 60]


def test_tables_align_numbers_right() -> None:
    assert table(("head", "accuracy"), [("tacma", 77.2), ("mlp", 5.0)]) == [
        "head   accuracy",
        "-----  --------",
        "tacma      77.2",
        "mlp           5",
    ]


@dataclass(frozen=True)
class Inner:
    figure: float
    name: str | None


@dataclass(frozen=True)
class Outer:
    by_name: dict[str, Inner]
    pair: tuple[float, int]
    kind: Literal["one", "two"]
    all: tuple[Inner, ...] = ()


def test_a_dataclass_comes_back_from_json_as_it_was() -> None:
    value = Outer({"a.b": Inner(0.5, None)}, (1.5, 2), "two", (Inner(math.inf, "x"),))
    assert from_plain(Outer, json.loads(json.dumps(as_plain(value)))) == value
    assert isinstance(from_plain(Inner, {"figure": 1, "name": None, "more": 0}).figure, float)


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        ({"figure": "1", "name": None}, "figure is '1', not a number"),
        ({"figure": True, "name": None}, "figure is True, not a number"),
        ({"figure": 1.0}, "name is missing"),
        ([], r"the value is \[\], not an object"),
    ],
)
def test_what_is_no_such_value_is_named_by_its_field(plain: object, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}$"):
        from_plain(Inner, plain)
