"""Defines the time grid of audio and video, from which all lengths are derived."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from avel.errors import ConfigError
from avel.text import plural

CHUNK_SEGMENTS = 10
"""Segments stored as one chunk and processed at once, so that long clips take no more memory."""
MEL_FRAMES = 96
"""STFT windows in the log-mel patch of a segment, as in VGGish."""
MEL_BANDS = 64
"""Mel bands of the log-mel patch, as in VGGish."""
FULL_SCALE = 32768
"""16-bit samples of a waveform divided by this are in [-1, 1)."""
MOST = {"segments": 100_000, "segment_seconds": 3600, "fps": 1000, "sample_rate": 1_000_000, "size": 4096}
"""Largest values of a grid: 28 hours of segments of a second."""
MOST_CHUNK_GIB = 16
"""Most that the raw frames of one chunk may take."""


@dataclass(frozen=True)
class Grid:
    """T segments of `segment_seconds`, video at `fps`, audio at `sample_rate`, frames of `size` x `size`.

    Raises:
        ConfigError: a value is not positive or far too large, or a segment is not a whole number of frames
            and samples.

    >>> Grid().frames, Grid().samples
    (160, 160000)
    """

    segments: int = 10
    segment_seconds: float = 1.0
    fps: int = 16
    sample_rate: int = 16000
    size: int = 256

    def __post_init__(self) -> None:
        for name in ("segments", "segment_seconds", "fps", "sample_rate", "size"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be positive")
            if getattr(self, name) > MOST[name]:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be at most {MOST[name]}")
        for per_second, name in ((self.fps, "fps"), (self.sample_rate, "sample_rate")):
            if (exact(self.segment_seconds) * per_second).denominator != 1:
                raise ConfigError(
                    f"segment_seconds={self.segment_seconds} is not a multiple of 1/{per_second} s ({name})",
                    hint=f"change segment_seconds or {name} so that their product is whole",
                )
        chunk = min(self.segments, CHUNK_SEGMENTS)
        gib = chunk * self.frames_per_segment * 3 * self.size**2 / 2**30
        if gib > MOST_CHUNK_GIB:
            raise ConfigError(
                f"{plural(chunk, 'segment')} of {self.frames_per_segment} frames "
                f"of {self.size} x {self.size} pixels take {gib:.0f} GiB, "
                f"more than the {MOST_CHUNK_GIB} GiB that avel holds in memory",
                hint="make segment_seconds, fps or size smaller",
            )

    @classmethod
    def without_frames(cls, segments: int, segment_seconds: float, **others: int) -> "Grid":
        """Returns a grid for data without frames, with the lowest frame rate that its segments allow.

        Raises:
            ConfigError: as `Grid`; no frame rate gives a segment a whole number of frames.

        >>> Grid.without_frames(50, 0.2).fps
        5
        """
        lowest = exact(segment_seconds).denominator if math.isfinite(segment_seconds) else 1
        if lowest > MOST["fps"] and segment_seconds > 0:
            raise ConfigError(
                f"segment_seconds={segment_seconds} is no whole number of milliseconds",
                hint=f"--segment-seconds {max(round(segment_seconds, 3), 0.001):g}, for example",
            )
        return cls(segments, segment_seconds, lowest, **others)

    def at(self, sample_rate: int) -> "Grid":
        """Returns the same grid with audio at another sample rate.

        >>> Grid().at(48000).samples_per_segment
        48000
        """
        return replace(self, sample_rate=sample_rate)

    def frames_at(self, places: Sequence[int]) -> list[int]:
        """Returns the frames at some places of every segment, by their numbers in the clip.

        >>> Grid(segments=3).frames_at([8])
        [8, 24, 40]
        """
        return [k * self.frames_per_segment + place for k in range(self.segments) for place in places]

    @property
    def seconds(self) -> float:
        """Returns the seconds of the whole grid."""
        return self.segments * self.segment_seconds

    @property
    def frames_per_segment(self) -> int:
        """Returns the number of staged frames of one segment, N."""
        return int(exact(self.segment_seconds) * self.fps)

    @property
    def frames(self) -> int:
        """Returns the number of staged frames of one clip, T * N."""
        return self.segments * self.frames_per_segment

    @property
    def samples_per_segment(self) -> int:
        """Returns the number of audio samples of one segment."""
        return int(exact(self.segment_seconds) * self.sample_rate)

    @property
    def samples(self) -> int:
        """Returns the number of audio samples of one clip."""
        return self.segments * self.samples_per_segment


def exact(seconds: float) -> Fraction:
    """Returns seconds as the decimal that was written, which most floats only approximate.

    >>> exact(0.2), Fraction(0.2) == Fraction(1, 5)
    (Fraction(1, 5), False)
    """
    return Fraction(str(seconds))


def evenly_spaced(count: int, most: int, *, ends: bool = False) -> list[int]:
    """Returns at most `most` evenly spaced indices below `count`; if `most` is 1, the middle one.

    With `ends`, for a `most` of 2 or more, the first and the last index are among them.

    >>> evenly_spaced(16, 4), evenly_spaced(16, 4, ends=True)
    ([2, 6, 10, 14], [0, 5, 10, 15])
    """
    chosen = min(most, count)
    if ends and chosen > 1:
        return [place * (count - 1) // (chosen - 1) for place in range(chosen)]
    return [(2 * place + 1) * count // (2 * chosen) for place in range(chosen)]
