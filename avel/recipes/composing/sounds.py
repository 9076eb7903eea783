"""The six sounds of the demo's clips, synthesised at any rate, in step with the drawn motion.

A sound is float32 samples (n,) of any loudness: the mixer sets the level.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.recipes.composing.noise import coloured

Samples = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Cycle:
    """A motion that repeats `hz` times a second and stands at phase `start` at second 0."""

    hz: float
    start: float

    def phase(self, seconds: float) -> float:
        """Where the motion is at `seconds`, in [0, 1)."""
        return (self.start + self.hz * seconds) % 1.0

    def strikes(self, phase: float, seconds: float) -> list[float]:
        """Every time at which the motion passes `phase`, from three cycles before 0 until `seconds`."""
        first = (phase - self.start) % 1.0 - 3
        return [(first + k) / self.hz for k in range(int(np.ceil(seconds * self.hz)) + 3)]


def bell(cycle: Cycle, samples: int, hz: int, rng: np.random.Generator) -> Samples:
    """Partials of a cast bell (hum, prime, minor third, fifth, ...) that decay, the high ones first."""
    time = _time(2.5, hz)
    prime_hz = rng.uniform(380, 520)
    ring = np.zeros_like(time)
    for ratio, loud, decay in ((0.5, 0.5, 1.2), (1, 1, 2), (1.19, 0.8, 2.4), (1.5, 0.4, 3), (2, 1, 3.2),
                               (2.51, 0.5, 5), (3.01, 0.5, 6), (4.17, 0.35, 9)):  # fmt: skip
        ring += loud * np.exp(-decay * time) * np.sin(_turns(ratio * prime_hz * time))
    return _struck(ring, cycle.strikes(0.0, samples / hz) + cycle.strikes(0.5, samples / hz), samples, hz)


def siren(cycle: Cycle, samples: int, hz: int, rng: np.random.Generator) -> Samples:
    """A horn that wails up and down once a cycle."""
    time = _time(samples / hz, hz)
    middle_hz = rng.uniform(800, 1000)
    wail_hz = middle_hz * (1 + 0.38 * np.sin(_turns(cycle.start + cycle.hz * time)))
    tone = np.sin(_turns(np.cumsum(wail_hz, dtype=np.float64) / hz))
    wail: Samples = np.tanh(2.5 * tone + 0.4)
    return wail


def rotor(cycle: Cycle, samples: int, hz: int, rng: np.random.Generator) -> Samples:
    """Six low thumps a cycle over the rumble and whine of a turbine."""
    time = _time(samples / hz, hz)
    chop = ((cycle.start + cycle.hz * time) * 6) % 1.0
    air = coloured(rng, (samples,), 0.5, low=60 / hz, high=min(1400 / hz, 0.5))
    whine = np.sin(_turns(rng.uniform(1700, 2300) * time))
    hum = np.sin(_turns(rng.uniform(75, 110) * time))
    chopped: Samples = air * (0.12 + np.exp(-5 * chop))
    return chopped + 0.25 * hum + 0.05 * whine


def thud(cycle: Cycle, samples: int, hz: int, rng: np.random.Generator) -> Samples:
    """A ball on a wooden floor: a falling low tone, a slap and the ring of the rubber."""
    time = _time(0.4, hz)
    low_hz = rng.uniform(85, 125)
    boom = np.exp(-14 * time) * np.sin(_turns(low_hz * time + 1.2 * (1 - np.exp(-30 * time))))
    ring = 0.35 * np.exp(-22 * time) * np.sin(_turns(rng.uniform(480, 640) * time))
    slap = coloured(rng, time.shape, 0.3, low=150 / hz, high=1800 / hz) * np.exp(-70 * time)
    return _struck(boom + ring + 0.35 * slap, cycle.strikes(0.0, samples / hz), samples, hz)


def ticks(cycle: Cycle, samples: int, hz: int, rng: np.random.Generator) -> Samples:
    """Tick at one end of the swing, a lower tock at the other: short bright knocks on a wooden case."""
    time = _time(0.12, hz)
    bright_hz = rng.uniform(2500, 3100)
    mix = np.zeros(samples, np.float32)
    for phase, pitch in ((0.0, 1.0), (0.5, 0.8)):
        knock = np.zeros_like(time)
        for ratio, loud, decay in ((1, 1, 110), (1.62, 0.7, 150), (2.3, 0.4, 200), (0.31, 0.5, 60)):
            knock += loud * np.exp(-decay * time) * np.sin(_turns(ratio * pitch * bright_hz * time))
        mix += _struck(knock, cycle.strikes(phase, samples / hz), samples, hz)
    return mix


def song(cycle: Cycle, samples: int, hz: int, rng: np.random.Generator) -> Samples:
    """Four whistled calls in the first 0.64 of a cycle, each a fast sweep with a trill."""
    call_seconds = 0.14 / cycle.hz
    time = _time(call_seconds, hz)
    share = time / np.float32(call_seconds)
    mix = np.zeros(samples, np.float32)
    for call in range(4):
        from_hz, to_hz = rng.uniform(2600, 3600), rng.uniform(3800, 5600)
        if rng.random() < 0.5:
            from_hz, to_hz = to_hz, from_hz
        pitch_hz = from_hz + (to_hz - from_hz) * share + 250 * np.sin(_turns(rng.uniform(20, 40) * time))
        whistle = np.square(np.sin(np.pi * share)) * np.sin(_turns(np.cumsum(pitch_hz) / hz))
        mix += _struck(whistle, cycle.strikes(0.01 + 0.16 * call, samples / hz), samples, hz)
    return mix


Sound = Callable[[Cycle, int, int, np.random.Generator], Samples]


def ambience(samples: int, hz: int, rng: np.random.Generator) -> Samples:
    """Wind and far traffic at standard deviation 1, swelling slowly."""
    swell = 1 + 0.25 * np.sin(_turns(rng.uniform(0.05, 0.2) * _time(samples / hz, hz) + rng.uniform()))
    return coloured(rng, (samples,), rng.uniform(0.3, 0.9), low=50 / hz) * swell


def _time(seconds: float, hz: int) -> Samples:
    """Seconds of each sample, (n,)."""
    return np.arange(round(seconds * hz), dtype=np.float32) / np.float32(hz)


def _turns(cycles: Samples) -> Samples:
    """Radians of a number of turns; whole turns go first, so that float32 keeps the pitch."""
    return ((cycles % 1.0) * (2 * np.pi)).astype(np.float32)


def _struck(template: Samples, at_seconds: list[float], samples: int, hz: int) -> Samples:
    """`template` begun at each time, added up over `samples`."""
    track = np.zeros(samples, np.float32)
    for seconds in at_seconds:
        begin = round(seconds * hz)
        cut = template[max(-begin, 0) : max(samples - begin, 0)]
        track[max(begin, 0) : max(begin, 0) + len(cut)] += cut
    return track
