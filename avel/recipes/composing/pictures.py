"""Draws the six objects and the landscapes of the synthetic clips with PIL.

Coordinates of an object's picture reach from -1 to 1, x to the right and y down. A colour is red, green, blue
in [0, 255].
"""

import colorsys
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
DARK: Colour = (45, 42, 54)
PALE: Colour = (250, 246, 235)
OVERSAMPLED = 4
"""Factor by which shapes are drawn larger, and then shrunk, which smooths their edges."""


class Sketch:
    """A transparent square picture; each shape is drawn over the earlier ones."""

    def __init__(self, side_px: int) -> None:
        self.large_px = OVERSAMPLED * side_px
        self.large = Image.new("RGBA", (self.large_px, self.large_px))
        self.draw = ImageDraw.Draw(self.large)

    def oval(self, colour: Colour, x: float, y: float, half_width: float, half_height: float) -> None:
        """Fills an upright ellipse around (x, y)."""
        self.draw.ellipse(self._px(x - half_width, y - half_height, x + half_width, y + half_height), colour)

    def box(self, colour: Colour, *edges: float, corner: float = 0.0) -> None:
        """Fills a rectangle with the edges left, top, right, bottom and corners rounded by `corner`."""
        self.draw.rounded_rectangle(self._px(*edges), corner * self.large_px / 2, colour)

    def shape(self, colour: Colour, *corners: float) -> None:
        """Fills a polygon with the corners x, y, x, y, ..."""
        self.draw.polygon(self._px(*corners), colour)

    def line(self, colour: Colour, width: float, *points: float) -> None:
        """Draws a stroke through the points x, y, x, y, ..."""
        self.draw.line(self._px(*points), colour, round(width * self.large_px / 2), joint="curve")

    def image(self, *, mirrored: bool) -> Image.Image:
        """Returns the picture at its own size, RGBA."""
        image = self.large.reduce(OVERSAMPLED)
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image

    def _px(self, *places: float) -> list[float]:
        return [(place + 1) / 2 * self.large_px for place in places]


DrawObject = Callable[[Sketch, Colour], None]
"""Draws an object, most of it in the colour given."""


def bell(sketch: Sketch, main: Colour) -> None:
    """Draws a bell with its clapper, hanging from the upper edge."""
    sketch.oval(shade(main, 0.5), 0, 0.78, 0.16, 0.16)
    sketch.box(shade(main, 0.6), -0.12, -0.95, 0.12, -0.6, corner=0.08)
    down = np.linspace(0, 1, 24)
    half = 0.36 * np.sqrt(np.minimum(down * 5, 1)) + 0.12 * down + 0.3 * down**5
    right = np.stack([half, -0.7 + 1.4 * down], 1)
    left = right[::-1] * (-1, 1)
    sketch.shape(main, *np.concatenate([right, left]).ravel().tolist())
    sketch.box(shade(main, 0.7), -0.82, 0.56, 0.82, 0.72, corner=0.08)
    sketch.line(shade(main, 1.5), 0.08, -0.24, -0.4, -0.28, 0.3)


def train(sketch: Sketch, main: Colour) -> None:
    """Draws a steam engine, its cab at the left."""
    sketch.box(DARK, 0.38, -0.62, 0.6, -0.1)
    sketch.box(main, -0.9, -0.7, -0.1, 0.45, corner=0.06)
    sketch.box(shade(main, 0.6), -0.98, -0.8, -0.02, -0.64, corner=0.06)
    sketch.box(main, -0.3, -0.2, 0.85, 0.45, corner=0.2)
    sketch.box(PALE, -0.7, -0.5, -0.3, -0.12, corner=0.05)
    for x in (-0.65, -0.05, 0.5):
        sketch.oval(DARK, x, 0.55, 0.26, 0.26)
        sketch.oval(PALE, x, 0.55, 0.1, 0.1)


def helicopter(sketch: Sketch, main: Colour) -> None:
    """Draws a helicopter from the side, its nose at the right."""
    sketch.shape(main, 0, -0.2, -0.95, -0.1, -0.95, 0.05, 0, 0.35)
    sketch.shape(shade(main, 0.7), -0.98, -0.45, -0.8, -0.45, -0.72, 0.1, -0.95, 0.1)
    sketch.oval(main, 0.3, 0.12, 0.62, 0.5)
    sketch.oval(PALE, 0.55, 0.04, 0.3, 0.27)
    sketch.line(DARK, 0.07, 0.2, -0.65, 0.2, -0.3)
    sketch.line(DARK, 0.09, -0.7, -0.66, 1.0, -0.66)
    sketch.line(DARK, 0.07, 0.05, 0.5, 0.05, 0.8, 0.6, 0.8, 0.6, 0.5)


