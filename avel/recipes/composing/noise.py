"""Coloured noise of any number of dimensions: grass, clouds and ridges, wind and rumble."""

import numpy as np
from numpy.typing import NDArray


def coloured(
    rng: np.random.Generator, shape: tuple[int, ...], slope: float, low: float = 0.0, high: float = 0.5
) -> NDArray[np.float32]:
    """Noise of `shape`, mean 0 and standard deviation 1, whose amplitude falls as frequency^-slope.

    Only frequencies from `low` to `high` cycles per sample remain. It wraps around at its edges.
    """
    spectrum = np.fft.rfftn(rng.standard_normal(shape, dtype=np.float32))
    axes = [np.fft.fftfreq(length) for length in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    squares = np.zeros(spectrum.shape, np.float32)
    for axis, frequencies in enumerate(axes):
        squares += np.square(frequencies).reshape([-1 if at == axis else 1 for at in range(len(shape))])
    frequency = np.sqrt(squares)
    frequency.flat[0] = np.inf  # no constant part
    kept = (frequency >= low) & ((frequency <= high) | (frequency > 1e9))
    spectrum *= np.where(kept, frequency**-slope if slope else np.isfinite(frequency), 0)
    wave = np.fft.irfftn(spectrum, s=shape, axes=tuple(range(len(shape)))).astype(np.float32)
    return wave / max(float(wave.std()), 1e-9)
