"""Windows of the waveform: around each segment's middle, at the network's own rate, the same for any part."""

import numpy as np
import pytest
import torch

from avel.pipeline.encoders.backbones import WaveformInput
from avel.pipeline.encoders.waveform import windows

NOISE = torch.from_numpy(np.random.default_rng(0).integers(-32768, 32768, (2, 6 * 800)).astype(np.int16))
"""Two clips of six segments of half a second at 1600 samples a second."""


@pytest.mark.parametrize("seconds", [None, 0.5])
def test_without_a_window_of_its_own_it_is_the_segment(seconds: float | None) -> None:
    found = windows(NOISE, 1600, 0.5, range(6), WaveformInput(1600, seconds))
    assert torch.equal(found, NOISE.reshape(2, 6, 800).float() / 32768)


def test_a_longer_window_lies_around_the_middle_and_is_silent_beyond_the_clip() -> None:
    found = windows(NOISE, 1600, 0.5, range(6), WaveformInput(1600, 1.5))
    padded = torch.nn.functional.pad(NOISE.float() / 32768, (800, 800))
    assert torch.equal(found, torch.stack([padded[:, at * 800 : at * 800 + 2400] for at in range(6)], 1))


def test_a_shorter_window_is_the_middle_of_the_segment() -> None:
    found = windows(NOISE, 1600, 0.5, range(6), WaveformInput(1600, 0.25))
    assert torch.equal(found, NOISE.reshape(2, 6, 800)[..., 200:600].float() / 32768)


def test_a_tone_keeps_its_place_at_another_rate() -> None:
    def tone(rate: int) -> torch.Tensor:
        return torch.sin(2 * torch.pi * 50 * torch.arange(3 * rate) / rate) / 2

    waveform = (tone(1600) * 32768).to(torch.int16)[None]
    found = windows(waveform, 1600, 0.5, range(6), WaveformInput(3200))
    assert found.shape == (1, 6, 1600)
    torch.testing.assert_close(found[0, 1:-1], tone(3200).reshape(6, 1600)[1:-1], atol=2e-3, rtol=0)


@pytest.mark.parametrize("seconds", [None, 1.3])
@pytest.mark.parametrize("rate", [2205, 800])
def test_any_part_has_the_windows_of_the_whole(rate: int, seconds: float | None) -> None:
    reads = WaveformInput(rate, seconds)
    whole = windows(NOISE, 1600, 0.5, range(6), reads)
    parts = [windows(NOISE, 1600, 0.5, range(first, first + 2), reads) for first in (0, 2, 4)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)
