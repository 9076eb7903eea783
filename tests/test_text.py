"""Results as text."""

import json
import math
from dataclasses import dataclass
from typing import Literal

import pytest

from avel.text import as_plain, from_plain, lines, table


def test_people_read_aligned_lines() -> None:
    shown = lines({"clips": 2, "nested": {"a": 0.25, "long name": True}, "list": [1, 2], "none": None})
    assert shown == [
        "clips   2",
        "nested",
        "  a          0.25",
        "  long name  yes",
        "list    1, 2",
        "none    none",
    ]


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
