"""Finds the chunks of packed clips in their shards, which `avel pack` writes below `packed/`.

A shard is a file of Zarr's sharding codec: one chunk each of many clips, as they lay in files of their own,
then an index. The index has for each clip the place and length of its chunk, two uint64, and ends in their
CRC-32C.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import google_crc32c

from avel.errors import ConfigError
from avel.stores.chunks import CHECKSUM_BYTES, verified
from avel.stores.documents import read_document, zarr_group
from avel.stores.location import Location

PACKED = "packed"
"""Folder of the shards: a Zarr group with an array for each of the store's."""
PLACE = struct.Struct("<QQ")
MOST_CLIPS = 10_000
NO_PLACE = (2**64 - 1, 2**64 - 1)
"""Index entry of a chunk that the shard does not hold."""
PACK_AGAIN = (
    "remove this file, if it is there, and give avel pack STORE --clips N, where N is the first number of "
    "chunk_shape in packed/frames/zarr.json; if that is gone too, avel pack STORE, then avel extract --repair"
)
"""Next step where the group of the shards is damaged."""
SHARDS_AGAIN = "remove this file, if it is there, and avel pack STORE writes it again"
"""Next step where an array of the shards is damaged."""


@dataclass(frozen=True)
class Packing:
    """Form of a store's shards: `clips` is how many clips one has room for."""

    clips: int

    def __post_init__(self) -> None:
        if not 0 < self.clips <= MOST_CLIPS:
            raise ConfigError(f"clips={self.clips}: not 1 to {MOST_CLIPS} clips to a shard")

    def as_json(self) -> bytes:
        """Returns the zarr.json of the group of the shards."""
        return zarr_group({"clips": self.clips})

    @property
    def index_bytes(self) -> int:
        """Returns the number of bytes of a shard's index, with its checksum."""
        return self.clips * PLACE.size + CHECKSUM_BYTES

    def place(self, index: bytes, size: int, number: int) -> tuple[int, int] | None:
        """Returns place and length of a clip's chunk in a shard of `size` bytes; None where it holds none.

        Raises:
            ValueError: this is not the index of such a shard, or it is damaged.
        """
        if len(index) != self.index_bytes:
            raise ValueError("its shard is too short")
        try:
            piece: tuple[int, int] = PLACE.unpack_from(verified(index), number * PLACE.size)
        except ValueError:
            raise ValueError("the CRC-32C of its shard's index does not match") from None
        if piece == NO_PLACE:
            return None
        if sum(piece) > size - self.index_bytes or piece[1] <= CHECKSUM_BYTES:
            raise ValueError("the index of its shard gives a wrong place for it")
        return piece


def index_of(places: Sequence[tuple[int, int]]) -> bytes:
    """Returns a shard's index, with its checksum, of the place and length of each clip's chunk."""
    index = b"".join(PLACE.pack(*place) for place in places)
    return index + struct.pack("<I", google_crc32c.value(index))


def read_packing(location: Location) -> Packing | None:
    """Reads the form of a store's shards; None where it has none.

    Raises:
        StoreError: it is damaged.
    """
    name = f"{PACKED}/zarr.json"
    data = location.read(name)
    if data is None:
        return None
    return read_document(Packing, data, f"{location.url}/{name}", PACK_AGAIN, key="attributes")
