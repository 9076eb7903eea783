"""Scales pictures to the planes of a JPEG file, and measures where a picture's chroma samples lie.

JPEG has a chroma sample in the middle of its four pixels. swscale leaves it where the source has it, most
often on the left. FFmpeg's scale filter can move it, so the filter does the scaling.
"""

from typing import Any, cast

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

RAMP = 4
"""Levels per pixel of the ramps with which `chroma_siting` measures."""
SITINGS = {
    (0, 2): "left",
    (2, 2): "center",
    (0, 0): "topleft",
    (2, 0): "top",
    (0, 4): "bottomleft",
    (2, 4): "bottom",
}
"""Levels that the ramps across and down lose when chroma is scaled to full size -> where chroma lies, by the
scale filter's name. Two levels are half a pixel."""


class PlanesScaler:
    """Scales one stream's pictures to I420: BT.601, full range, chroma in the middle of its four pixels."""

    def __init__(self, interpolation: Interpolation) -> None:
        self._flags, self._siting = int(interpolation), ""
        self._form: tuple[Any, ...] = ()

    def scale(self, frame: VideoFrame, width: int, height: int) -> VideoFrame:
        """Scales a picture to width x height, in planes Y, Cb, Cr. Its tags say its matrix and range."""
        form = (
            *(frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range),
            *(width, height),
        )
        if form != self._form:  # a graph does not follow a change of size or format
            self._siting = self._siting or chroma_siting(frame)
            self._configure(*form)
            self._form = form
        self._source.push(frame)
        return cast(VideoFrame, self._sink.pull())

    def _configure(
        self, wide: int, high: int, pixels: str, matrix: int, limits: int, width: int, height: int
    ) -> None:
        """Builds a filter graph that scales to width x height. The other arguments describe the source."""
        self._graph = Graph()
        self._graph.threads = 1
        self._source = self._graph.add(
            "buffer",
            f"video_size={wide}x{high}:pix_fmt={pixels}:colorspace={matrix}:range={limits}:time_base=1/1000",
        )
        scale = self._graph.add(
            "scale",
            f"{width}:{height}:flags={self._flags}:in_chroma_loc={self._siting}"
            ":out_chroma_loc=center:out_color_matrix=bt601:out_range=full",
        )
        form = self._graph.add("format", "yuv420p")
        self._sink = self._graph.add("buffersink")
        self._graph.link_nodes(self._source, scale, form, self._sink).configure()


def chroma_siting(frame: VideoFrame) -> str:
    """Measures where swscale takes a picture's chroma to lie: "left", "center", "topleft" and so on.

    A tag of the picture says so, but PyAV does not show it, and the scale filter drops it. swscale copies the
    tag to a small copy of the picture. Ramps painted into the chroma of that copy move, by the tag, when
    swscale scales the chroma to full size.
    """
    side = 32 if frame.width != 32 else 64  # at its own size we would get, and paint, the picture itself
    small = VideoReformatter().reformat(frame, side, side, "yuv420p", threads=1)
    ramp = (2 * RAMP * np.arange(side // 2)).astype(np.uint8)
    for plane, painted in zip(small.planes[1:], (ramp, ramp[:, None]), strict=True):
        rows_of(plane)[:, : side // 2] = painted
    full = VideoReformatter().reformat(
        small, format="yuv444p", interpolation=Interpolation.BILINEAR, threads=1
    )
    middle = side // 2
    across, down = (RAMP * middle - int(rows_of(plane)[middle, middle]) for plane in full.planes[1:])
    return SITINGS[min(SITINGS, key=lambda ramps: abs(ramps[0] - across) + abs(ramps[1] - down))]


def rows_of(plane: Any) -> NDArray[np.uint8]:
    """Returns a view (H, line size) of a picture's plane, with the padding of its lines."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
