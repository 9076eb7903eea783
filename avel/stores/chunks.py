"""Decodes chunks of frames, log-mel patches and waveforms without zarr.

This takes a third of zarr's time, and threads speed it up. zarr passes every read through one event loop and
holds the interpreter's lock meanwhile, so with it two threads read no faster than one. zarr still writes and
verifies chunks. docs/file-formats.md has the layout.
"""

import struct
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

LENGTH_BYTES = CHECKSUM_BYTES = 4
RESIDUE = 0x48674BC7
"""CRC-32C of any content followed by its own CRC-32C."""


def verified(chunk: bytes) -> memoryview:
    """Returns the content of a chunk without the checksum at its end.

    Raises:
        ValueError: the checksum does not match.
    """
    if google_crc32c.value(chunk) != RESIDUE:
        raise ValueError("its CRC-32C does not match")
    return memoryview(chunk)[:-CHECKSUM_BYTES]


def elements(chunk: bytes, places: Sequence[int]) -> list[bytes]:
    """Returns the elements at `places` of a chunk of variable-length bytes.

    Raises:
        ValueError: the checksum does not match, or the chunk has fewer elements.
    """
    content = verified(chunk)
    (count,) = struct.unpack_from("<I", content)
    if max(places, default=0) >= count:
        raise ValueError(f"it holds {count} elements, not {max(places) + 1}")
    starts, start = [], LENGTH_BYTES
    for _ in range(count):
        starts.append(start)
        start += LENGTH_BYTES + struct.unpack_from("<I", content, start)[0]
    starts.append(start)
    return [bytes(content[starts[place] + LENGTH_BYTES : starts[place + 1]]) for place in places]


def numbers(chunk: bytes, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Returns a chunk of numbers of a dtype ("<f4") as an array of `shape`.

    Raises:
        ValueError: the checksum or the shape does not match.
    """
    return np.frombuffer(verified(chunk), dtype).reshape(shape)


def raw_frames(chunk: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Returns a chunk of raw frames as an array of `shape`.

    Raises:
        RuntimeError: this is not Zstandard.
        ValueError: the checksum or the shape does not match.
    """
    from numcodecs import Zstd  # here, since it takes 300 ms

    return np.frombuffer(Zstd().decode(verified(chunk)), np.uint8).reshape(shape)
