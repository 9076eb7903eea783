"""Reads Parquet files without Arrow's threads.

Arrow's threads may still run when a short script ends, and then abort it (SIGABRT). All of avel reads tables
through this module, which a test checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def read_parquet(source: Path | bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a Parquet file, or its bytes: all columns, or only the named ones.

    Raises:
        pyarrow.ArrowInvalid: this is not a Parquet file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source) as file:
        return file.read(None if columns is None else list(columns), use_threads=False)
