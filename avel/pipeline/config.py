"""Configs of the pipeline's stages; torch-free, because the command line builds its options from them."""

from dataclasses import dataclass
from typing import Literal

from avel.config import option
from avel.grid import Grid


@dataclass(frozen=True)
class ExtractConfig:
    """How clips are staged: the grid, the frames' encoding, and what happens to clips that resist."""

    segments: int = option(10, "Segments T of a clip; longer clips are cut, shorter ones padded.", low=1)
    segment_seconds: float = option(1.0, "Length of one segment in seconds.", low=0.001)
    fps: int = option(16, "Frames staged per second.", low=1)
    hz: int = option(16000, "Audio samples per second.", low=1)
    size: int = option(256, "Height and width of a staged frame in pixels.", low=8, high=4096)
    resize: Literal["squash", "crop"] = option(
        "squash", "Squash frames to the square (the paper's way), or scale the shorter side and crop."
    )
    frame_codec: Literal["jpeg", "raw"] = option(
        "jpeg", "Keep frames as JPEG, or bit-exact and about five times larger (raw, under zstd)."
    )
    jpeg_quality: int = option(95, "JPEG quality of the staged frames.", low=1, high=100)
    missing_audio: Literal["silence", "fail"] = option(
        "silence", "Stage a clip without sound as silent, or fail it.", numeric=False
    )
    time_limit: float = option(
        60.0, "Seconds ten segments of a clip may take before it fails as hung.", numeric=False, low=0.1
    )
    memory_limit: int = option(
        2048, "MiB the process that decodes a clip may hold before the clip fails.", numeric=False, low=64
    )

    def grid(self) -> Grid:
        """The grid that frames and audio share."""
        return Grid(self.segments, self.segment_seconds, self.fps, self.hz, self.size)
