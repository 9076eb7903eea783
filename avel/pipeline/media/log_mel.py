"""Sound of one segment -> VGGish's log-mel patch (96, 64)."""

import functools

import numpy as np
from numpy.typing import NDArray

from avel.errors import ConfigError
from avel.grid import MEL_BANDS, MEL_FRAMES

HZ = 16000
WINDOW_SAMPLES, HOP_SAMPLES, FFT_SAMPLES = 400, 160, 512
LOWEST_HZ, HIGHEST_HZ = 125.0, 7500.0
OFFSET = 0.01
"""Added before the logarithm."""

SHORTEST_SAMPLES = WINDOW_SAMPLES + (MEL_FRAMES - 1) * HOP_SAMPLES
"""A segment must hold all 96 windows: 15600 samples, 0.975 s."""


def log_mel(samples: NDArray[np.float32], hz: int = HZ) -> NDArray[np.float32]:
    """VGGish's patch of each segment: (T, samples_per_segment) in [-1, 1] -> (T, 96, 64) natural log.

    Periodic Hann of 25 ms every 10 ms, magnitude, 64 mel bands of 125-7500 Hz, log(x + 0.01); a segment of
    1 s gives 98 windows, the first 96 are kept (VGGish, github.com/tensorflow/models, audioset/vggish).
    numpy rather than torchaudio: no slower, closer to float64 (5e-7 against 3e-6), and the processes that
    decode need no torch, which would cost each of them 450 MB and two seconds.

    Raises:
        ConfigError: another rate than VGGish's, or segments too short for 96 windows.
    """
    if samples.ndim != 2:
        raise ConfigError(f"samples of shape {samples.shape} are no (T, {SHORTEST_SAMPLES} or more)")
    check_segments(samples.shape[1], hz)
    hann, matrix = _tables()
    windows = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float32), WINDOW_SAMPLES, axis=1)
    windows = windows[:, : MEL_FRAMES * HOP_SAMPLES : HOP_SAMPLES]  # (T, 96, 400)
    magnitude = np.abs(np.fft.rfft(windows * hann, FFT_SAMPLES, axis=2))  # (T, 96, 257)
    patches: NDArray[np.float32] = np.log(magnitude @ matrix + np.float32(OFFSET))
    return patches


def check_segments(samples: int, hz: int) -> None:
    """Whether segments of so many samples at so many hertz have a patch.

    Raises:
        ConfigError: another rate than VGGish's, or segments too short for 96 windows.
    """
    if hz != HZ:
        raise ConfigError(f"hz={hz}: VGGish's log-mel is defined at {HZ} Hz", hint=f"--hz {HZ}")
    if samples < SHORTEST_SAMPLES:
        raise ConfigError(
            f"segments of {samples} samples, {samples / HZ:g} s, are too short for VGGish's {MEL_FRAMES} "
            f"windows, which take {SHORTEST_SAMPLES}, {SHORTEST_SAMPLES / HZ:g} s",
            hint="--segment-seconds 1",
        )


def mel_matrix(bins: int = FFT_SAMPLES // 2 + 1) -> NDArray[np.float64]:
    """VGGish's filter bank (257, 64): triangles that are linear in mel, not in hertz, without DC."""
    bin_mel = _mel(np.linspace(0.0, HZ / 2, bins))[:, None]
    edges = np.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), MEL_BANDS + 2)
    rising = (bin_mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bin_mel) / (edges[2:] - edges[1:-1])
    matrix = np.maximum(0.0, np.minimum(rising, falling))
    matrix[0] = 0.0
    return matrix


def _mel(hertz: "NDArray[np.float64] | float") -> NDArray[np.float64]:
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


@functools.cache
def _tables() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Periodic Hann window (400,) and mel matrix (257, 64), computed in float64, kept in float32."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)
    return hann.astype(np.float32), mel_matrix().astype(np.float32)
