"""Chunks that are decoded by hand hold what zarr finds in them, and no damage passes."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec

from avel.stores.chunks import elements, numbers, verified

NOISE = np.random.default_rng(3)
FILES = [NOISE.bytes(size) for size in (0, 1, 70, 3, 25)]
VALUES = NOISE.standard_normal((5, 3, 4)).astype(np.float32)


pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")


@pytest.fixture
def chunks(tmp_path: Path) -> tuple[bytes, list[bytes]]:
    """One chunk of bytes, and the chunks of an array whose last one is not full, as zarr writes them."""
    group = zarr.create_group(tmp_path)
    common = {"compressors": [Crc32cCodec()]}
    files = group.create_array("files", shape=(5,), chunks=(5,), dtype="variable_length_bytes", **common)
    block = np.empty(5, object)
    block[:] = FILES
    files[:] = block
    values = group.create_array(
        "values", shape=VALUES.shape, chunks=(2, 3, 4), dtype="float32", fill_value=np.nan, **common
    )
    values[:] = VALUES
    return (tmp_path / "files/c/0").read_bytes(), [
        (tmp_path / f"values/c/{number}/0/0").read_bytes() for number in range(3)
    ]


def test_elements_are_what_zarr_wrote(chunks: tuple[bytes, list[bytes]]) -> None:
    assert elements(chunks[0], range(5)) == FILES
    assert elements(chunks[0], [4, 0, 4]) == [FILES[4], FILES[0], FILES[4]]


def test_an_element_that_is_not_there_is_damage(chunks: tuple[bytes, list[bytes]]) -> None:
    with pytest.raises(ValueError, match="holds 5 elements, not 8"):
        elements(chunks[0], [1, 7])


def test_numbers_are_what_zarr_wrote(chunks: tuple[bytes, list[bytes]]) -> None:
    read = np.concatenate([numbers(chunk, "<f4", (2, 3, 4)) for chunk in chunks[1]])
    np.testing.assert_array_equal(read[:5], VALUES)
    assert np.isnan(read[5]).all()


def test_any_flipped_bit_and_any_cut_is_refused(chunks: tuple[bytes, list[bytes]]) -> None:
    whole = chunks[0]
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match="CRC-32C"):
            verified(bytes(damaged))
    for size in range(len(whole)):
        with pytest.raises(ValueError, match="CRC-32C"):
            elements(whole[:size], [0])
