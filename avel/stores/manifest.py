"""Reads and writes the manifest of a clip store: one entry per video, with its state and the reason for it.

It is a folder of Parquet parts. Where two parts have an entry of one video, the later part counts. A part is
whole or absent. Once many of the last parts have similar sizes, they are merged into one. So parts stay few,
and each entry is rewritten few times. A killed merge leaves entries twice, which reads the same.

Entries are kept as columns, since a million objects take minutes and gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from avel.errors import StoreError
from avel.stores.arrow import read_own_parquet, to_parquet
from avel.stores.columns import BLOCK_RECORDS, TableColumns
from avel.stores.location import Location

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

MANIFEST_FOLDER = "manifest"
PART = re.compile(MANIFEST_FOLDER + r"/part-(\d{8,18})\.parquet")
MERGE_AT_PARTS = 16
"""Number of last parts of about the same size (`ManifestWriter._alike`) that are merged into one."""
PART_AGAIN = "remove this file, and avel extract stages again the clips that it listed"
READ_ATTEMPTS = 5
LONGEST_DETAIL = 500

State = Literal["staged", "failed", "pending"]
Cause = Literal["new", "source-changed", "settings-changed", "retry-failed", "overwrite", "damaged"]
Reason = Literal[
    "missing",  # there is no such file
    "empty",  # the file holds no bytes
    "unreadable",  # no container, stream or picture in the file can be read
    "truncated",  # it has less than one segment of video
    "no-video",  # it has no video, or none on the grid
    "no-audio",  # it has no audio on the grid, and missing_audio is "fail"
    "unsupported",  # this FFmpeg has no decoder for its codec
    "timeout",  # decoding took longer than the limit for one clip
    "crashed",  # decoding it ended the decoding process
    "memory",  # decoding it takes more memory than a process may use
]
CHOICES = {"state": get_args(State), "cause": get_args(Cause), "reason": ("", *get_args(Reason))}
"""Column -> the only texts that it may hold."""
ColumnValues: TypeAlias = "Sequence[Any] | NDArray[Any] | pa.Array | pa.ChunkedArray"


@dataclass(frozen=True)
class Entry:
    """State of one video in a store.

    Attributes:
        row: its index in the arrays.
        state: "staged" (frames and log-mel are whole), "failed", or "pending" (to be staged, or in progress).
        cause: why it was, or has to be, staged.
        reason: why it failed; "" unless failed.
        detail: message of the decoder, or damage of the staged clip.
        source_path, source_bytes, source_mtime_ns, source_sha256: the file at the time it was read.
        settings: digest of the settings it was staged with.
        audio: "stream", or "silence" where the grid has no audio of the file.
        stored_bytes: what its chunks take in the store.
        valid_seconds: seconds of the grid that the source covers; the rest is padding.
        decode_seconds ... write_seconds: time spent on each step.
        peak_mib: most memory that the decoding process has used so far.
        packed: whether its chunks lie in shards, where `avel pack` wrote them.
    """

    video_id: str
    row: int
    state: State = "pending"
    cause: Cause = "new"
    reason: Reason | Literal[""] = ""
    detail: str = ""
    source_path: str = ""
    source_bytes: int = 0
    source_mtime_ns: int = 0
    source_sha256: str = ""
    settings: str = ""
    audio: str = ""
    stored_bytes: int = 0
    valid_seconds: float = 0.0
    decode_seconds: float = 0.0
    scale_seconds: float = 0.0
    jpeg_seconds: float = 0.0
    audio_seconds: float = 0.0
    write_seconds: float = 0.0
    peak_mib: int = 0
    packed: bool = False


def failed(entry: Entry, reason: Reason, detail: str) -> Entry:
    """Returns the entry as failed, with the detail cut to a readable length."""
    return replace(entry, state="failed", reason=reason, detail=detail[:LONGEST_DETAIL])


class Manifest(TableColumns, Mapping[str, Entry]):
    """Entries of videos by their id, kept as columns; an entry is made when it is asked for.

    >>> manifest = Manifest(to_table([Entry("a", 0), Entry("b", 1, "failed", reason="timeout")]))
    >>> manifest["b"].reason, manifest.column("row").tolist(), manifest.where(state="failed").ids
    ('timeout', [0, 1], ['b'])
    """

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __getitem__(self, video_id: str) -> Entry:
        return next(self.blocks(1, self._place[video_id]))[0]

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._place

    @cached_property
    def ids(self) -> list[str]:
        """Returns the ids of the videos, in order."""
        return self.texts("video_id")

    @cached_property
    def _place(self) -> dict[str, int]:
        return {video_id: place for place, video_id in enumerate(self.ids)}

    def by_id(self, name: str) -> dict[str, Any]:
        """Returns id -> its value in a column."""
        return dict(zip(self.ids, self.table[name].to_pylist(), strict=True))

    def holds(self, **texts: str) -> NDArray[np.bool_]:
        """Returns for each entry whether its columns hold these texts."""
        import pyarrow.compute as pc

        found = np.ones(len(self), bool)
        for name, text in texts.items():
            found &= pc.equal(self.table[name], text).to_numpy()
        return found

    def where(self, **texts: str) -> Manifest:
        """Returns the entries whose columns hold these texts."""
        return self.filter(self.holds(**texts))

    @property
    def stored_bytes(self) -> int:
        """Returns the number of bytes that the chunks of all these clips take in the store."""
        return int(self.column("stored_bytes").sum())

    @property
    def packed_rows(self) -> NDArray[np.int64]:
        """Returns the rows of the clips that lie in shards: int64 (n,)."""
        rows: NDArray[np.int64] = self.column("row")[self.column("packed")]
        return rows

    def filter(self, chosen: NDArray[np.bool_]) -> Manifest:
        """Returns the chosen entries: bool (n,)."""
        return self.take(chosen.nonzero()[0])

    def take(self, places: NDArray[np.int64] | Sequence[int]) -> Manifest:
        """Returns the entries at these places."""
        import pyarrow as pa

        if np.array_equal(places, np.arange(len(self))):
            return self
        return Manifest(self.table.take(pa.array(places, pa.int64())))

    def blocks(self, size: int = BLOCK_RECORDS, start: int = 0) -> Iterator[list[Entry]]:
        """Yields the entries in order, `size` at a time."""
        for place in range(start, len(self), size):
            yield [Entry(**row) for row in self.table.slice(place, size).to_pylist()]

    def records(self) -> Iterator[Entry]:
        """Yields the entries in order; much faster than `values`, since it makes a block of them at once."""
        return chain.from_iterable(self.blocks())


def read_manifest(location: Location) -> Manifest:
    """Returns the latest entry of every video by its id, in array order.

    Raises:
        StoreError: a part is damaged.
    """
    return Manifest(_latest(_tables(location).values()))


def to_table(entries: Iterable[Entry]) -> pa.Table:
    """Returns entries as an Arrow table, one row per video."""
    import pyarrow as pa

    return pa.Table.from_pylist([vars(entry) for entry in entries], _schema())


def pending(
    video_ids: ColumnValues, rows: ColumnValues, causes: ColumnValues, paths: ColumnValues
) -> Manifest:
    """Returns entries of videos that are to be staged, from columns."""
    import pyarrow as pa

    given = {"video_id": video_ids, "row": rows, "cause": causes, "source_path": paths}
    default, schema = vars(Entry("", 0)), _schema()
    columns = [
        given.get(field.name, pa.repeat(pa.scalar(default[field.name], field.type), len(video_ids)))
        for field in schema
    ]
    return Manifest(pa.table(columns, schema))


def joined(*parts: Manifest) -> Manifest:
    """Returns the entries of all parts, one after another."""
    import pyarrow as pa

    return Manifest(pa.concat_tables([part.table for part in parts]))


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    types = {each.name: kinds.get(str(each.type), pa.string()) for each in fields(Entry)}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


class ManifestWriter:
    """Writes the manifest of a store; only one may do so at a time.

    Attributes:
        entries: those that the manifest held when this was made.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        tables = _tables(location)
        self._rows = {name: int(table.num_rows) for name, table in tables.items()}
        self._small: dict[str, pa.Table] = {}  # need not be read again to be merged
        self.entries = Manifest(_latest(tables.values()))

    def append(self, entries: Manifest | Iterable[Entry]) -> None:
        """Writes `entries` as a new part."""
        table = entries.table if isinstance(entries, Manifest) else to_table(entries)
        if not table.num_rows:
            return
        self._write(table)
        while len(alike := self._alike()) >= MERGE_AT_PARTS:
            self._merge(alike)

    def merge(self) -> None:
        """Replaces all parts by one."""
        if len(self._rows) > 1:
            self._merge(list(self._rows))

    def _alike(self) -> list[str]:
        """Lists the last parts with fewer rows than `most`, the next power of 16 above the newest's."""
        names, most = list(self._rows), MERGE_AT_PARTS
        while most <= self._rows[names[-1]]:
            most *= MERGE_AT_PARTS
        first = next((place for place in reversed(range(len(names))) if self._rows[names[place]] >= most), -1)
        return names[first + 1 :]

    def _merge(self, names: list[str]) -> None:
        """Replaces the last parts by one."""
        found = _read(self._location, [name for name in names if name not in self._small])
        found = {name: self._small.pop(name) if name in self._small else found[name] for name in names}
        if None in found.values():
            raise StoreError(
                f"{self._location.url}: a part of the manifest is gone", hint="give the command again"
            )
        self._write(_latest(table for name in names if (table := found.pop(name)) is not None))
        self._location.delete(names)
        for name in names:
            del self._rows[name]

    def _write(self, table: pa.Table) -> None:
        last = next(reversed(self._rows), "")
        number = int(PART.fullmatch(last)[1]) + 1 if last else 0  # type: ignore[index]
        name = f"{MANIFEST_FOLDER}/part-{number:08d}.parquet"
        self._location.write(name, to_parquet(table))
        self._rows[name] = table.num_rows
        if table.num_rows < BLOCK_RECORDS:
            self._small[name] = table


