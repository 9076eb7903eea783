"""Keeps many records as columns of a table; as objects, a million would take a gigabyte, and seconds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

T = TypeVar("T")
BLOCK_RECORDS = 1024
"""Records that are made from the columns at once."""


class TableColumns:
    """Records as the n rows of `table`."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> NDArray[Any]:
        """Returns a column of numbers or of True and False: (n,)."""
        values: NDArray[Any] = self.table[name].to_numpy()
        return values

    def texts(self, name: str) -> list[str]:
        """Returns a column of texts."""
        values: list[str] = self.table[name].to_pylist()
        return values

    def is_one_of(self, name: str, texts: Sequence[str] | pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
        """Returns whether each record's text in a column is one of these: bool (n,)."""
        return is_one_of(self.table[name], texts)


class Columns(TableColumns, Sequence[T]):
    """Records as columns, each contiguous in memory; a record is made when it is asked for."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__(table.combine_chunks())

    @abstractmethod
    def records(self, begin: int, end: int) -> list[T]:
        """Makes the records of some rows."""

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[T, ...]: ...

    def __getitem__(self, place: int | slice) -> T | tuple[T, ...]:
        if isinstance(place, slice):
            return tuple(self[each] for each in range(*place.indices(len(self))))
        row = range(len(self))[place]
        return self.records(row, row + 1)[0]

    def __iter__(self) -> Iterator[T]:
        for begin in range(0, len(self), BLOCK_RECORDS):
            yield from self.records(begin, min(begin + BLOCK_RECORDS, len(self)))

    def __eq__(self, other: object) -> bool:
        """Returns True for a sequence of equal records, such as a tuple."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"<{len(self)} records: {shown}{', ...' if len(self) > 3 else ''}>"


def is_one_of(
    column: pa.ChunkedArray | pa.Array, texts: Sequence[str] | pa.ChunkedArray | pa.Array
) -> NDArray[np.bool_]:
    """Returns whether each text of a column is one of these: bool (n,)."""
    import pyarrow as pa

    return places_in(column, pa.array(texts, pa.string()) if isinstance(texts, (list, tuple)) else texts) >= 0


def as_bools(column: pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
    """Returns a column of True and False, without nulls, as bool (n,)."""
    import numpy as np

    return np.asarray(column, bool)


def places_in(column: pa.ChunkedArray | pa.Array, values: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Returns where each value of a column comes first in `values`, -1 where it is not: int64 (n,)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return np.asarray(pc.fill_null(pc.index_in(column, value_set=values), -1), np.int64)
