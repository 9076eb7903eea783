"""A script turned into what a camera would have recorded: frames."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from avel.recipes.composing.objects import Look
from avel.recipes.composing.scenes import draw_scene
from avel.recipes.composing.script import Script
from avel.recipes.composing.shapes import Canvas, Field, rgb
from avel.recipes.composing.sounds import Cycle
from avel.recipes.composing.subjects import SUBJECTS

Frame = NDArray[np.uint8]
SIZES_PX = ((256, 192), (256, 192), (320, 240), (320, 180), (240, 240))  # width, height
FRAME_RATES = (Fraction(25), Fraction(30000, 1001), Fraction(30))
SAMPLE_RATES_HZ = (16000, 44100, 48000)
MARGIN_PX = 14
FADE_SECONDS = 0.1
POSES_PER_CYCLE = 24
SPRITE_UNITS = 1.12
"""Half the width of an object's picture, in units of the object: room for its outline and its swing."""


@dataclass(frozen=True)
class Camera:
    """How one clip is recorded."""

    width_px: int
    height_px: int
    fps: Fraction
    hz: int
    channels: int
    light: tuple[float, float, float]
    grain: float
    pan_hz: float
    loudness_db: float
    noise_db: float


@dataclass(frozen=True)
class Actor:
    """One object of a clip: its cycle drawn, its place in pixels and when it is on screen."""

    light: Field
    """What each pose adds to the picture, (P, S, S, 3) in [0, 255]."""
    veil: Field
    """The share of the picture behind that each pose hides, (P, S, S, 3)."""
    cycle: Cycle
    left_px: int
    top_px: int
    seen: tuple[bool, ...]


