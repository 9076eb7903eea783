"""Turns a script into frames and audio samples; how each event class looks, moves and sounds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avel.recipes.composing import pictures, sounds
from avel.recipes.composing.pictures import Colour, Sketch, draw_place, painted
from avel.recipes.composing.script import Script
from avel.recipes.composing.sounds import Cycle, Waveform, band_noise

WIDTH_PX, HEIGHT_PX, FPS, FILM_SAMPLE_RATE = 192, 144, Fraction(12), 16000
POSES = 12
"""Number of pictures in one cycle of a motion."""
HALF_SIZE = (0.22, 0.32)
"""Least and greatest half height of an object, as a fraction of the frame's height."""
CYCLE_HZ, LOUDNESS_DB, AMBIENCE_DB = (1.0, 1.5), (-26, -16), (-60, -40)
PEAK = 0.9
EDGE_SECONDS = 0.015
"""Length of the ramp at both ends of every second of a sound, without which it would click."""


@dataclass(frozen=True)
class Subject:
    """An event class.

    Attributes:
        hue: its colour, in [0, 1].
        sway: how far right and down it is at phase 0 of its motion, in halves of its height, and how many
            degrees it is turned clockwise; at phase 0.5 it is as far on the other side.
    """

    draw: pictures.DrawObject
    hue: float
    sway: tuple[float, float, float]
    sound: sounds.Sound


SUBJECTS: dict[str, Subject] = {
    "Church bell": Subject(pictures.bell, 0.12, (-0.36, 0, 22), sounds.bell),
    "Train horn": Subject(pictures.train, 0.0, (0.35, 0, 0), sounds.horn),
    "Helicopter": Subject(pictures.helicopter, 0.6, (0, 0.2, 6), sounds.rotor),
    "Clock": Subject(pictures.clock, 0.75, (0, 0, 14), sounds.ticks),
    "Frog": Subject(pictures.frog, 0.32, (0, 0.3, 0), sounds.croak),
    "Bird song": Subject(pictures.bird, 0.9, (0.08, 0, 12), sounds.song),
}


@dataclass(frozen=True)
class Actor:
    """One object of a clip: its pictures over a cycle, left and top of each in pixels, its sound (1, n)."""

    colour: Colour
    cycle: Cycle
    poses: tuple[Image.Image, ...]
    corners: tuple[tuple[int, int], ...]
    sound: Waveform

    def pose(self, seconds: float) -> int:
        """Returns which of the poses the object takes at `seconds`."""
        return int(self.cycle.phase(seconds) * POSES)


@dataclass(frozen=True)
class Film:
    """One clip: an empty place with its ambience (1, n), and what enters it."""

    script: Script
    place: Image.Image
    ambience: Waveform
    actors: dict[str, Actor]

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yields RGB frames (H, W, 3), frame n at n / FPS."""
        for number in range(len(self.script.video) * int(FPS)):
            seconds = number / float(FPS)
            picture = self.place.copy()
            for actor in (self.actors[name] for name in self.script.video[int(seconds)]):
                pose = actor.pose(seconds)
                picture.paste(actor.poses[pose], actor.corners[pose], actor.poses[pose])
            yield np.asarray(picture)

    def samples(self) -> Waveform:
        """Returns one channel of sound in [-1, 1], (1, n) at FILM_SAMPLE_RATE."""
        return np.clip(sum((actor.sound for actor in self.actors.values()), self.ambience), -1, 1)


def make_film(script: Script, seed: int, number: int) -> Film:
    """Returns the film of a script; `seed` and `number` choose place, sizes, colours, tempi and pitches."""
    rng = np.random.default_rng([seed, number])
    seconds = np.arange(len(script.audio) * FILM_SAMPLE_RATE) / FILM_SAMPLE_RATE
    ambience = 10 ** (rng.uniform(*AMBIENCE_DB) / 20) * band_noise(rng, seconds, 50, 4000)
    place = draw_place(rng, WIDTH_PX, HEIGHT_PX)
    names = sorted({name for second in (*script.video, *script.audio) for name in second})
    actors = {name: _actor(rng, name, seconds, [name in second for second in script.audio]) for name in names}
    return Film(script, place, ambience[None], actors)


def _actor(rng: np.random.Generator, name: str, seconds: Waveform, audible: Sequence[bool]) -> Actor:
    subject = SUBJECTS[name]
    cycle = Cycle(rng.uniform(*CYCLE_HZ), rng.uniform())
    colour = painted(subject.hue + rng.uniform(-0.02, 0.02), rng.uniform(0.7, 0.9), rng.uniform(0.65, 0.95))
    half_px = HEIGHT_PX * rng.uniform(*HALF_SIZE)
    middle = WIDTH_PX * rng.uniform(0.35, 0.65), HEIGHT_PX * rng.uniform(0.42, 0.58)
    sketch = Sketch(round(2 * half_px))
    subject.draw(sketch, colour)
    still = sketch.image(mirrored=rng.random() < 0.5)
    poses, corners = [], []
    for pose in range(POSES):
        right, down, degrees = (part * np.cos(2 * np.pi * pose / POSES) for part in subject.sway)
        poses.append(still.rotate(-degrees, Image.Resampling.BILINEAR, expand=True) if degrees else still)
        width, height = poses[-1].size
        left, top = middle[0] + half_px * right - width / 2, middle[1] + half_px * down - height / 2
        corners.append((round(left), round(top)))
    sound = np.zeros((1, len(seconds)), np.float32)
    if any(audible):
        at = np.repeat(audible, FILM_SAMPLE_RATE)
        voice = subject.sound(cycle, seconds[at], rng)
        voice *= 10 ** (rng.uniform(*LOUDNESS_DB) / 20) / voice.std()
        ramp = np.minimum(1, np.minimum(seconds[at] % 1, 1 - seconds[at] % 1) / EDGE_SECONDS)
        sound[0, at] = PEAK * np.tanh(voice / PEAK) * ramp
    return Actor(colour, cycle, tuple(poses), tuple(corners), sound)
