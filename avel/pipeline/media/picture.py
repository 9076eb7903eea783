"""Turns a decoded picture into a square frame of the grid's size: scales, converts colours, rotates."""

from typing import Any, Literal

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avel.pipeline.media.planes import PlanesScaler, rows_of
from avel.stores.jpeg import Colours, i420_planes

Resize = Literal["squash", "crop"]

SCALING = Interpolation.AREA | Interpolation.FULL_CHR_H_INT
"""Area averaging with chroma at full width: PSNR 55 dB to scaling in full-size RGB; plain AREA has 42 dB."""

SAME_MATRIX = frozenset({2, 5, 6})
"""AVColorSpace of pictures without a tag, and of BT.601's two names: the matrix of JPEG's YCbCr. With another
matrix swscale would make YCbCr by way of RGB, which takes longer than to make RGB alone."""

LONGEST = 16
"""`crop` scales the longer side to at most this many times the size, and squashes thinner pictures to it."""


class PictureScaler:
    """Scales one stream's pictures to S x S pixels, as RGB or as the planes of JPEG files.

    The tags of a picture say its matrix and range. One without tags is taken as limited-range BT.601, as
    FFmpeg's command line does. Interlaced pictures are not deinterlaced: scaling mixes their two fields.
    """

    def __init__(self, size: int, resize: Resize, aspect: float, colours: Colours) -> None:
        self._size, self._resize, self._aspect, self.colours = size, resize, aspect, colours
        self._reformatter, self._planes_scaler = VideoReformatter(), PlanesScaler(SCALING)
        self._matrix: tuple[int, int, int, int] | None = None

    def allocate(self, frames: int) -> NDArray[np.uint8]:
        """Allocates n frames: RGB (n, S, S, 3), planar in memory, or I420 (n, 3 S / 2, S)."""
        size = self._size
        if self.colours == "i420":
            return np.empty((frames, 3 * size // 2, size), np.uint8)
        return np.empty((frames, 3, size, size), np.uint8).transpose(0, 2, 3, 1)

    def write(self, out: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Writes a picture, scaled and turned upright, into `out`, one frame of `allocate`."""
        if self._matrix is None:  # one for all pictures; asking each takes half as long as scaling
            self._matrix = _display_matrix(frame)
        width, height = self._size_of(frame)
        # even offsets, since chroma has half the size
        top, left = ((side - self._size) // 4 * 2 for side in (height, width))
        targets = self._planes(out)
        for target, plane in zip(targets, self._scale(frame, width, height).planes, strict=True):
            side = len(target)
            halves = self._size // side  # 2 for the chroma of I420
            square = rows_of(plane)[top // halves :, left // halves :][:side, :side]
            target[:] = _upright(square, *self._matrix)

    def _scale(self, frame: VideoFrame, width: int, height: int) -> VideoFrame:
        """Scales a picture to width x height, in planes in the order of `_planes`.

        RGB comes in planes too, and is interleaved only to be stored: 0.26 ms a picture, 0.60 ms for packed
        rgb24. With full-width chroma swscale has SIMD for planes only.
        """
        if self.colours == "i420":
            return self._planes_scaler.scale(frame, width, height)
        return self._reformatter.reformat(frame, width, height, "gbrp", interpolation=SCALING, threads=1)

    def _planes(self, out: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
        """Returns views of `out` in the order of swscale's planes."""
        if self.colours == "i420":
            return i420_planes(out)
        return out[:, :, 1], out[:, :, 2], out[:, :, 0]

    def _size_of(self, frame: VideoFrame) -> tuple[int, int]:
        """Returns the width and height to which a picture is scaled before its middle square is taken."""
        if self._resize == "squash":
            return self._size, self._size
        ratio = frame.width * self._aspect / frame.height
        wide = min(max(round(self._size * ratio), self._size), LONGEST * self._size)
        high = min(max(round(self._size / ratio), self._size), LONGEST * self._size)
        return wide, high


def jpeg_colours(stream: VideoStream, size: int) -> Colours:
    """Returns the layout from which a stream's frames become JPEG files of `size` pixels fastest."""
    context = stream.codec_context
    same = (context.pix_fmt or "").startswith("yuv") and context.colorspace in SAME_MATRIX
    return "i420" if same and size % 2 == 0 else "rgb"


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """Returns (a, b, c, d) of x' = a x + c y, y' = b x + d y, by which the container turns its pictures."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    return (a, b, c, d) if a * d != b * c else (1, 0, 0, 1)  # a singular matrix is garbage


def _upright(plane: NDArray[np.uint8], a: int, b: int, c: int, d: int) -> NDArray[np.uint8]:
    """Turns a plane (S, S) by a display matrix, rounded to quarter turns and mirrorings."""
    if abs(a) + abs(d) < abs(b) + abs(c):  # x and y change places
        plane, a, d = plane.T, c, b
    return plane[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
