"""Places in which the demo's objects appear: drawn once, a little larger than the frame, then panned over."""

from collections.abc import Callable

import numpy as np

from avel.recipes.composing.noise import coloured
from avel.recipes.composing.shapes import Canvas, Colour, Field, box, circle, line, polygon, ramp, rgb, tone

SKIES = (
    ("#4f9fdc", "#d9eef8"),
    ("#7fb4d6", "#f6ead2"),
    ("#e8875f", "#fbdca6"),
    ("#6d6fa8", "#f0b9a8"),
    ("#9aa9b5", "#dfe4e6"),
    ("#1d2a4d", "#5a6d9c"),
)
NIGHT = SKIES[-1]


def meadow(canvas: Canvas, rng: np.random.Generator) -> None:
    """Hills of textured grass with trees, below clouds."""
    light = sky(canvas, rng)
    far, near = (
        tone(rgb("#8fb59a"), light),
        tone(rgb(("#7aa653", "#94a84f", "#5f9650")[rng.integers(3)]), light),
    )
    canvas.fill(ridge(canvas, rng, 0.58, 0.05), textured(canvas, rng, far, 0.04))
    for _ in range(rng.integers(3, 7)):
        tree(canvas, rng, rng.uniform(0, canvas.x.max()), rng.uniform(0.60, 0.68), light)
    canvas.fill(ridge(canvas, rng, 0.70, 0.03), textured(canvas, rng, near, 0.10))


def city(canvas: Canvas, rng: np.random.Generator) -> None:
    """Two rows of houses with lit windows, along a street."""
    light = sky(canvas, rng)
    for base, height, hue in ((0.74, 0.42, "#8d99ad"), (0.76, 0.26, "#5e6880")):
        left = -0.05
        while left < canvas.x.max():
            width = rng.uniform(0.12, 0.24)
            house(canvas, rng, left, width, base - height * rng.uniform(0.5, 1), tone(rgb(hue), light))
            left += width + rng.uniform(0, 0.02)
    street = tone(rgb("#7b7c83"), light)
    canvas.fill(0.76 - canvas.y, textured(canvas, rng, street, 0.07))
    canvas.fill(np.abs(canvas.y - 0.765) - 0.012, tone(rgb("#c9c6bd"), light))


def room(canvas: Canvas, rng: np.random.Generator) -> None:
    """A papered wall with a picture, a skirting board and a wooden floor."""
    paper = rgb(("#d8c7a8", "#a9c3bb", "#d7a9a0", "#8ea3c1", "#c3b5d0", "#7f9a86")[rng.integers(6)])
    canvas.fill(-np.ones_like(canvas.y), textured(canvas, rng, paper, 0.03))
    step = rng.uniform(0.08, 0.16)
    if rng.random() < 0.5:
        canvas.fill(np.abs((canvas.x / step) % 1 - 0.5) * step - 0.22 * step, tone(paper, 1.25), 0.6)
    else:
        row = np.floor(canvas.y / step)
        across = ((canvas.x / step + 0.5 * (row % 2)) % 1 - 0.5) * step
        canvas.fill(circle(across, (canvas.y / step - row - 0.5) * step, 0.16 * step), tone(paper, 0.82), 0.8)
    left = rng.uniform(0.1, 1.0)
    canvas.fill(
        box(canvas.x - left, canvas.y - 0.26, 0.16, 0.13), tone(rgb("#7a5230"), rng.uniform(0.6, 1.3))
    )
    scene = ramp((canvas.y - 0.15) / 0.22, rgb(SKIES[rng.integers(4)][0]), rgb("#f3e6c8"))
    canvas.fill(box(canvas.x - left, canvas.y - 0.26, 0.135, 0.105), scene)
    planks = textured(canvas, rng, tone(rgb("#a9774a"), rng.uniform(0.7, 1.2)), 0.06, stretch=12)
    canvas.fill(0.79 - canvas.y, planks)
    canvas.fill(np.maximum(np.abs((canvas.y * 16) % 1 - 0.5) / 16 - 0.001, 0.79 - canvas.y), INK, 0.35)
    canvas.fill(np.abs(canvas.y - 0.775) - 0.022, rgb("#f1ede2"))


