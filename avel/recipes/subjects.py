"""The demo's event classes: what is drawn, what sounds, how fast, how large, where, in which colours."""

from dataclasses import dataclass

from avel.recipes import objects, sounds


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
        (0.30, 0.38),
        (("#d9a441", "#d9a441"), ("#c57f3f", "#c57f3f"), ("#b7bcc2", "#b7bcc2"), ("#e3bd55", "#e3bd55")),
    ),
    "Ambulance (siren)": Subject(
        objects.ambulance,
        sounds.siren,
        (0.5, 0.9),
        (0.58, 0.70),
        (0.27, 0.36),
        (("#d8343f", "#2f5fb3"), ("#f08a24", "#d8343f"), ("#2f6fc0", "#f2c230"), ("#3c9a5f", "#2f5fb3")),
    ),
    "Helicopter": Subject(
        objects.helicopter,
        sounds.rotor,
        (1.6, 2.3),
        (0.28, 0.50),
        (0.30, 0.40),
        (("#c8433c", "#f5efe0"), ("#2f6fb0", "#f2c230"), ("#e0a52e", "#303848"), ("#4d7f5a", "#f5efe0")),
    ),
    "Basketball, bouncing": Subject(
        objects.bouncing_ball,
        sounds.thud,
        (1.2, 1.9),
        (0.55, 0.68),
        (0.28, 0.36),
        (("#e8853a", "#3a1d10"), ("#d4623a", "#2a1a18"), ("#e3a24a", "#4a2a14"), ("#5f86c9", "#1d2440")),
    ),
    "Pendulum clock": Subject(
        objects.pendulum_clock,
        sounds.ticks,
        (0.8, 1.3),
        (0.40, 0.58),
        (0.32, 0.40),
        (("#9a6238", "#b03030"), ("#6f4a38", "#b03030"), ("#b58a55", "#2f5fb3"), ("#5b6b78", "#d8343f")),
    ),
    "Bird song": Subject(
        objects.songbird,
        sounds.song,
        (0.9, 1.4),
        (0.38, 0.58),
        (0.30, 0.38),
        (("#4f8fd0", "#f3d9b0"), ("#d9573f", "#f4e4cc"), ("#e6b93c", "#fbf0c8"), ("#6a9a55", "#f0e3a8")),
    ),
}
