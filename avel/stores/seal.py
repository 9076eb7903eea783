"""Seals files: writes the SHA-256 of a whole file into the file, so that any changed byte shows.

The bytes are hashed with zeros in the place of the digest. A seal is text, so Parquet, safetensors, JSON and
TOML files take it as one more value, and stay readable for any other program.
"""

import hashlib
import mmap
from pathlib import Path
from typing import TypeAlias

MARK = b"avel-sha256:"
UNSEALED = MARK.decode() + 64 * "0"
"""Placeholder for the seal of a file that is not hashed yet, which the writer puts into it once."""

Buffer: TypeAlias = "bytes | mmap.mmap"


def sealed(data: bytes, *, last: bool = False) -> bytes:
    """Returns `data` with the digest in the place of its first UNSEALED, or its last one."""
    at = _place(data, last)
    return data[:at] + _digest(data, at) + data[at + 64 :]


def seal_file(path: Path) -> None:
    """Puts the digest of a file into it, in the place of its first UNSEALED."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        at = _place(data, False)
        data[at : at + 64] = _digest(data, at)


def seal_fault(data: Buffer, *, last: bool = False) -> str:
    """Returns what is wrong with the bytes of a sealed file, "" where nothing is."""
    at = _place(data, last)
    if at < len(MARK) or len(data) < at + 64:
        return "it carries no checksum of avel's"
    if data[at : at + 64] != _digest(data, at):
        return "its checksum does not match: bytes have changed since avel wrote it"
    return ""


def file_seal_fault(path: Path) -> str:
    """Returns what is wrong with a sealed file, "" where nothing is."""
    if not path.stat().st_size:
        return "it is empty"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return seal_fault(data)


def _place(data: Buffer, last: bool) -> int:
    """Returns where the 64 hex digits of the seal begin; less than the mark's length without a seal."""
    return (data.rfind(MARK) if last else data.find(MARK)) + len(MARK)


def _digest(data: Buffer, at: int) -> bytes:
    with memoryview(data) as view:
        digest = hashlib.sha256(view[:at])
        digest.update(64 * b"0")
        digest.update(view[at + 64 :])
    return digest.hexdigest().encode()
