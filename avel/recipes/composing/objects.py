"""The six things that the demo's clips show, each drawn over one cycle of its motion.

A cycle is P pictures; `phase` (P, 1, 1) runs from 0 to 1. The sounds of sounds.py strike on the same phases.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from avel.recipes.composing.shapes import (
    Canvas,
    Colour,
    Field,
    box,
    circle,
    ellipse,
    line,
    polygon,
    ramp,
    rgb,
    tone,
    turned,
)

INK = rgb("#2b2b38")
GLASS = rgb("#bfe3ee")
WOOD = rgb("#8a5a35")
TURN = np.float32(2 * np.pi)


@dataclass(frozen=True)
class Look:
    """How one clip's object differs from the next clip's of the same class."""

    main: Colour
    accent: Colour
    detail: float
    """In [0, 1]: the hour on the clock, the slope of the branch, the marks on the van."""


def church_bell(canvas: Canvas, phase: Field, look: Look) -> None:
    """A bell swings below its beam; it strikes at both ends of the swing, phases 0 and 0.5."""
    swing = 0.36 * np.cos(TURN * phase)
    canvas.fill(box(canvas.x, canvas.y + 0.86, 0.72, 0.075, 0.03), tone(WOOD, 0.85 + 0.3 * look.detail))
    canvas.fill(box(canvas.x, canvas.y + 0.90, 0.72, 0.02, 0.02), tone(WOOD, 1.25), 0.6)
    x, y = turned(canvas.x, canvas.y, 1.25 * swing, (0, -0.78))
    canvas.fill(line(x, y, (0, 0.9), (0, 1.34), 0.035), tone(look.main, 0.4))
    canvas.fill(circle(x, y - 1.36, 0.12), tone(look.main, 0.5))
    x, y = turned(canvas.x, canvas.y, swing, (0, -0.78))
    canvas.fill(box(x, y - 0.09, 0.10, 0.12, 0.05), tone(look.main, 0.6))
    down = np.clip((y - 0.16) / 1.04, 0, 1)
    half = 0.25 * np.sqrt(np.minimum(down * 5, 1)) + 0.12 * down + 0.22 * down**5
    bell = np.maximum(0.8 * (np.abs(x) - half), np.abs(y - 0.68) - 0.52)
    across = x / np.maximum(half, 0.05)
    metal = ramp(np.abs(across + 0.35) / 1.3, tone(look.main, 1.35), tone(look.main, 0.7))
    canvas.fill(bell - 0.025, tone(look.main, 0.35))
    canvas.fill(bell, metal)
    for height, width in ((1.13, 0.05), (0.93, 0.018), (0.42, 0.018)):
        canvas.fill(np.maximum(bell, np.abs(y - height) - width), tone(look.main, 0.5), 0.55)


def ambulance(canvas: Canvas, phase: Field, look: Look) -> None:
    """A van whose two lamps flash in turn, four times a cycle, while it shakes a little."""
    x, y = canvas.x, canvas.y + 0.012 * np.sin(TURN * 8 * phase)
    canvas.fill(ellipse(canvas.x, canvas.y - 0.66, 0.95, 0.10), INK, 0.35, soft=0.06)
    white = rgb("#f6f5f0")
    cargo = box(x + 0.20, y + 0.02, 0.70, 0.50, 0.08)
    cab = np.maximum(
        box(x - 0.45, y - 0.12, 0.48, 0.40, 0.10),
        polygon(x, y, (0.3, -0.4), (0.55, -0.4), (0.99, 0.16), (0.99, 0.6), (0.3, 0.6)),
    )
    body = np.minimum(cargo, cab)
    canvas.fill(body - 0.028, tone(INK, 1.15))
    canvas.fill(body, ramp((y + 0.5) / 1.1, white, tone(white, 0.78)))
    canvas.fill(np.maximum(body, np.abs(y - 0.2) - 0.085), look.main)
    canvas.fill(np.maximum(body, np.abs(y - 0.33) - 0.02), look.accent)
    canvas.fill(polygon(x, y, (0.42, -0.24), (0.54, -0.24), (0.82, 0.08), (0.42, 0.08)), GLASS)
    arms = ((0.17, 0.055), (0.055, 0.17))
    for half_width, half_height in arms:
        canvas.fill(box(x + 0.45 - 0.2 * look.detail, y + 0.16, half_width, half_height, 0.01), look.main)
    canvas.fill(box(x - 0.93, y - 0.30, 0.04, 0.06, 0.03), rgb("#ffe08a"))
    for wheel in (-0.50, 0.55):
        canvas.fill(circle(x - wheel, y - 0.52, 0.20), INK)
        canvas.fill(circle(x - wheel, y - 0.52, 0.10), rgb("#b9bcc4"))
    for side, hue, lamp in ((0.0, "#2f7bff", -0.02), (0.5, "#ff3b4e", 0.22)):
        lit = np.cos(TURN * (4 * phase + side)) > 0
        canvas.fill(box(x - lamp, y + 0.55, 0.11, 0.07, 0.03), tone(rgb(hue), 0.55))
        glow = np.where(lit, circle(x - lamp, y + 0.57, 0.02), np.float32(9))
        canvas.fill(glow, tone(rgb(hue), 1.15), 0.85, soft=0.55)
        canvas.fill(
            np.where(lit, box(x - lamp, y + 0.55, 0.10, 0.06, 0.03), np.float32(9)), tone(rgb(hue), 1.5)
        )


def helicopter(canvas: Canvas, phase: Field, look: Look) -> None:
    """A helicopter hovers; its blades pass six times a cycle."""
    x, y = turned(canvas.x, canvas.y - 0.04 * np.sin(TURN * phase), 0.06 * np.sin(TURN * phase), (0, 0.1))
    dark = tone(look.main, 0.45)
    tail = np.minimum(
        line(x, y, (0.25, 0.0), (0.88, -0.16), 0.055),
        polygon(x, y, (0.78, -0.42), (0.92, -0.42), (0.96, -0.1), (0.82, -0.1)),
    )
    for foot in (-0.22, 0.16):
        canvas.fill(line(x, y, (foot, 0.3), (foot - 0.05, 0.55), 0.022), INK)
    canvas.fill(line(x, y, (-0.5, 0.55), (0.36, 0.55), 0.03), INK)
    canvas.fill(tail - 0.022, dark)
    canvas.fill(tail, tone(look.main, 0.85))
    hull = ellipse(x + 0.08, y - 0.12, 0.52, 0.30)
    canvas.fill(hull - 0.024, dark)
    canvas.fill(hull, ramp((y + 0.2) / 0.62, tone(look.main, 1.2), tone(look.main, 0.8)))
    canvas.fill(np.maximum(hull, np.abs(y - 0.2) - 0.045), look.accent)
    window = ellipse(x + 0.33, y - 0.07, 0.22, 0.19)
    canvas.fill(np.maximum(np.maximum(window, hull + 0.03), y - 0.13), GLASS)
    canvas.fill(box(x - 0.06, y - 0.02, 0.11, 0.10, 0.03), tone(GLASS, 0.9))
    canvas.fill(box(x + 0.05, y + 0.27, 0.035, 0.13), INK)
    canvas.fill(ellipse(x + 0.05, y + 0.40, 0.93, 0.075), rgb("#e8edf2"), 0.30)
    blade = 0.93 * np.abs(np.cos(TURN * 3 * phase)) + 0.05
    canvas.fill(ellipse(x + 0.05, y + 0.40, blade, 0.030), INK)
    spin_x, spin_y = turned(x, y, TURN * 2 * phase, (0.9, -0.2))
    canvas.fill(box(spin_x, spin_y, 0.2, 0.022, 0.02), INK)


def bouncing_ball(canvas: Canvas, phase: Field, look: Look) -> None:
    """A ball meets the ground at phase 0, where it is flattest and its shadow darkest."""
    height = 4 * phase * (1 - phase)
    touch = np.exp(-np.square(height / 0.25))
    canvas.fill(ellipse(canvas.x, canvas.y - 0.86, 0.40 - 0.14 * height, 0.075), INK, 0.45, soft=0.07)
    x, y = (
        canvas.x / (1 + 0.14 * touch),
        (canvas.y - 0.44 - 0.07 * touch + 0.95 * height) / (1 - 0.16 * touch),
    )
    disc = circle(x, y, 0.41)
    canvas.fill(disc - 0.022, tone(look.main, 0.35))
    light = np.hypot(x + 0.15, y + 0.17)
    canvas.fill(disc, ramp(light / 0.62, tone(look.main, 1.2), tone(look.main, 0.8)))
    turn_x, turn_y = turned(x, y, TURN * (phase + look.detail))
    seams = np.minimum(np.abs(turn_x), np.abs(turn_y))
    for side in (-1, 1):
        seams = np.minimum(seams, np.abs(circle(turn_x - side * 0.46, turn_y, 0.30)))
    canvas.fill(np.maximum(seams - 0.018, disc), tone(look.accent, 0.5), 0.9)
    canvas.fill(ellipse(x + 0.16, y + 0.2, 0.10, 0.06), (1.0, 1.0, 1.0), 0.35, soft=0.06)


def pendulum_clock(canvas: Canvas, phase: Field, look: Look) -> None:
    """A wall clock; its pendulum ticks at both ends of the swing, phases 0 and 0.5."""
    x, y = canvas.x, canvas.y
    case = np.minimum(
        box(x, y - 0.08, 0.46, 0.86, 0.05), polygon(x, y, (0.0, -1.0), (0.60, -0.66), (-0.60, -0.66))
    )
    canvas.fill(case - 0.026, tone(look.main, 0.4))
    canvas.fill(case, ramp((x + 0.5) / 1.0, tone(look.main, 1.12), tone(look.main, 0.85)))
    canvas.fill(box(x, y - 0.47, 0.34, 0.38, 0.06), tone(look.main, 0.35))
    swing_x, swing_y = turned(x, y, 0.30 * np.cos(TURN * phase), (0, 0.02))
    rod = np.maximum(box(swing_x, swing_y - 0.32, 0.016, 0.33), 0.12 - y)
    brass = rgb("#f0c552")
    canvas.fill(rod, tone(brass, 0.8))
    canvas.fill(circle(swing_x, swing_y - 0.66, 0.115), tone(brass, 0.65))
    canvas.fill(circle(swing_x + 0.015, swing_y - 0.645, 0.085), brass)
    canvas.fill(circle(x, y + 0.34, 0.385), tone(brass, 0.8))
    canvas.fill(circle(x, y + 0.34, 0.345), rgb("#fbf6e6"))
    for hour in range(12):
        mark_x, mark_y = turned(x, y, float(TURN) * hour / 12, (0, -0.34))
        canvas.fill(box(mark_x, mark_y + 0.285, 0.014, 0.035), INK)
    for turns, length, half in ((look.detail, 0.19, 0.026), (12 * look.detail, 0.28, 0.018)):
        hand_x, hand_y = turned(x, y, float(TURN) * turns, (0, -0.34))
        canvas.fill(line(hand_x, hand_y, (0, 0.03), (0, -length), half), INK)
    canvas.fill(circle(x, y + 0.34, 0.035), look.accent)


def songbird(canvas: Canvas, phase: Field, look: Look) -> None:
    """A bird on a branch; the beak opens for four calls in the first 0.64 of the cycle."""
    slope = 0.16 * look.detail - 0.08
    canvas.fill(line(canvas.x, canvas.y, (-0.98, 0.72 - slope), (0.98, 0.72 + slope), 0.05), tone(WOOD, 0.75))
    for leaf, side in ((-0.78, -1), (0.55, 1), (0.84, -1)):
        leaf_x, leaf_y = turned(canvas.x, canvas.y, 0.9 * side, (leaf, 0.72 + slope * leaf - 0.11 * side))
        canvas.fill(ellipse(leaf_x, leaf_y, 0.15, 0.065), rgb("#5f9e4a"))
    sings = np.where(phase < 0.64, np.square(np.sin(TURN * 3.125 * phase)), 0).astype(np.float32)
    x, y = turned(canvas.x, canvas.y + 0.04 * sings, -0.10 * sings, (0, 0.6))
    dark = tone(look.main, 0.45)
    for foot in (-0.02, 0.12):
        canvas.fill(line(canvas.x, canvas.y, (foot, 0.5), (foot + 0.02, 0.7), 0.02), rgb("#d98e3f"))
    tail_x, tail_y = turned(x, y, -0.45, (0.42, -0.28))
    canvas.fill(box(tail_x - 0.34, tail_y, 0.32, 0.07, 0.03), dark)
    body_x, body_y = turned(x, y, -0.45, (0.05, -0.38))
    body, head = ellipse(body_x, body_y, 0.46, 0.33), circle(x + 0.32, y + 0.78, 0.25)
    bird = np.minimum(body, head)
    for jaw in (-1, 1):
        beak_x, beak_y = turned(x, y, jaw * 0.42 * sings, (-0.5, -0.78))
        lip = polygon(beak_x, beak_y, (-0.30, 0.0), (0.04, -0.09), (0.04, 0.09))
        canvas.fill(np.maximum(lip, -jaw * beak_y), rgb("#f2a93b") if jaw < 0 else rgb("#d98e3f"))
    canvas.fill(bird - 0.024, dark)
    canvas.fill(bird, ramp((y + 1.0) / 1.1, tone(look.main, 1.2), tone(look.main, 0.85)))
    belly = ellipse(body_x + 0.16, body_y - 0.12, 0.34, 0.24)
    canvas.fill(np.maximum(belly, bird + 0.02), look.accent)
    wing_x, wing_y = turned(x, y, -0.65 - 0.12 * sings, (0.16, -0.42))
    canvas.fill(ellipse(wing_x, wing_y, 0.32, 0.16), dark)
    canvas.fill(ellipse(wing_x + 0.02, wing_y + 0.03, 0.27, 0.11), tone(look.main, 0.75))
    canvas.fill(circle(x + 0.38, y + 0.83, 0.055), INK)
    canvas.fill(circle(x + 0.395, y + 0.85, 0.018), (1.0, 1.0, 1.0))


Draw = Callable[[Canvas, Field, Look], None]
