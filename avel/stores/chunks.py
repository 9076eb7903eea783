"""Chunks of JPEG files and log-mel patches, decoded by hand: a third of zarr's time, and threads scale.

zarr passes every read through one event loop and holds the interpreter's lock meanwhile, so that two threads
read no faster than one. It still writes, verifies, and reads raw frames. Layout: docs/file-formats.md.
"""

import struct
from collections.abc import Sequence

import google_crc32c
import numpy as np
from numpy.typing import NDArray

LENGTH_BYTES = CHECKSUM_BYTES = 4
RESIDUE = 0x48674BC7
"""The CRC-32C of any content followed by its own CRC-32C."""


def checked(chunk: bytes) -> memoryview:
    """What a chunk holds before its checksum.

    Raises:
        ValueError: the checksum does not fit.
    """
    if google_crc32c.value(chunk) != RESIDUE:
        raise ValueError("its CRC-32C does not fit")
    return memoryview(chunk)[:-CHECKSUM_BYTES]


def elements(chunk: bytes, places: Sequence[int]) -> list[bytes]:
    """Some of the elements of a chunk of variable-length bytes.

    Raises:
        ValueError: the checksum does not fit, or there are fewer elements.
    """
    content = checked(chunk)
    (count,) = struct.unpack_from("<I", content)
    if max(places, default=0) >= count:
        raise ValueError(f"it holds {count} elements, not {max(places) + 1}")
    starts, start = [], LENGTH_BYTES
    for _ in range(count):
        starts.append(start)
        start += LENGTH_BYTES + struct.unpack_from("<I", content, start)[0]
    starts.append(start)
    return [bytes(content[starts[place] + LENGTH_BYTES : starts[place + 1]]) for place in places]


def floats(chunk: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The numbers of a float32 chunk.

    Raises:
        ValueError: the checksum does not fit, or the shape.
    """
    return np.frombuffer(checked(chunk), "<f4").reshape(shape)
