"""Reads Parquet files without Arrow's threads, and checks avel's own by their schema and seal.

Arrow's threads may still run when a short script ends, and then abort it (SIGABRT). All of avel reads tables
through this module, which a test checks.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avel.errors import StoreError
from avel.stores.documents import SEAL
from avel.stores.seal import UNSEALED, seal_fault, sealed

if TYPE_CHECKING:
    import pyarrow as pa


def read_parquet(source: Path | bytes) -> pa.Table:
    """Reads a Parquet file, or its bytes, and checks the checksums of its pages.

    Raises:
        pyarrow.ArrowException, OSError: this is not a Parquet file, or it is damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    opened = pa.BufferReader(source) if isinstance(source, bytes) else source
    try:
        with parquet.ParquetFile(opened, page_checksum_verification=True) as file:
            table = file.read(use_threads=False)
        table.validate(full=True)  # raises for text that is not UTF-8, lists that end beyond their values
        [field.name for field in table.schema]  # raises for names that are not UTF-8
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid(str(error)) from None
    return table


def to_parquet(table: pa.Table) -> bytes:
    """Returns a table as a Parquet file with checksums: one of every page, and a seal of the whole."""
    from pyarrow import parquet

    buffer = io.BytesIO()
    with parquet.ParquetWriter(buffer, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({SEAL: UNSEALED})
    return sealed(buffer.getvalue(), last=True)


def read_own_parquet(
    data: bytes,
    schema: pa.Schema,
    where: object,
    hint: str,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> pa.Table:
    """Reads what `to_parquet` made of a table of this schema.

    Args:
        choices: column of texts -> the only ones it may hold.

    Raises:
        StoreError: not such a table, or its bytes have changed; with file and column.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(pa.BufferReader(data)) as file:
            wrong = _difference(file.schema_arrow, schema)
        wrong = wrong or seal_fault(data, last=True)
        table = pa.table({}) if wrong else read_parquet(data)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{where} is damaged: {error}", hint=hint) from None
    if wrong := wrong or _wrong_value(table, schema, choices or {}):
        raise StoreError(f"{where}: {wrong}", hint=hint)
    return table


def _wrong_value(table: pa.Table, schema: pa.Schema, choices: Mapping[str, Sequence[str]]) -> str:
    """Says which column has a value that it may not have; "" where none does."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for field in schema:
        column, known = table[field.name], choices.get(field.name)
        if column.null_count and not field.nullable:
            return f"column {field.name} lacks {column.null_count} values"
        if known and not (right := pc.is_in(column, pa.array(known))).to_numpy().all():
            strange = column.filter(pc.invert(right))[0].as_py()
            return f"column {field.name} holds {strange!r}, not one of {', '.join(known)}"
    return ""


def _difference(schema: pa.Schema, wanted: pa.Schema) -> str:
    """Says in which column a table differs from its schema; "" where it does not."""
    for field in wanted:
        if (count := schema.names.count(field.name)) != 1:
            return f"column {field.name} is {'there twice' if count else 'missing'}"
        if schema.field(field.name).type != field.type:
            return f"column {field.name} is {schema.field(field.name).type}, not {field.type}"
    others = [name for name in schema.names if name not in wanted.names]
    return f"column {others[0]} is not known" if others else ""
