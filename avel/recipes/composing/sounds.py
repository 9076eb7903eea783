"""Synthesises the six sounds of the synthetic clips, in step with the motion: samples (n,), any loudness."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Cycle:
    """A motion of `cycles_per_second`, at phase `start` at second 0."""

    cycles_per_second: float
    start: float

    def phase(self, seconds: Waveform | float) -> Waveform:
        """Returns where the motion is at `seconds`, in [0, 1)."""
        turns = self.start + self.cycles_per_second * seconds
        phase: Waveform = turns - np.floor(turns)  # numpy's % takes several times as long
        return phase

    def since(self, seconds: Waveform, beats: int) -> Waveform:
        """Returns the seconds since the last of `beats` beats a cycle, evenly spaced from phase 0 on."""
        beat = self.phase(seconds) * beats
        return ((beat - np.floor(beat)) / (beats * self.cycles_per_second)).astype(np.float32)


Sound = Callable[[Cycle, Waveform, np.random.Generator], Waveform]
"""Makes a sound in step with a cycle, of random pitch: times (n,) -> samples (n,)."""


def bell(cycle: Cycle, seconds: Waveform, rng: np.random.Generator) -> Waveform:
    """Makes the strokes of a bell, one at each end of the swing: partials that decay, high ones first."""
    since, prime_hz = cycle.since(seconds, 2), rng.uniform(420, 560)
    ring = np.zeros(len(seconds), np.float32)
    for ratio, loud, decay in ((0.5, 0.5, 3), (1, 1, 4), (1.19, 0.8, 4), (2, 1, 6), (3, 0.5, 9)):
        ring += loud * np.exp(-decay * since) * wave(ratio * prime_hz, since)
    return ring


def horn(cycle: Cycle, seconds: Waveform, rng: np.random.Generator) -> Waveform:
    """Makes a chord of three reeds, on for two thirds of each half cycle."""
    low_hz = rng.uniform(250, 330)
    reeds = sum((np.tanh(3 * wave(ratio * low_hz, seconds)) for ratio in (1, 1.26, 1.5)), np.float32(0))
    since = cycle.since(seconds, 2)
    return reeds * np.minimum(1, 40 * since) * (since < 0.33 / cycle.cycles_per_second)


def rotor(cycle: Cycle, seconds: Waveform, rng: np.random.Generator) -> Waveform:
    """Makes low noise that thumps twelve times a cycle."""
    return band_noise(rng, seconds, 60, 900) * (0.1 + np.exp(-40 * cycle.since(seconds, 12)))


def ticks(cycle: Cycle, seconds: Waveform, rng: np.random.Generator) -> Waveform:
    """Makes short knocks, one at each end of the swing, the second lower."""
    since, bright_hz = cycle.since(seconds, 2), rng.uniform(2200, 2800)
    pitch_hz = np.where(cycle.phase(seconds) < 0.5, bright_hz, 0.8 * bright_hz)
    return np.exp(-90 * since) * (wave(pitch_hz, since) + 0.6 * wave(1.62 * pitch_hz, since))


def croak(cycle: Cycle, seconds: Waveform, rng: np.random.Generator) -> Waveform:
    """Makes two creaks a cycle, each a quarter of a second of pulses."""
    since, pitch_hz = cycle.since(seconds, 2), rng.uniform(900, 1300)
    pulse: Waveform = since % 0.028
    return np.exp(-60 * pulse) * wave(pitch_hz, pulse) * (since < 0.25)


def song(cycle: Cycle, seconds: Waveform, rng: np.random.Generator) -> Waveform:
    """Makes four whistles a cycle, each rising or falling."""
    since, middle_hz = cycle.since(seconds, 4), rng.uniform(3500, 4500)
    fraction: Waveform = since * 4 * cycle.cycles_per_second
    envelope: Waveform = np.square(np.sin(np.pi * fraction))
    return envelope * wave(middle_hz + rng.uniform(-1500, 1500) * (fraction - 0.5), since)


def wave(frequency_hz: float | Waveform, seconds: Waveform) -> Waveform:
    """Returns a sine, (n,); subtracting whole turns first keeps float32 precise at late times."""
    turns = frequency_hz * seconds
    sine: Waveform = np.sin(np.float32(2 * np.pi) * (turns - np.rint(turns)).astype(np.float32))
    return sine


def band_noise(rng: np.random.Generator, seconds: Waveform, low_hz: float, high_hz: float) -> Waveform:
    """Returns noise (n,) between two frequencies, falling by 3 dB an octave, at standard deviation 1."""
    frequency_hz = np.fft.rfftfreq(len(seconds), seconds[1] - seconds[0])
    spectrum = np.fft.rfft(rng.standard_normal(len(seconds), np.float32))
    inside = (frequency_hz >= low_hz) & (frequency_hz <= high_hz)
    spectrum *= (inside / np.sqrt(np.maximum(frequency_hz, 1))).astype(np.float32)
    noise: Waveform = np.fft.irfft(spectrum, len(seconds)).astype(np.float32)
    return noise / float(noise.std())
