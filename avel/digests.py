"""Computes digests that identify settings and arrays; imports neither numpy nor torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def digest_of(value: Any, arrays: Iterable[tuple[str, NDArray[Any]]] = ()) -> str:
    """Returns 16 hex digits over a value that JSON can hold, and over arrays with their names.

    >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    True
    """
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode())
    for name, array in arrays:
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view("u1").data if array.flags.c_contiguous else array.tobytes())
    return digest.hexdigest()[:16]
