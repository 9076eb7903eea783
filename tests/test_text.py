"""Results as text."""

from avel.text import lines, table


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
