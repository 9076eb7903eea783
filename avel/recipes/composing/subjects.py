"""Event classes of the synthetic clips: how each looks, moves and sounds."""

from dataclasses import dataclass

from avel.recipes.composing import pictures, sounds


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
