"""CNN14 of PANNs (Kong et al. 2020): 2048 features of a waveform at 32 kHz."""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks, spectrogram

from avel.config import ComponentConfig
from avel.pipeline.config import AUDIO_BACKBONES
from avel.pipeline.encoders.backbones import AudioBackbone, WaveformInput
from avel.pipeline.encoders.waveform import WindowConfig
from avel.pipeline.encoders.weights import PublishedWeights

SAMPLE_RATE, FFT_SAMPLES, HOP_SAMPLES, LEAST_POWER = 32000, 1024, 320, 1e-10
WIDTHS = (64, 128, 256, 512, 1024, 2048)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU, then average pooling; modules have PANNs' names."""

    def __init__(self, channels: int, wide: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(channels, wide, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(wide), nn.BatchNorm2d(wide)

    def forward(self, x: Tensor) -> Tensor:
        """Computes maps: (B, C, H, W) -> (B, wide, H / pool, W / pool)."""
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.avg_pool2d(x, self.pool)


class FrontEnd(nn.Module):
    """PANNs' log-mel spectrogram in decibels. Its window and filters are fixed, and not in the state dict."""

    hann: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        bands = melscale_fbanks(FFT_SAMPLES // 2 + 1, 50.0, 14000.0, 64, SAMPLE_RATE, "slaney", "slaney")
        self.register_buffer("hann", torch.hann_window(FFT_SAMPLES), persistent=False)
        self.register_buffer("filters", bands, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Computes decibels of 64 mel bands every 10 ms, in float32: (B, n) -> (B, 1, n / 320 + 1, 64)."""
        with torch.autocast(waveform.device.type, enabled=False):
            power = spectrogram(
                waveform.float(), 0, self.hann, FFT_SAMPLES, HOP_SAMPLES, FFT_SAMPLES, 2.0, False
            )
            mel = power.transpose(1, 2) @ self.filters
            return 10 * torch.log10(mel.clamp(min=LEAST_POWER))[:, None]


@AUDIO_BACKBONES.register("cnn14")
class CNN14(AudioBackbone):
    """D = 2048.

    State dict: that of PANNs' `Cnn14_mAP=0.431.pth`: `bn0`, `conv_block{1..6}.{conv1,bn1,conv2,bn2}`, `fc1`.
    """

    Config = WindowConfig

    width = 2048
    unused = ("spectrogram_extractor.", "logmel_extractor.", "fc_audioset.")
    published: ClassVar[Mapping[str, PublishedWeights]] = {
        "audioset": PublishedWeights(
            "https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth",
            "0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31",
        )
    }

    def __init__(self, config: WindowConfig) -> None:
        super().__init__(config)
        self.front_end = FrontEnd()
        self.bn0 = nn.BatchNorm2d(64)
        for number, (channels, wide) in enumerate(zip((1, *WIDTHS), WIDTHS, strict=False), 1):
            self.add_module(f"conv_block{number}", ConvBlock(channels, wide, 2 if wide < WIDTHS[-1] else 1))
        self.fc1 = nn.Linear(self.width, self.width)

    @classmethod
    def reads(cls, config: ComponentConfig) -> WaveformInput:
        """Returns windows at 32 kHz."""
        assert isinstance(config, WindowConfig)
        return WaveformInput(SAMPLE_RATE, config.window_seconds)

    def forward(self, audio: Tensor) -> Tensor:
        """Computes vectors of waveforms in [-1, 1] at 32 kHz, of 0.32 s or more: (B, n) -> (B, 2048)."""
        x = self.bn0(self.front_end(audio).transpose(1, 3)).transpose(1, 3)
        for number in range(1, len(WIDTHS) + 1):
            x = F.dropout(self.get_submodule(f"conv_block{number}")(x), 0.2, self.training)
        x = x.mean(3)
        x = F.dropout(x.amax(2) + x.mean(2), 0.5, self.training)
        return F.relu(self.fc1(x))
