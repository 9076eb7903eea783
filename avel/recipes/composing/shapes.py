"""Anti-aliased flat drawing with numpy: signed distances, filled onto a stack of P transparent pictures.

Coordinates are in units of the picture, x to the right and y down; a distance is negative inside a shape.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]
"""A value for each pixel, (P, H, W) or (1, H, W)."""
Colour = tuple[float, float, float]
"""Red, green, blue in [0, 1]."""
Paint = Colour | Field
"""One colour, or one for each pixel (P, H, W, 3)."""


class Canvas:
    """P transparent pictures (P, height, width, 4); a unit is `unit_px` pixels, (0, 0) lies at `origin`."""

    def __init__(
        self, pictures: int, height: int, width: int, unit_px: float, origin: tuple[float, float]
    ) -> None:
        rows = np.arange(height, dtype=np.float32)[None, :, None]
        columns = np.arange(width, dtype=np.float32)[None, None, :]
        self.x: Field = (columns + 0.5) / np.float32(unit_px) - np.float32(origin[0])
        self.y: Field = (rows + 0.5) / np.float32(unit_px) - np.float32(origin[1])
        self.unit_px = unit_px
        self.rgba: Field = np.zeros((pictures, height, width, 4), np.float32)  # premultiplied by alpha

    def fill(self, distance: Field, paint: Paint, opacity: float = 1.0, soft: float = 0.0) -> None:
        """Paints the inside of `distance` (P, H, W) over what is there; `soft` units of blurred edge."""
        shape = self.rgba.shape[:3]
        edge = 1 / (1 / self.unit_px + soft)
        cover = np.clip(0.5 - distance * np.float32(edge), 0, 1) * np.float32(opacity)
        cover = np.broadcast_to(cover, (cover.shape[0], *shape[1:]))
        box = _bounds(cover)
        if box is None:
            return
        rows, columns = box
        alpha = cover[:, rows, columns, None]
        colours = np.asarray(paint, np.float32)
        if colours.ndim == 4:
            colours = np.broadcast_to(colours, (colours.shape[0], *shape[1:], 3))[:, rows, columns]
        under = self.rgba[:, rows, columns]
        under *= 1 - alpha
        under[..., :3] += colours * alpha
        under[..., 3:] += alpha


def _length(x: Field, y: Field) -> Field:
    """np.hypot without its guard against overflow, which makes it several times slower."""
    squares: Field = x * x + y * y
    return np.sqrt(squares)


def _bounds(cover: Field) -> tuple[slice, slice] | None:
    """The rows and columns that a coverage (P, H, W) touches, so that small shapes cost little."""
    rows = np.flatnonzero(cover.any(axis=(0, 2)))
    columns = np.flatnonzero(cover.any(axis=(0, 1)))
    if not len(rows):
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def circle(x: Field, y: Field, radius: float | Field) -> Field:
    """A disc around (0, 0): (P, H, W) -> (P, H, W)."""
    return _length(x, y) - radius


def ellipse(x: Field, y: Field, half_width: float | Field, half_height: float | Field) -> Field:
    """An upright ellipse around (0, 0), its distance exact to first order at the edge."""
    inside = _length(x / half_width, y / half_height)
    slope = _length(x / np.square(half_width), y / np.square(half_height))
    return inside * (inside - 1) / np.maximum(slope, 1e-6)


def box(x: Field, y: Field, half_width: float, half_height: float, corner: float = 0.0) -> Field:
    """An upright rectangle around (0, 0) with rounded corners."""
    over_x = np.abs(x) - (half_width - corner)
    over_y = np.abs(y) - (half_height - corner)
    outside = _length(np.maximum(over_x, 0), np.maximum(over_y, 0))
    return outside + np.minimum(np.maximum(over_x, over_y), 0) - corner


def line(
    x: Field, y: Field, start: tuple[float, float], end: tuple[float, float], half_width: float
) -> Field:
    """A stroke with round ends from `start` to `end`."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return _length(x - start[0] - along * dx, y - start[1] - along * dy) - half_width


def polygon(x: Field, y: Field, *corners: tuple[float, float]) -> Field:
    """A convex polygon, corners clockwise on the screen: the farthest of its edges' half-planes."""
    distance: Field = np.full_like(x + y, -np.inf)
    for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
        length = float(np.hypot(x1 - x0, y1 - y0))
        distance = np.maximum(distance, ((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / length)
    return distance


def turned(
    x: Field, y: Field, radians: float | Field, pivot: tuple[float, float] = (0.0, 0.0)
) -> tuple[Field, Field]:
    """Coordinates in which a shape around `pivot` stands turned clockwise by `radians`."""
    cos, sin = np.cos(radians), np.sin(radians)
    dx, dy = x - pivot[0], y - pivot[1]
    return cos * dx + sin * dy, cos * dy - sin * dx


def rgb(code: str) -> Colour:
    """A colour from its hex code.

    >>> rgb("#ff0000")
    (1.0, 0.0, 0.0)
    """
    red, green, blue = (int(code[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def tone(colour: Colour, factor: float) -> Colour:
    """`colour` darker (factor < 1) or blended towards white (factor > 1)."""
    if factor <= 1:
        return colour[0] * factor, colour[1] * factor, colour[2] * factor
    white = min(factor - 1, 1)
    red, green, blue = (part + (1 - part) * white for part in colour)
    return red, green, blue


def ramp(share: Field, first: Colour, last: Colour) -> Field:
    """Colours from `first` where `share` is 0 to `last` where it is 1: (P, H, W) -> (P, H, W, 3)."""
    mix = np.clip(share, 0, 1)[..., None]
    return np.asarray(first, np.float32) * (1 - mix) + np.asarray(last, np.float32) * mix
