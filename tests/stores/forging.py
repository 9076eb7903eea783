"""Files of avel's with other content and a seal that is right, as somebody could make them on purpose."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from avel.stores.arrow import read_parquet, to_parquet
from avel.stores.seal import UNSEALED, sealed


def forge_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Replaces a sealed JSON file by what `change` returns for its values."""
    document = json.loads(path.read_text())
    holder = document["attributes"] if path.name == "zarr.json" else document
    holder.pop("checksum", None)
    changed = change(document)
    if isinstance(changed, dict):
        holder = changed.get("attributes") if path.name == "zarr.json" else changed
        if isinstance(holder, dict):
            holder["checksum"] = UNSEALED
    text = json.dumps(changed).encode()
    path.write_bytes(sealed(text) if UNSEALED.encode() in text else text)


def forge_table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Replaces a sealed Parquet file by what `change` returns for its table."""
    path.write_bytes(to_parquet(change(read_parquet(path))))


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Flips one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)
