"""Checksums over the metadata of HDF5 (lookup3), so that a test can forge a file that is read."""

from __future__ import annotations

import functools
import struct

SIGNED = (b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"FHIB", b"BTHD", b"BTLF", b"BTIN", b"FAHD", b"FADB")
"""Signatures of the parts of a file that end with a checksum: headers, heaps, trees, lists of chunks."""
SUPERBLOCK = b"\x89HDF\r\n\x1a\n"
SUPERBLOCK_BYTES = 44
LONGEST = 2048
WORD = 0xFFFFFFFF


def lookup3(data: bytes) -> int:
    """Returns the checksum that HDF5 writes behind its metadata."""
    a = b = c = (0xDEADBEEF + len(data)) & WORD
    whole = max(0, (len(data) - 1) // 12) * 12
    for x, y, z in struct.iter_unpack("<3I", data[:whole]):
        a, b, c = _mix(a + x, b + y, c + z)
    if not data:
        return c
    x, y, z = struct.unpack("<3I", data[whole:].ljust(12, b"\0"))
    return _final(a + x, b + y, c + z)


@functools.lru_cache
def sealed_parts(data: bytes) -> list[tuple[int, int]]:
    """Finds the parts of a file whose checksums are right: first byte, and place of the checksum."""
    found = []
    for signature in (SUPERBLOCK, *SIGNED):
        at = data.find(signature)
        while at >= 0:
            end = _end(data, at)
            found += [(at, end)] if end else []
            at = data.find(signature, at + 1)
    return found


def reseal(data: bytes, parts: list[tuple[int, int]]) -> bytes:
    """Returns the bytes with the checksums of these parts put right."""
    changed = bytearray(data)
    for start, end in parts:
        if end + 4 <= len(changed):
            changed[end : end + 4] = struct.pack("<I", lookup3(bytes(changed[start:end])))
    return bytes(changed)


def _end(data: bytes, at: int) -> int:
    """Returns where the checksum of the part at `at` stands, 0 if none is right."""
    for end in range(at + 6, min(at + LONGEST, len(data) - 4)):
        if data[end : end + 4] == struct.pack("<I", lookup3(data[at:end])):
            return end
    return 0


def _turn(value: int, bits: int) -> int:
    return (value << bits | value >> 32 - bits) & WORD


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    a, b, c = a & WORD, b & WORD, c & WORD
    for bits in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & WORD) ^ _turn(c, bits)
        c = (c + b) & WORD
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    a, b, c = a & WORD, b & WORD, c & WORD
    for bits in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _turn(b, bits)) & WORD
        a, b, c = b, c, a
    return b
