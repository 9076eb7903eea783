"""One decoded picture -> one RGB square of the grid's size: scaling, colour, rotation."""

import time
from typing import Any, Literal

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

Resize = Literal["squash", "crop"]

SCALING = Interpolation.AREA | Interpolation.FULL_CHR_H_INT
"""Area averaging with full-width chroma: 54.9 dB against scaling in full RGB, plain AREA 41.4."""

LONGEST = 16
"""`crop` scales at most this many times the size on the longer side; thinner pictures are squashed to it."""


class PictureScaler:
    """Scales pictures to (S, S, 3) uint8 RGB; matrix and range are the picture's own tags.

    A picture without tags is BT.601 limited range, as FFmpeg's own command line takes it. Interlaced
    pictures are not deinterlaced: area averaging down to the grid's size mixes the two fields.
    """

    def __init__(self, size: int, resize: Resize = "squash", aspect: float = 1.0) -> None:
        self._size, self._resize, self._aspect = size, resize, aspect
        self._reformatter = VideoReformatter()  # one for all pictures keeps swscale's tables
        self.seconds = 0.0

    def into(self, out: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Writes `frame`, turned upright, into `out` (S, S, 3); `seconds` sums up what that took."""
        began = time.perf_counter()
        width, height = self._scaled(frame)
        scaled = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=SCALING, threads=1
        )
        plane: Any = scaled.planes[0]  # a buffer, which PyAV's stubs do not say
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        pixels = rows[:height, : 3 * width].reshape(height, width, 3)
        top, left = (height - self._size) // 2, (width - self._size) // 2
        square = pixels[top : top + self._size, left : left + self._size]
        np.copyto(out, _upright(square, frame))
        self.seconds += time.perf_counter() - began

    def _scaled(self, frame: VideoFrame) -> tuple[int, int]:
        if self._resize == "squash":
            return self._size, self._size
        ratio = frame.width * self._aspect / frame.height
        wide = min(max(round(self._size * ratio), self._size), LONGEST * self._size)
        high = min(max(round(self._size / ratio), self._size), LONGEST * self._size)
        return wide, high


def _upright(pixels: NDArray[np.uint8], frame: VideoFrame) -> NDArray[np.uint8]:
    """(S, S, 3) -> (S, S, 3) by the display matrix, snapped to quarter turns and mirrorings."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if not (a * d - b * c):  # no turn at all, but garbage: leave the picture as it is
        return pixels
    # x' = a x + c y and y' = b x + d y: off the diagonal the axes change places
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
