"""One decoded picture -> one square of the grid's size: scaling, colour, rotation."""

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
"""Area averaging with chroma at full width: 55 dB against scaling in full-size RGB, plain AREA 42 dB."""

SAME_MATRIX = frozenset({2, 5, 6})
"""AVColorSpace of pictures without a tag, and of BT.601's two names: on the way to JPEG's YCbCr they change
in range at most. Others would pass through RGB inside swscale, slower than asking for RGB."""

LONGEST = 16
"""`crop` scales the longer side to at most this many times the size; thinner pictures are squashed to it."""


class PictureScaler:
    """Scales pictures to S x S pixels, RGB or the planes of JPEG files; matrix and range are their own tags.

    A picture without tags is BT.601 limited range, as FFmpeg's own command line takes it. Interlaced
    pictures are not deinterlaced: area averaging down to the grid's size mixes the two fields.
    """

    def __init__(
        self, size: int, resize: Resize = "squash", aspect: float = 1.0, colours: Colours = "rgb"
    ) -> None:
        self._size, self._resize, self._aspect, self.colours = size, resize, aspect, colours
        self._reformatter, self._planes_scaler = VideoReformatter(), PlanesScaler(SCALING)
        self._matrix: tuple[int, int, int, int] | None = None

    def room(self, frames: int) -> NDArray[np.uint8]:
        """Memory for n pictures: RGB (n, S, S, 3), each channel a plane, or I420 (n, 3 S / 2, S)."""
        size = self._size
        if self.colours == "i420":
            return np.empty((frames, 3 * size // 2, size), np.uint8)
        return np.empty((frames, 3, size, size), np.uint8).transpose(0, 2, 3, 1)

    def into(self, out: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Writes `frame`, turned upright, into `out`: one of `room`."""
        if self._matrix is None:  # a property of the stream; asking every picture costs half its scaling
            self._matrix = _display_matrix(frame)
        width, height = self._size_of(frame)
        top, left = ((side - self._size) // 4 * 2 for side in (height, width))  # even, for the chroma's sake
        targets = self._planes(out)
        for target, plane in zip(targets, self._scale(frame, width, height).planes, strict=True):
            side = len(target)
            halves = self._size // side  # 2 for the chroma of I420
            square = rows_of(plane)[top // halves :, left // halves :][:side, :side]
            target[:] = _upright(square, *self._matrix)

    def _scale(self, frame: VideoFrame, width: int, height: int) -> VideoFrame:
        """`frame` at width x height, in planes in the order of `_planes`.

        RGB in planes too, because swscale has SIMD for full-width chroma there and none for packed rgb24:
        0.26 and 0.60 ms a picture, the interleaving by numpy included.
        """
        if self.colours == "i420":
            return self._planes_scaler.scale(frame, width, height)
        return self._reformatter.reformat(frame, width, height, "gbrp", interpolation=SCALING, threads=1)

    def _planes(self, out: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
        """Views of `out` in the order in which swscale gives its planes."""
        if self.colours == "i420":
            return i420_planes(out)
        return out[:, :, 1], out[:, :, 2], out[:, :, 0]

    def _size_of(self, frame: VideoFrame) -> tuple[int, int]:
        if self._resize == "squash":
            return self._size, self._size
        ratio = frame.width * self._aspect / frame.height
        wide = min(max(round(self._size * ratio), self._size), LONGEST * self._size)
        high = min(max(round(self._size / ratio), self._size), LONGEST * self._size)
        return wide, high


def jpeg_colours(stream: VideoStream, size: int) -> Colours:
    """The colours in which a stream's frames reach JPEG files of `size` pixels at the least cost."""
    context = stream.codec_context
    same = (context.pix_fmt or "").startswith("yuv") and context.colorspace in SAME_MATRIX
    return "i420" if same and size % 2 == 0 else "rgb"


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of x' = a x + c y, y' = b x + d y, the container's instruction to turn the picture."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    return (a, b, c, d) if a * d != b * c else (1, 0, 0, 1)  # garbage turns nothing


def _upright(plane: NDArray[np.uint8], a: int, b: int, c: int, d: int) -> NDArray[np.uint8]:
    """(S, S) -> (S, S) by a display matrix, snapped to quarter turns and mirrorings."""
    if abs(a) + abs(d) < abs(b) + abs(c):  # the axes change places
        plane, a, d = plane.T, c, b
    return plane[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
