"""Computes VGGish's log-mel patch (96, 64) of each segment of audio."""

import functools

import numpy as np
from numpy.typing import NDArray

from avel.errors import ConfigError
from avel.grid import MEL_BANDS, MEL_FRAMES

MEL_SAMPLE_RATE = 16000
"""Samples per second of all log-mel patches, whatever the rate of a store's waveform."""
WINDOW_SAMPLES, HOP_SAMPLES, FFT_SAMPLES = 400, 160, 512
LOWEST_HZ, HIGHEST_HZ = 125.0, 7500.0
OFFSET = 0.01
"""Added to the magnitude before the logarithm."""

SHORTEST_SAMPLES = WINDOW_SAMPLES + (MEL_FRAMES - 1) * HOP_SAMPLES
"""Least samples of a segment, which must hold all 96 windows: 15600, that is 0.975 s."""


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Computes VGGish's patch of each segment: (T, n) in [-1, 1] at 16 kHz -> (T, 96, 64), float32.

    A patch has Hann windows of 25 ms every 10 ms, their magnitudes in 64 mel bands of 125-7500 Hz, and the
    natural logarithm of magnitude + 0.01. A segment of 1 s has 98 windows, of which the first 96 are used.
    Source: VGGish, github.com/tensorflow/models, audioset/vggish.

    numpy is no slower than torchaudio here and closer to float64 (5e-7 against 3e-6). And torch would cost
    each decoding process 450 MB and two seconds.

    Raises:
        ConfigError: a segment is too short for 96 windows.
    """
    if samples.ndim != 2:
        raise ConfigError(
            f"samples have the shape {samples.shape}, not (T, n)",
            hint=f"samples.reshape(T, -1), with {SHORTEST_SAMPLES} samples or more in each segment",
        )
    check_segments(samples.shape[1])
    hann, matrix = _hann_and_mels()
    windows = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float32), WINDOW_SAMPLES, axis=1)
    windows = windows[:, : MEL_FRAMES * HOP_SAMPLES : HOP_SAMPLES]  # (T, 96, 400)
    magnitude = np.abs(np.fft.rfft(windows * hann, FFT_SAMPLES, axis=2))  # (T, 96, 257)
    patches: NDArray[np.float32] = np.log(magnitude @ matrix + np.float32(OFFSET))
    return patches


def check_segments(samples: int) -> None:
    """Checks that segments of `samples` samples at 16 kHz have a patch.

    Raises:
        ConfigError: they are too short for 96 windows.
    """
    if samples < SHORTEST_SAMPLES:
        raise ConfigError(
            f"segments of {samples} samples, {samples / MEL_SAMPLE_RATE:g} s, are too short for VGGish's "
            f"{MEL_FRAMES} windows, which take {SHORTEST_SAMPLES}, {SHORTEST_SAMPLES / MEL_SAMPLE_RATE:g} s",
            hint="--segment-seconds 1",
        )


def mel_matrix() -> NDArray[np.float64]:
    """Returns VGGish's filter bank (257, 64): triangles that are linear in mel, not in hertz, without DC."""
    bin_mel = _mel(np.linspace(0.0, MEL_SAMPLE_RATE / 2, FFT_SAMPLES // 2 + 1))[:, None]
    edges = np.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), MEL_BANDS + 2)
    rising = (bin_mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bin_mel) / (edges[2:] - edges[1:-1])
    matrix = np.maximum(0.0, np.minimum(rising, falling))
    matrix[0] = 0.0
    return matrix


def _mel(hertz: "NDArray[np.float64] | float") -> NDArray[np.float64]:
    """Converts hertz to mel."""
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


@functools.cache
def _hann_and_mels() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns a periodic Hann window (400,) and the mel matrix (257, 64): float64 rounded to float32."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)
    return hann.astype(np.float32), mel_matrix().astype(np.float32)