def sea(canvas: Canvas, rng: np.random.Generator) -> None:
    """Waves below a wide sky, sails on them, sand in front."""
    light = sky(canvas, rng)
    deep, shallow = (
        tone(rgb(("#2f6f9f", "#2b7f8f", "#476a9a")[rng.integers(3)]), light),
        tone(rgb("#7fc4c9"), light),
    )
    water = ramp((canvas.y - 0.55) / 0.28, deep, shallow)
    canvas.fill(0.55 - canvas.y, water + waves(canvas, rng, 0.05)[..., None])
    for _ in range(rng.integers(1, 4)):
        sail(canvas, rng.uniform(0, canvas.x.max()), rng.uniform(0.56, 0.62), rng.uniform(0.05, 0.09))
    sand = tone(rgb("#e6d3a3"), light)
    canvas.fill(ridge(canvas, rng, 0.80, 0.015) - 0.012, rgb("#f4faf8"), 0.7)
    canvas.fill(ridge(canvas, rng, 0.82, 0.015), textured(canvas, rng, sand, 0.06))


def mountains(canvas: Canvas, rng: np.random.Generator) -> None:
    """Three ranges in haze, pines in front."""
    light = sky(canvas, rng)
    hues = (("#a9b9cf", "#7f93b0", "#566f78"), ("#c9b3b8", "#96809a", "#5c5f7a"))[rng.integers(2)]
    for hue, height, rough in zip(hues, (0.42, 0.54, 0.66), (0.10, 0.07, 0.05), strict=True):
        canvas.fill(ridge(canvas, rng, height, rough), textured(canvas, rng, tone(rgb(hue), light), 0.05))
    ground = tone(rgb("#5d7d58"), light)
    canvas.fill(ridge(canvas, rng, 0.80, 0.02), textured(canvas, rng, ground, 0.09))
    for _ in range(rng.integers(5, 12)):
        pine(canvas, rng.uniform(0, canvas.x.max()), rng.uniform(0.74, 0.84), rng.uniform(0.10, 0.2), ground)


SCENES: tuple[Callable[[Canvas, np.random.Generator], None], ...] = (meadow, city, room, sea, mountains)
INK = rgb("#2b2b38")


def sky(canvas: Canvas, rng: np.random.Generator) -> float:
    """Fills the canvas with a sky of some hour; returns how bright the land below is, in (0, 1]."""
    colours = SKIES[rng.integers(len(SKIES))]
    canvas.fill(-np.ones_like(canvas.y), ramp(canvas.y / 0.75, rgb(colours[0]), rgb(colours[1])))
    spot = rng.uniform(0.1, canvas.x.max()), rng.uniform(0.1, 0.35)
    if colours == NIGHT:
        stars = rng.uniform(0, 1, (60, 2)) * (float(canvas.x.max()), 0.6)
        for x, y in stars:
            canvas.fill(
                circle(canvas.x - np.float32(x), canvas.y - np.float32(y), 0.003), (1.0, 1.0, 0.95), 0.8
            )
    disc = circle(canvas.x - np.float32(spot[0]), canvas.y - np.float32(spot[1]), 0.055)
    canvas.fill(disc, rgb("#fff6d8"), 0.4, soft=0.2)
    canvas.fill(disc, rgb("#fff8e0"))
    if colours != NIGHT:
        clouds(canvas, rng, int(rng.integers(2, 6)))
    return {SKIES[2]: 0.85, SKIES[3]: 0.75, SKIES[4]: 0.85, NIGHT: 0.5}.get(colours, 1.0)


def clouds(canvas: Canvas, rng: np.random.Generator, heaps: int) -> None:
    """Heaps of soft discs, flat below."""
    for _ in range(heaps):
        x, y = rng.uniform(0, float(canvas.x.max())), rng.uniform(0.06, 0.36)
        heap = np.full_like(canvas.x + canvas.y, 9)
        for _ in range(5):
            puff_x, radius = x + rng.uniform(-0.13, 0.13), rng.uniform(0.025, 0.06)
            heap = np.minimum(heap, circle(canvas.x - np.float32(puff_x), canvas.y - np.float32(y), radius))
        canvas.fill(np.maximum(heap, canvas.y - np.float32(y + 0.02)), (1.0, 1.0, 1.0), 0.75, soft=0.012)


def ridge(canvas: Canvas, rng: np.random.Generator, height: float, rough: float) -> Field:
    """The land below a skyline around `height`: distances (1, H, W)."""
    skyline = height + rough * coloured(rng, (2 * canvas.x.shape[2],), 1.6)[: canvas.x.shape[2]]
    return (skyline - canvas.y).astype(np.float32)


