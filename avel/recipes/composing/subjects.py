"""The demo's event classes: what is drawn, what sounds, how fast, how large, where, in which colours."""

from dataclasses import dataclass

from avel.recipes.composing import objects, sounds


@dataclass(frozen=True)
class Subject:
    """An event class; ranges are what a clip's own value is drawn from."""

    draw: objects.Draw
    sound: sounds.Sound
    cycle_hz: tuple[float, float]
    """Swings, bounces or wails a second."""
    centre: tuple[float, float]
    """Share of the frame's height from the top to the object's middle."""
    half_size: tuple[float, float]
    """Half the object's height as a share of the frame's."""
    colours: tuple[tuple[str, str], ...]
    """Main and accent colour."""


SUBJECTS: dict[str, Subject] = {
    "Church bell": Subject(
        objects.church_bell,
        sounds.bell,
        (0.7, 1.0),
        (0.38, 0.52),
        (0.36, 0.43),
        (("#d9a441", "#d9a441"), ("#e3bd55", "#e3bd55"), ("#cf9a3a", "#cf9a3a")),
    ),
    "Ambulance (siren)": Subject(
        objects.ambulance,
        sounds.siren,
        (0.5, 0.9),
        (0.58, 0.70),
        (0.36, 0.43),
        (("#d8343f", "#2f5fb3"), ("#e5532d", "#2f5fb3"), ("#d8343f", "#f2c230")),
    ),
    "Helicopter": Subject(
        objects.helicopter,
        sounds.rotor,
        (1.6, 2.3),
        (0.28, 0.50),
        (0.38, 0.46),
        (("#2f6fb0", "#f2c230"), ("#3a58a8", "#f5efe0"), ("#2f86a8", "#f5efe0")),
    ),
    "Basketball, bouncing": Subject(
        objects.bouncing_ball,
        sounds.thud,
        (1.2, 1.9),
        (0.55, 0.68),
        (0.36, 0.42),
        (("#e8853a", "#3a1d10"), ("#e0702f", "#2a1a18"), ("#ee9548", "#4a2a14")),
    ),
    "Pendulum clock": Subject(
        objects.pendulum_clock,
        sounds.ticks,
        (0.8, 1.3),
        (0.40, 0.58),
        (0.38, 0.44),
        (("#7d4a30", "#b03030"), ("#6a3f35", "#b03030"), ("#8a5a3a", "#2f5fb3")),
    ),
    "Bird song": Subject(
        objects.songbird,
        sounds.song,
        (0.9, 1.4),
        (0.38, 0.58),
        (0.36, 0.43),
        (("#d9404f", "#f4e4cc"), ("#c9386a", "#f6dccb"), ("#dd5a48", "#fbf0c8")),
    ),
}
