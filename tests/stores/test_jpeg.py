"""JPEG files of frames are what other decoders and encoders make of them."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from avel.pipeline.config import ExtractConfig
from avel.stores.jpeg import decode_jpeg, encode_jpeg, i420_planes


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of colours that change slowly, so that halved chroma costs little."""
    cells = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))


def by_pillow(picture: NDArray[np.uint8], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def opened(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("size", [(64, 64), (61, 64), (64, 61), (8, 8)])
def test_it_writes_and_reads_what_pillow_does_to_the_bit(size: tuple[int, int]) -> None:
    picture = smooth(*size)
    quality = ExtractConfig().jpeg_quality
    np.testing.assert_array_equal(opened(encode_jpeg(picture, quality)), opened(by_pillow(picture, quality)))
    for file in (encode_jpeg(picture, 60), by_pillow(picture, 60)):
        np.testing.assert_array_equal(decode_jpeg(file), opened(file))


@pytest.mark.parametrize("size", [(64, 64), (62, 64), (64, 62), (34, 62)])
def test_planes_that_are_ycbcr_already_make_the_same_picture(size: tuple[int, int]) -> None:
    picture = smooth(*size)
    ycbcr = np.asarray(Image.fromarray(picture).convert("YCbCr"))
    i420 = np.empty((3 * size[0] // 2, size[1]), np.uint8)
    luma, *chroma = i420_planes(i420)
    luma[:] = ycbcr[:, :, 0]
    for channel, plane in enumerate(chroma, 1):
        cells = ycbcr[:, :, channel].reshape(size[0] // 2, 2, size[1] // 2, 2)
        plane[:] = cells.mean((1, 3)).round()
    file = encode_jpeg(i420, 96, "i420")
    assert opened(file).shape == picture.shape
    assert abs(opened(file).astype(int) - opened(encode_jpeg(picture, 96))).mean() < 1.5


def test_it_reads_into_memory_that_is_there() -> None:
    file = by_pillow(smooth(32, 48), 90)
    room = np.zeros((3, 32, 48, 3), np.uint8)
    decode_jpeg(file, room[1])
    np.testing.assert_array_equal(room[1], opened(file))
    assert not room[[0, 2]].any()
