"""Annotations that say of each second whether it holds the clip's class: vectors of ten 0 or 1."""

import itertools
import json
from typing import Any

from avel.errors import DatasetError
from avel.stores.datasets.event_table import TableRow
from avel.stores.datasets.sample import Event

LENGTH = 10
"""Seconds of a clip, each with a value of its own."""


def rows_of_vector(name: str, category: str, value: Any, split: str, where: str) -> tuple[TableRow, ...]:
    """Returns a row for each run of ones, an event of whole seconds; without ones, a row without event.

    Args:
        value: ten 0 or 1, as a list, a list that holds only that list, or the text of either.

    Raises:
        DatasetError: it is something else.
    """
    ones = _parsed(name, value, where)
    edges = [0, *(place for place in range(1, LENGTH) if ones[place] != ones[place - 1]), LENGTH]
    events: list[Event | None] = [
        Event(category, onset, offset, where) for onset, offset in itertools.pairwise(edges) if ones[onset]
    ]
    return tuple(TableRow(name, event, split, where) for event in events or [None])


def _parsed(name: str, value: Any, where: str) -> list[bool]:
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):  # brackets in brackets, thousands deep
        found = None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, list) or len(found) != LENGTH or not all(one in (0, 1) for one in found):
        raise DatasetError(
            f"{where} ({name}): {value!r} is not a list of {LENGTH} numbers, each 0 or 1",
            hint="each number says of a second whether it holds the event",
        )
    return [one == 1 for one in found]
