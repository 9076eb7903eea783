"""Writes avel's own JSON files with a seal, a checksum in the file, and reads them as typed values."""

import json
from pathlib import Path
from typing import Any, TypeVar

from avel.errors import AvelError, StoreError
from avel.stores.files import write_bytes
from avel.stores.seal import UNSEALED, seal_fault, sealed
from avel.text import from_plain

T = TypeVar("T")
SEAL = "checksum"


def write_document(path: Path, values: dict[str, Any]) -> None:
    """Writes `values` to `path` as indented JSON whose first value is the seal, whole or not at all."""
    ordered = json.loads(json.dumps(values, sort_keys=True))
    write_bytes(path, sealed((json.dumps({SEAL: UNSEALED} | ordered, indent=2) + "\n").encode()))


def zarr_group(attributes: dict[str, Any]) -> bytes:
    """Returns the zarr.json of a Zarr group with these attributes, the first of which is the seal."""
    group = {"zarr_format": 3, "node_type": "group", "attributes": {SEAL: UNSEALED} | attributes}
    return sealed(json.dumps(group, indent=2).encode())


def read_document(kind: type[T], data: bytes, where: object, hint: str, *, key: str = "") -> T:
    """Reads the bytes of a sealed JSON file, or what stands under a `key` in it, as the dataclass `kind`.

    Raises:
        StoreError: not JSON, a value missing or of another type, or changed bytes; with file and field.
    """
    plain = parse(data, where, hint)
    value = typed(kind, plain.get(key) if key else plain, where, hint)
    if broken := seal_fault(data):
        raise StoreError(f"{where}: {broken}", hint=hint)
    return value


def parse(data: bytes, where: object, hint: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        StoreError: `data` is not a JSON object.
    """
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{where} is damaged: no JSON: {error}", hint=hint) from None
    if not isinstance(plain, dict):
        raise StoreError(f"{where} is not a JSON object", hint=hint)
    return plain


def typed(kind: type[T], plain: Any, where: object, hint: str) -> T:
    """Reads plain values as the dataclass `kind`.

    Raises:
        StoreError: a value is missing or of another type; with file and field.
    """
    try:
        return from_plain(kind, plain)  # type: ignore[no-any-return]
    except ValueError as error:
        raise StoreError(f"{where}: {error}", hint=hint) from None
    except AvelError as error:
        raise StoreError(f"{where}: {error.message}", hint=hint) from None