def clock(sketch: Sketch, main: Colour) -> None:
    """Draws an alarm clock on two feet."""
    for side in (-1, 1):
        sketch.line(shade(main, 0.6), 0.18, side * 0.3, 0.5, side * 0.6, 0.95)
        sketch.oval(shade(main, 0.7), side * 0.48, -0.68, 0.28, 0.22)
    sketch.oval(main, 0, 0.08, 0.8, 0.8)
    sketch.oval(PALE, 0, 0.08, 0.52, 0.52)
    sketch.line(DARK, 0.09, 0, -0.3, 0, 0.08, 0.26, 0.22)


def frog(sketch: Sketch, main: Colour) -> None:
    """Draws a frog that looks at the viewer."""
    for side in (-1, 1):
        sketch.oval(shade(main, 0.75), side * 0.66, 0.5, 0.3, 0.36)
        sketch.oval(main, side * 0.45, -0.5, 0.28, 0.3)
    sketch.oval(main, 0, 0.38, 0.66, 0.5)
    sketch.oval(main, 0, -0.08, 0.78, 0.5)
    sketch.oval(shade(main, 1.45), 0, 0.5, 0.4, 0.34)
    for side in (-1, 1):
        sketch.oval(PALE, side * 0.45, -0.52, 0.17, 0.18)
        sketch.oval(DARK, side * 0.45, -0.52, 0.08, 0.1)
    sketch.line(DARK, 0.06, -0.45, 0.1, -0.2, 0.2, 0.2, 0.2, 0.45, 0.1)


def bird(sketch: Sketch, main: Colour) -> None:
    """Draws a bird from the side, its beak at the right."""
    sketch.shape(shade(main, 0.7), -0.4, 0.1, -1.0, -0.25, -0.95, 0.2, -0.4, 0.5)
    sketch.line(DARK, 0.06, 0, 0.6, 0, 0.95)
    sketch.oval(main, 0, 0.18, 0.62, 0.52)
    sketch.oval(main, 0.4, -0.36, 0.4, 0.4)
    sketch.shape((238, 170, 60), 0.72, -0.5, 1.0, -0.32, 0.72, -0.2)
    sketch.oval(shade(main, 0.7), -0.14, 0.18, 0.4, 0.26)
    sketch.oval(DARK, 0.5, -0.44, 0.08, 0.08)


def draw_place(rng: np.random.Generator, width_px: int, height_px: int) -> Image.Image:
    """Returns an empty landscape in muted colours, RGB: a sky with a sun or moon, and two rows of hills."""
    sky, land, light = rng.uniform((0, 0, 0.55), (1, 1, 0.95))
    top, low = np.array(painted(sky, 0.3, light)), np.array(painted(sky, 0.08, light))
    pixels = top + (low - top) * np.linspace(0, 1, height_px)[:, None, None]
    place = Image.fromarray(np.broadcast_to(pixels, (height_px, width_px, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(place)
    sun, radius = rng.uniform(0.1, 0.9) * width_px, 0.08 * height_px
    draw.ellipse((sun - radius, radius, sun + radius, 3 * radius), PALE)
    across = np.linspace(0, 3, width_px)
    for horizon, dark in ((0.62, 0.85), (0.76, 0.65)):
        bumps = np.sin(across + rng.uniform(0, 6)) + np.sin(2 * across + rng.uniform(0, 6)) / 2
        hills = enumerate((height_px * (horizon + 0.04 * bumps)).tolist())
        draw.polygon([*hills, (width_px, height_px), (0, height_px)], painted(land, 0.25, light * dark))
    return place


def painted(hue: float, saturation: float, value: float) -> Colour:
    """Returns a colour from its hue, saturation and value in [0, 1]."""
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, saturation, value))
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    """Returns `colour` darker (factor below 1) or lighter."""
    red, green, blue = (min(round(factor * part), 255) for part in colour)
    return red, green, blue
