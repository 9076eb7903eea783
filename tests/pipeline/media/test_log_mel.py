"""The log-mel patch equals VGGish's recipe, written out here in float64 with loops."""

import functools
import math
import subprocess
import sys

import numpy as np
import pytest

from avel.errors import ConfigError
from avel.pipeline.media.log_mel import log_mel


def reference(samples: np.ndarray) -> np.ndarray:
    """VGGish's patch (96, 64) of one segment, as mel_features.py of its authors computes it."""
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)]  # periodic Hann
    triangles = mel_triangles()
    patch = np.zeros((96, 64))
    for frame in range(96):
        piece = samples[160 * frame : 160 * frame + 400].astype(np.float64) * window
        magnitude = np.abs(np.fft.rfft(piece, 512))
        for band in range(64):
            energy = sum(weight * magnitude[line] for line, weight in triangles[band])
            patch[frame, band] = math.log(energy + 0.01)
    return patch


@functools.cache
def mel_triangles() -> "list[list[tuple[int, float]]]":
    """Of each band the lines of the spectrum under its triangle, with their weights."""
    low, high = mel(125.0), mel(7500.0)
    edges = [low + (high - low) * k / 65 for k in range(66)]
    bands = []
    for band in range(64):
        triangle = []
        for line in range(1, 257):  # VGGish leaves out the direct current
            here = mel(line * 8000 / 256)
            rising = (here - edges[band]) / (edges[band + 1] - edges[band])
            falling = (edges[band + 2] - here) / (edges[band + 2] - edges[band + 1])
            if min(rising, falling) > 0:
                triangle.append((line, min(rising, falling)))
        bands.append(triangle)
    return bands


def mel(hertz: float) -> float:
    """HTK's mel scale."""
    return 1127.0 * math.log(1.0 + hertz / 700.0)


def sounds() -> "dict[str, np.ndarray]":
    """One second of each kind of sound, float32 in [-1, 1]."""
    seconds = np.arange(16000) / 16000
    rng = np.random.default_rng(0)
    tone = 0.5 * np.sin(2 * np.pi * 440 * seconds)
    click = np.zeros(16000)
    click[8000] = 1.0
    sweep = 0.9 * np.sin(2 * np.pi * (100 + 3700 * seconds) * seconds)
    kinds = {"noise": rng.uniform(-1, 1, 16000), "tone": tone, "click": click, "sweep": sweep}
    kinds |= {"hiss": 1e-3 * rng.standard_normal(16000), "silence": np.zeros(16000), "full": np.ones(16000)}
    return {name: sound.astype(np.float32) for name, sound in kinds.items()}


@pytest.mark.parametrize("name", sounds())
def test_patches_equal_the_recipe(name: str) -> None:
    samples = sounds()[name]
    patch = log_mel(samples[None])
    assert patch.shape == (1, 96, 64)
    assert patch.dtype == np.float32
    assert np.abs(patch[0] - reference(samples)).max() < 1e-4


def test_each_segment_is_alone() -> None:
    kinds = sounds()
    together = log_mel(np.stack(list(kinds.values())))
    for patch, samples in zip(together, kinds.values(), strict=True):
        np.testing.assert_allclose(patch, log_mel(samples[None])[0], atol=2e-5)


def test_a_longer_segment_keeps_its_first_96_windows() -> None:
    samples = sounds()["noise"]
    longer = np.concatenate([samples, samples])[None]
    np.testing.assert_allclose(log_mel(longer), log_mel(samples[None]), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 15599), (16000,)])
def test_what_vggish_does_not_define_is_refused(shape: "tuple[int, ...]") -> None:
    with pytest.raises(ConfigError):
        log_mel(np.zeros(shape, np.float32))


def test_decoding_needs_no_torch() -> None:
    code = (
        "import sys, avel.pipeline.media.reading, avel.pipeline.media.log_mel; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
