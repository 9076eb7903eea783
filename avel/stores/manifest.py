"""Reads and writes the manifest of a clip store: one entry per video, with its state and the reason for it.

It is a folder of Parquet parts. Where two parts have an entry of one video, the later part counts. A part is
whole or absent. Parts are merged now and then; a killed merge leaves entries twice, which reads the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, get_args

from avel.errors import StoreError
from avel.stores.arrow import read_own_parquet, to_parquet
from avel.stores.location import Location

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "manifest"
PART = re.compile(FOLDER + r"/part-(\d{8,18})\.parquet")
MERGE_AT_PARTS = 64
MEND = "remove this file, and avel extract stages again the clips that it listed"
READ_ATTEMPTS = 5
LONGEST_DETAIL = 500

State = Literal["staged", "failed", "pending"]
Cause = Literal["new", "source-changed", "settings-changed", "retry-failed", "overwrite"]


@dataclass(frozen=True)
class Entry:
    """State of one video in a store.

    Attributes:
        row: its index in the arrays.
        state: "staged" (frames and log-mel are whole), "failed", or "pending" (to be staged, or in progress).
        cause: why it was, or has to be, staged.
        reason: why it failed, from the closed list `avel.pipeline.media.refusal.REASONS`; "" unless failed.
        detail: message of the decoder, or damage of the staged clip.
        source_path, source_bytes, source_mtime_ns, source_sha256: the file at the time it was read.
        settings: digest of the settings it was staged with.
        audio: "stream", or "silence" where the grid has no audio of the file.
        valid_seconds: seconds of the grid that the source covers; the rest is padding.
        decode_seconds ... write_seconds: time spent on each step.
        peak_mib: most memory that the decoding process has used so far.
    """

    video_id: str
    row: int
    state: State = "pending"
    cause: Cause = "new"
    reason: str = ""
    detail: str = ""
    source_path: str = ""
    source_bytes: int = 0
    source_mtime_ns: int = 0
    source_sha256: str = ""
    settings: str = ""
    audio: str = ""
    valid_seconds: float = 0.0
    decode_seconds: float = 0.0
    scale_seconds: float = 0.0
    jpeg_seconds: float = 0.0
    audio_seconds: float = 0.0
    write_seconds: float = 0.0
    peak_mib: int = 0


def failed(entry: Entry, reason: str, detail: str) -> Entry:
    """Returns the entry as failed, with the detail cut to a readable length."""
    return replace(entry, state="failed", reason=reason, detail=detail[:LONGEST_DETAIL])


def read_manifest(location: Location) -> dict[str, Entry]:
    """Returns the latest entry of every video by its id, in array order.

    Raises:
        StoreError: a part is damaged.
    """
    rows: dict[str, Entry] = {}
    for table in _tables(location):
        for row in table.to_pylist():
            rows[row["video_id"]] = Entry(**row)
    return dict(sorted(rows.items(), key=lambda item: item[1].row))


def to_table(entries: Iterable[Entry]) -> pa.Table:
    """Returns entries as an Arrow table, one row per video."""
    import pyarrow as pa

    return pa.Table.from_pylist([vars(entry) for entry in entries], schema=_schema())


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    types = {each.name: kinds.get(str(each.type), pa.string()) for each in fields(Entry)}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


class ManifestWriter:
    """Only writer of a store's manifest."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._parts = _parts(location)
        self.entries = read_manifest(location)

    def append(self, entries: Iterable[Entry]) -> None:
        """Writes `entries` as a new part."""
        new = list(entries)
        if not new:
            return
        self.entries |= {entry.video_id: entry for entry in new}
        self._write(new)
        if len(self._parts) >= MERGE_AT_PARTS:
            self.merge()

    def merge(self) -> None:
        """Replaces all parts by one."""
        old = list(self._parts)
        if len(old) > 1:
            self._write(sorted(self.entries.values(), key=lambda entry: entry.row))
            self._location.delete(old)
            self._parts = self._parts[len(old) :]

    def _write(self, entries: list[Entry]) -> None:
        number = int(PART.fullmatch(self._parts[-1])[1]) + 1 if self._parts else 0  # type: ignore[index]
        name = f"{FOLDER}/part-{number:08d}.parquet"
        self._location.write(name, to_parquet(to_table(entries)))
        self._parts.append(name)


def counts(entries: Mapping[str, Entry]) -> dict[str, int]:
    """Counts the videos in each state, and those that failed for each reason ("failed:no-audio")."""
    found: dict[str, int] = dict.fromkeys(get_args(State), 0)
    for entry in entries.values():
        found[entry.state] += 1
        if entry.state == "failed":
            found[f"failed:{entry.reason}"] = found.get(f"failed:{entry.reason}", 0) + 1
    return found


def _parts(location: Location) -> list[str]:
    """Lists the parts, oldest first; other files in the folder are none."""
    return [name for name in location.names(FOLDER) if PART.fullmatch(name)]


def _tables(location: Location) -> list[pa.Table]:
    """Reads the parts, oldest first; starts again where a merge removed one meanwhile."""
    choices = {"state": get_args(State), "cause": get_args(Cause)}
    for _ in range(READ_ATTEMPTS):
        found = {name: location.read(name) for name in _parts(location)}
        if None in found.values():
            continue
        return [
            read_own_parquet(data, _schema(), f"{location.url}/{name}", MEND, choices)
            for name, data in found.items()
            if data is not None
        ]
    raise StoreError(
        f"{location.url}: the manifest changes faster than it can be read", hint="try again later"
    )