def choose_camera(rng: np.random.Generator, take: int) -> Camera:
    """A camera for the clip number `take`; rates and sizes go round so that few clips show all of them."""
    width, height = SIZES_PX[rng.integers(len(SIZES_PX))]
    warmth = rng.uniform(-0.06, 0.06)
    level = rng.uniform(0.88, 1.04)
    return Camera(
        width_px=width,
        height_px=height,
        fps=FRAME_RATES[(take + take // 3) % 3],
        hz=SAMPLE_RATES_HZ[(take // 3) % 3],
        channels=1 + (take // 2) % 2,
        light=(level * (1 + warmth), level, level * (1 - warmth)),
        grain=rng.uniform(0, 3),
        pan_hz=rng.uniform(0.04, 0.12),
        loudness_db=rng.uniform(-24, -16),
        noise_db=rng.uniform(-62, -46),
    )


def cast(rng: np.random.Generator, script: Script, camera: Camera) -> dict[str, Actor]:
    """An actor for every class that the script shows or sounds; the event's classes keep apart."""
    names = dict.fromkeys(
        script.categories + tuple(name for both in (*script.seen, *script.heard) for name in both)
    )
    actors = {}
    for at, name in enumerate(names):
        places = len(script.categories) if name in script.categories else 1
        middle = (at + 0.5) / places if name in script.categories else 0.5
        actors[name] = _actor(rng, name, camera, middle, places, tuple(name in seen for seen in script.seen))
    return actors


def _actor(
    rng: np.random.Generator, name: str, camera: Camera, middle: float, places: int, seen: tuple[bool, ...]
) -> Actor:
    subject = SUBJECTS[name]
    cycle = Cycle(rng.uniform(*subject.cycle_hz), rng.uniform())
    main, accent = subject.colours[rng.integers(len(subject.colours))]
    look = Look(rgb(main), rgb(accent), rng.uniform())
    half_px = camera.height_px * rng.uniform(*subject.half_size)
    half_px = min(half_px, 0.5 * camera.width_px / places / SPRITE_UNITS)
    side_px = 2 * round(half_px * SPRITE_UNITS)
    canvas = Canvas(POSES_PER_CYCLE, side_px, side_px, half_px, (SPRITE_UNITS, SPRITE_UNITS))
    phase = np.arange(POSES_PER_CYCLE, dtype=np.float32)[:, None, None] / POSES_PER_CYCLE
    if any(seen):
        subject.draw(canvas, phase, look)
    free_px = max(camera.width_px / places - side_px, 0) / 2
    left_px = camera.width_px * middle - side_px / 2 + rng.uniform(-free_px, free_px)
    top_px = camera.height_px * rng.uniform(*subject.centre) - side_px / 2
    rim_px = side_px / 2 - half_px  # the picture's empty rim may leave the frame, the object may not
    top_px = float(np.clip(top_px, -rim_px, camera.height_px - side_px + rim_px))
    poses = canvas.rgba[:, :, ::-1] if rng.random() < 0.5 else canvas.rgba
    light = 255 * np.minimum(poses[..., :3] * np.asarray(camera.light, np.float32), 1)
    return Actor(light, poses[..., 3:].repeat(3, axis=3), cycle, round(left_px), round(top_px), seen)


def film_frames(
    rng: np.random.Generator, camera: Camera, actors: dict[str, Actor], seconds: int
) -> Iterator[Frame]:
    """RGB frames (H, W, 3), frame n at n / fps, until `seconds` are full."""
    scene = draw_scene(rng, camera.height_px, camera.width_px, MARGIN_PX)
    scene = 255 * np.clip(scene * np.asarray(camera.light, np.float32), 0, 1)
    grain = rng.normal(0, camera.grain, (camera.height_px + 32, camera.width_px + 32, 1)).repeat(3, axis=2)
    grain = grain.astype(np.float32)
    start = rng.uniform()
    for number in range(math.ceil(seconds * camera.fps)):
        time = float(number / camera.fps)
        pan_px = (MARGIN_PX - 2) * np.sin(2 * np.pi * (camera.pan_hz * time + start))
        left = int(np.floor(pan_px))
        world = _cut(scene, left, camera)
        for actor in actors.values():
            opacity = fade(actor.seen, time)
            if opacity > 0:
                _paste(world, actor, time, opacity, left)
        frame = world[:, :-1] + np.float32(pan_px - left) * (
            world[:, 1:] - world[:, :-1]
        )  # a pan in parts of pixels
        row, column = rng.integers(0, 32, 2)
        frame += grain[row : row + camera.height_px, column : column + camera.width_px]
        yield np.clip(frame, 0, 255, out=frame).astype(np.uint8)


def fade(seen: tuple[bool, ...], time: float, half_seconds: float = FADE_SECONDS / 2) -> float:
    """How visible something is at `time` that is there in the seconds `seen`, in [0, 1].

    It is half there at the very second, and wholly half a fade later.
    """
    second = min(int(time), len(seen) - 1)
    since, left = time - second, second + 1 - time
    now = float(seen[second])
    before = float(seen[max(second - 1, 0)])
    after = float(seen[min(second + 1, len(seen) - 1)])
    if since < half_seconds:
        return now + (before - now) * (0.5 - 0.5 * since / half_seconds)
    if left < half_seconds:
        return now + (after - now) * (0.5 - 0.5 * left / half_seconds)
    return now


def _cut(scene: Field, left_px: int, camera: Camera) -> Field:
    """What the camera sees of the scene at a whole pixel, and one column more: (H, W + 1, 3)."""
    left = MARGIN_PX + left_px
    return scene[MARGIN_PX : MARGIN_PX + camera.height_px, left : left + camera.width_px + 1].copy()


def _paste(world: Field, actor: Actor, time: float, opacity: float, pan_px: int) -> None:
    """Lays the actor's pose of this moment over the world, in place; what lies outside is cut off."""
    pose = round(actor.cycle.phase(time) * POSES_PER_CYCLE) % POSES_PER_CYCLE
    top, left = actor.top_px, actor.left_px - pan_px
    row, column = max(-top, 0), max(-left, 0)
    under = world[top + row : top + actor.light.shape[1], left + column : left + actor.light.shape[2]]
    inside = slice(row, row + under.shape[0]), slice(column, column + under.shape[1])
    under *= 1 - np.float32(opacity) * actor.veil[pose][inside]
    under += np.float32(opacity) * actor.light[pose][inside]