def textured(
    canvas: Canvas, rng: np.random.Generator, colour: Colour, depth: float, stretch: int = 1
) -> Field:
    """`colour` with fractal light and shade, (1, H, W, 3); `stretch` draws it out to the side."""
    height, width = canvas.y.shape[1], canvas.x.shape[2]
    grain = coloured(rng, (height, -(-width // stretch)), 0.9).repeat(stretch, axis=1)[:, :width]
    shade = 1.06 - 0.25 * (canvas.y - 0.6) + depth * grain
    return np.clip(np.asarray(colour, np.float32) * shade[..., None], 0, 1)


def waves(canvas: Canvas, rng: np.random.Generator, depth: float) -> Field:
    """Streaks of light that lie flat, (1, H, W)."""
    height, width = canvas.y.shape[1], canvas.x.shape[2]
    streaks = coloured(rng, (height, -(-width // 8)), 0.4).repeat(8, axis=1)[:, :width]
    return (depth * streaks)[None]


def tree(canvas: Canvas, rng: np.random.Generator, x: float, foot: float, light: float) -> None:
    """A trunk and a round crown."""
    size = rng.uniform(0.05, 0.10)
    crown = tone(rgb(("#4c7f46", "#6b8f3d", "#b5823a")[rng.integers(3)]), light)
    across, up = canvas.x - np.float32(x), canvas.y - np.float32(foot)
    canvas.fill(line(across, up, (0, 0.05), (0, -size), 0.012), tone(rgb("#6b4a2f"), light))
    canvas.fill(circle(across, up + 1.7 * size, size), tone(crown, 0.85))
    canvas.fill(circle(across + 0.2 * size, up + 1.85 * size, 0.7 * size), crown)


def house(
    canvas: Canvas, rng: np.random.Generator, left: float, width: float, top: float, colour: Colour
) -> None:
    """A block from `top` down, with a grid of windows, some of them lit."""
    across, down = canvas.x - np.float32(left), canvas.y - np.float32(top)
    wall = np.maximum(np.abs(across - width / 2) - width / 2, -down)
    canvas.fill(wall, tone(colour, rng.uniform(0.8, 1.1)))
    pitch = 0.045
    pane = np.maximum(np.abs(across % pitch - pitch / 2), np.abs(down % pitch - pitch / 2)) - 0.011
    inside = np.maximum(wall + 0.012, pane)
    column, row = (across // pitch).astype(int), (down // pitch).astype(int)
    lit = rng.random((64, 16))[row % 64, column % 16] < 0.35
    canvas.fill(inside, tone(colour, 0.65))
    canvas.fill(np.where(lit, inside, np.float32(9)), rgb("#ffe29a"), 0.9)


def sail(canvas: Canvas, x: float, y: float, size: float) -> None:
    """A boat far away."""
    across, up = (canvas.x - np.float32(x)) / size, (canvas.y - np.float32(y)) / size
    canvas.fill(size * polygon(across, up, (0.0, -1.3), (0.7, -0.15), (0.0, -0.15)), rgb("#fdfaf2"))
    canvas.fill(size * polygon(across, up, (-0.1, -1.0), (-0.1, -0.15), (-0.5, -0.15)), rgb("#f1d9c4"))
    canvas.fill(
        size * polygon(across, up, (-0.7, -0.08), (0.8, -0.08), (0.5, 0.15), (-0.5, 0.15)), rgb("#7a3f3a")
    )


def pine(canvas: Canvas, x: float, foot: float, size: float, ground: Colour) -> None:
    """Three triangles on top of each other."""
    across, up = (canvas.x - np.float32(x)) / size, (canvas.y - np.float32(foot)) / size
    for top, half in ((-1.0, 0.22), (-0.75, 0.30), (-0.5, 0.38)):
        leaf = polygon(across, up, (0.0, top), (half, top + 0.5), (-half, top + 0.5))
        canvas.fill(size * leaf, tone(ground, 0.55 + 0.15 * (top + 1)))


def draw_scene(rng: np.random.Generator, height: int, width: int, margin_px: int) -> Field:
    """A scene with a margin on every side: (height + 2 margin, width + 2 margin, 3) in [0, 1]."""
    canvas = Canvas(
        1, height + 2 * margin_px, width + 2 * margin_px, height, (margin_px / height, margin_px / height)
    )
    SCENES[rng.integers(len(SCENES))](canvas, rng)
    return canvas.rgba[0, :, :, :3]