def counts(entries: Manifest) -> dict[str, int]:
    """Counts the videos in each state, and those that failed for each reason ("failed:no-audio")."""
    found: dict[str, int] = dict.fromkeys(get_args(State), 0) | _counted(entries, "state")
    reasons = _counted(entries.where(state="failed"), "reason")
    return found | {f"failed:{reason}": count for reason, count in reasons.items()}


def _counted(entries: Manifest, name: str) -> dict[str, int]:
    return {each["values"]: each["counts"] for each in entries.table[name].value_counts().to_pylist()}


def _tables(location: Location) -> dict[str, pa.Table]:
    """Reads the parts, oldest first; starts again where a merge removed one meanwhile.

    Other files in the folder are not parts.
    """
    for _ in range(READ_ATTEMPTS):
        found = _read(location, [name for name in location.names(MANIFEST_FOLDER) if PART.fullmatch(name)])
        whole = {name: table for name, table in found.items() if table is not None}
        if len(whole) == len(found):
            return whole
    raise StoreError(
        f"{location.url}: the manifest changes faster than it can be read", hint="try again later"
    )


def _read(location: Location, names: Sequence[str]) -> dict[str, pa.Table | None]:
    """Reads parts; None in the place of one that is not there."""
    found: dict[str, pa.Table | None] = {}
    for name in names:
        data = location.read(name)
        where = f"{location.url}/{name}"
        found[name] = None if data is None else read_own_parquet(data, _schema(), where, PART_AGAIN, CHOICES)
    return found


def _latest(tables: Iterable[pa.Table]) -> pa.Table:
    """Returns the last entry of each video in `tables` (oldest first), sorted by its row in the arrays."""
    import pyarrow as pa

    parts = [table for table in tables if table.num_rows] or [_schema().empty_table()]
    table = parts[0] if len(parts) == 1 else pa.concat_tables(parts)
    del tables, parts
    rows = table["row"].to_numpy()
    ids = table["video_id"].combine_chunks().dictionary_encode()
    last = np.zeros(len(ids.dictionary), np.int64)
    last[ids.indices.to_numpy()] = np.arange(len(rows))  # of several values for one place the last one stays
    if len(last) == len(rows) and (np.diff(rows) >= 0).all():
        return table.combine_chunks()
    order, columns = pa.array(last[np.argsort(rows[last], kind="stable")]), []
    for name in table.column_names:  # one after another, so that a million entries are never there twice
        columns.append(table[name].combine_chunks().take(order))
        table = table.drop_columns(name)
    return pa.table(columns, _schema())
