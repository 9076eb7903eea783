"""Cuts waveforms into the windows that an audio backbone reads, on the device where it runs."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchaudio.functional import resample

from avel.config import ComponentConfig, option
from avel.grid import FULL_SCALE, exact
from avel.pipeline.encoders.backbones import WaveformInput


@dataclass(frozen=True)
class WindowConfig(ComponentConfig):
    """Settings of all audio backbones that read the waveform."""

    window_seconds: float | None = option(
        None, "Seconds of the waveform to read around a segment's middle.", low=0.1, shown="the segment"
    )


def windows(
    waveform: Tensor, sample_rate: int, segment_seconds: float, segments: range, reads: WaveformInput
) -> Tensor:
    """Cuts a window of each of some segments out of waveforms: int16 (B, n) -> float32 (B, T, m) in [-1, 1].

    Windows have the rate of `reads`. Each lies around its segment's middle, silent beyond the waveform.
    Only what the segments need is resampled, with a segment more on both sides, so that any part of a film
    has the windows that the whole has.

        segments    |   3   |   4   |   5   |
        window of 4     |<------------->|
    """
    length = round((reads.seconds or segment_seconds) * reads.sample_rate)
    margin = 1 + math.ceil((reads.seconds or 0) / segment_seconds / 2)
    per_segment = round(segment_seconds * sample_rate)
    first = max(0, segments.start - margin)
    first -= first % (exact(segment_seconds) * reads.sample_rate).denominator  # begin at a whole sample
    piece = waveform[:, first * per_segment : (segments.stop + margin) * per_segment].float() / FULL_SCALE
    with torch.autocast(waveform.device.type, enabled=False):
        piece = resample(piece, sample_rate, reads.sample_rate)
    middles = [(segment + 0.5 - first) * segment_seconds * reads.sample_rate for segment in segments]
    padded = torch.nn.functional.pad(piece, (length, length))
    # round each start, middle - length / 2, half up; with the padding it lies at `length` more
    starts = torch.tensor([math.floor(middle + (length + 1) / 2) for middle in middles], device=piece.device)
    return padded[:, starts[:, None] + torch.arange(length, device=piece.device)]
