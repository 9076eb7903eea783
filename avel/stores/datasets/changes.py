"""Says how the samples of a dataset differ from those that a store has of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from avel.stores.datasets.dataset import Dataset, Description, read_description, split_sizes

if TYPE_CHECKING:
    import pyarrow as pa


def changes(before: Mapping[str, pa.Table], dataset: Dataset) -> list[str]:
    """Lists in words what differs between a dataset and the tables "samples" and "events" of a store.

    Returns [] if neither the tables nor the classes differ, even if the format or its settings do.

    Raises:
        DatasetError: the table "samples" of the store is damaged.
    """
    about, now = read_description(before["samples"]), dataset.tables()
    compared = {name: (before[name], now[name]) for name in ("samples", "events")}
    found = []
    for name, (old, new) in (compared | {"classes": (about.categories, dataset.categories)}).items():
        if len(old) != len(new):
            found.append(f"{name}: {len(old):,} before, {len(new):,} now")
        elif old != new:
            found.append(f"{name}: {len(new):,} as before, but not the same")
    if found:  # else the splits are the same, and those of a million samples take memory
        splits = [split_sizes(sorted(table["samples"]["split"].to_pylist())) for table in (before, now)]
        if splits[0] != splits[1]:
            found.append(f"splits: {splits[0]} before, {splits[1]} now")
    formats = [_format_text(each) for each in (about, dataset)]
    if found and formats[0] != formats[1]:
        found.insert(0, f"{formats[0]} before, {formats[1]} now")
    return found


def _format_text(described: Dataset | Description) -> str:
    """Returns the format that a dataset was read as, with its settings."""
    return " ".join((f"format {described.format or 'unknown'}", *described.format_settings))
