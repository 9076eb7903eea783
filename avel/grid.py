"""The one grid that audio and video share: every length in avel is derived from it."""

from dataclasses import dataclass
from fractions import Fraction

from avel.errors import ConfigError

CHUNK_SEGMENTS = 10
"""Segments stored as one chunk and handled at once: what memory a clip of any length takes."""
MEL_FRAMES = 96
"""STFT frames kept of each segment (VGGish's patch)."""
MEL_BANDS = 64
"""Mel bands of the log-mel patch (VGGish's bank)."""


@dataclass(frozen=True)
class Grid:
    """T segments of `segment_seconds`, video at `fps`, audio at `hz`, square frames of `size` pixels.

    >>> Grid().frames, Grid().samples
    (160, 160000)
    """

    segments: int = 10
    segment_seconds: float = 1.0
    fps: int = 16
    hz: int = 16000
    size: int = 256

    def __post_init__(self) -> None:
        for name in ("segments", "segment_seconds", "fps", "hz", "size"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be positive")
        for per_second, name in ((self.fps, "fps"), (self.hz, "hz")):
            if (Fraction(self.segment_seconds) * per_second).denominator != 1:
                raise ConfigError(
                    f"segment_seconds={self.segment_seconds} is no whole number of 1/{per_second} s ({name})"
                )

    @property
    def seconds(self) -> float:
        """Length of the whole grid."""
        return self.segments * self.segment_seconds

    @property
    def frames_per_segment(self) -> int:
        """N, the staged frames of one segment."""
        return int(Fraction(self.segment_seconds) * self.fps)

    @property
    def frames(self) -> int:
        """T * N, the staged frames of one clip."""
        return self.segments * self.frames_per_segment

    @property
    def samples_per_segment(self) -> int:
        """Audio samples of one segment."""
        return int(Fraction(self.segment_seconds) * self.hz)

    @property
    def samples(self) -> int:
        """Audio samples of one clip."""
        return self.segments * self.samples_per_segment
