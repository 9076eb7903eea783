"""Says how the samples of a dataset differ from those that a store has of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from avel.stores.datasets.dataset import Dataset, Description, read_description, split_sizes

if TYPE_CHECKING:
    import pyarrow as pa


def changes(before: Mapping[str, pa.Table], dataset: Dataset) -> list[str]:
    """Lists in words what differs between a dataset and the tables "samples" and "events" of a store.

    The format and its settings are listed only where the tables or the classes differ, too.

    Raises:
        DatasetError: the table "samples" of the store is damaged.
    """
    about, now = read_description(before["samples"]), dataset.tables()
    found = []
    for name in ("samples", "events"):
        rows = before[name].num_rows, now[name].num_rows
        if rows[0] != rows[1]:
            found.append(f"{name}: {rows[0]:,} before, {rows[1]:,} now")
        elif not before[name].equals(now[name]):
            found.append(f"{name}: {rows[1]:,} as before, but not the same")
    if found:  # else the splits are the same, and those of a million samples take memory
        splits = [split_sizes(sorted(table["samples"]["split"].to_pylist())) for table in (before, now)]
        if splits[0] != splits[1]:
            found.append(f"splits: {splits[0]} before, {splits[1]} now")
    if about.categories != dataset.categories:
        found.append(f"classes: {len(about.categories):,} before, {len(dataset.categories):,} now")
    formats = [_reading(each) for each in (about, dataset)]
    if found and formats[0] != formats[1]:
        found.insert(0, f"{formats[0]} before, {formats[1]} now")
    return found


def _reading(read: Dataset | Description) -> str:
    """Returns the format that a dataset was read as, with its settings."""
    return " ".join((f"format {read.format or 'unknown'}", *read.format_settings))
