"""A script turned into what the camera's microphone would have recorded: samples."""

import numpy as np

from avel.recipes.composing.film import Actor, Camera
from avel.recipes.composing.script import Names
from avel.recipes.composing.sounds import Samples, ambience
from avel.recipes.composing.subjects import SUBJECTS

EDGE_SECONDS = 0.015
PEAK = 0.89


def film_sound(
    rng: np.random.Generator, camera: Camera, actors: dict[str, Actor], heard: tuple[Names, ...]
) -> Samples:
    """The microphone's samples (channels, n) in [-1, 1]: every class in its seconds, over quiet noise."""
    samples = len(heard) * camera.hz
    room = 10 ** (camera.noise_db / 20)
    mix = np.stack([room * ambience(samples, camera.hz, rng) for _ in range(camera.channels)])
    for name, actor in actors.items():
        gate = tuple(name in names for names in heard)
        if any(gate):
            voice = SUBJECTS[name].sound(actor.cycle, samples, camera.hz, rng)
            voice *= 10 ** (camera.loudness_db / 20) / max(float(voice.std()), 1e-9)
            mix += _panned(_softly_limited(voice) * _gate(gate, camera.hz), actor, camera)
    return np.clip(mix, -1, 1).astype(np.float32)


def _gate(open_in: tuple[bool, ...], hz: int) -> Samples:
    """1 in the open seconds, 0 elsewhere, (n,); it opens and shuts inside them, without a click."""
    gate = np.repeat(np.asarray(open_in, np.float32), hz)
    edge = round(EDGE_SECONDS * hz)
    slope = np.linspace(0, 1, edge, dtype=np.float32)
    for second in np.flatnonzero(open_in):
        if second > 0 and not open_in[second - 1]:
            gate[second * hz : second * hz + edge] = slope
        if second + 1 < len(open_in) and not open_in[second + 1]:
            gate[(second + 1) * hz - edge : (second + 1) * hz] = slope[::-1]
    return gate


def _softly_limited(voice: Samples) -> Samples:
    """Peaks bent below full scale: ticks are all peak, and a hard clip would change what they sound like."""
    limited: Samples = PEAK * np.tanh(voice / PEAK)
    return limited


def _panned(voice: Samples, actor: Actor, camera: Camera) -> Samples:
    """The voice in each channel, (channels, n): louder on the side of the actor."""
    if camera.channels == 1:
        return voice[None]
    middle = (actor.left_px + actor.light.shape[2] / 2) / camera.width_px
    angle = (0.25 + 0.5 * np.clip(middle, 0, 1)) * np.pi / 2
    return np.stack([np.cos(angle) * voice, np.sin(angle) * voice]).astype(np.float32)
