"""Two-stream encoder of AV-BT (Section 3.2.1): a CNN and a Bi-LSTM for each modality."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

import torch
from torch import Tensor, nn

from avel.config import ComponentConfig
from avel.errors import ConfigError
from avel.pipeline.config import EncoderConfig
from avel.pipeline.encoders.backbones import AudioBackbone, VisualBackbone
from avel.pipeline.encoders.folding import folded
from avel.temporal import Temporal, TemporalSizes
from avel.text import first_line

PIXELS_AT_ONCE = 8 * 224 * 224
"""Pixels of one forward pass on a CPU without gradients: eight frames, or 65 patches. With more, the
kernel pages in the memory of each layer again, which takes half of the time at 80 frames."""
C = TypeVar("C", bound="CNNs")


@dataclass(frozen=True)
class BackboneSpec:
    """A CNN's name and settings, and which of its published forms it has."""

    backbone: ComponentConfig
    variant: str


@dataclass(frozen=True)
class EncoderSpec:
    """Architecture of an encoder, without its weights; kept in the header of its file."""

    visual: BackboneSpec
    audio: BackboneSpec
    encoder: EncoderConfig
    crop_size: int


class CNNs(nn.Module):
    """CNN of the frames, CNN of the audio, or both.

    Attributes:
        compiles: whether they are compiled.
        is_fixed: whether no weight changes any more.
    """

    def __init__(self, visual: VisualBackbone | None = None, audio: AudioBackbone | None = None) -> None:
        super().__init__()
        self.visual, self.audio = visual, audio
        self.compiles = False
        self.is_fixed = False
        self._functions: dict[tuple[str, str, bool], Callable[[Tensor], Any]] = {}

    def cnn_audio(self, audio: Tensor) -> Tensor:
        """Runs the CNN of the audio: patches (B, T, 96, 64), or waveform (B, T, n) -> (B, T, Da)."""
        return split(self.run("audio", audio.flatten(0, 1)), audio)

    def run(self, cnn: Literal["visual", "audio"], x: Tensor, method: str = "forward") -> Any:
        """Runs a CNN on audio, or on frames, uint8 or in [0, 1]; returns what its `method` returns.

        Batch norms that keep their statistics are folded into convolutions, at each call or, with `is_fixed`,
        once. With `compiles` the result is compiled. On a CPU without gradients a large batch is split.
        """
        module: nn.Module = getattr(self, cnn)
        key = (cnn, method, module.training)
        if key not in self._functions:
            plain = getattr(module, method) if module.training else folded(module, method, self.is_fixed)
            self._functions[key] = torch.compile(plain) if self.compiles else plain
        function = self._functions[key]
        if self.compiles:
            torch._dynamo.maybe_mark_dynamic(x, 0)  # batches differ by a clip; do not compile for each size
        if x.device.type != "cpu" or torch.is_grad_enabled() or module.training:
            return function(unit(x))
        pieces = [function(unit(piece)) for piece in torch.split(x, at_once(cnn, x))]
        if isinstance(pieces[0], tuple):
            return tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))
        return torch.cat(pieces)


class Encoder(CNNs):
    """CNNs and Bi-LSTMs: frames and log-mel patches to a vector of 2 x `hidden` per segment and modality."""

    visual: VisualBackbone
    audio: AudioBackbone

    def __init__(self, spec: EncoderSpec, visual: VisualBackbone, audio: AudioBackbone) -> None:
        super().__init__(visual, audio)
        self.spec = spec
        self.temporal = Temporal(
            TemporalSizes(
                audio.width,
                visual.width,
                min(audio.width, spec.encoder.audio_width),
                min(visual.width, spec.encoder.visual_width),
                spec.encoder.hidden,
                map_cells(visual, spec.crop_size) if spec.encoder.agva else 0,
            )
        )
        self.batch_statistics = {"visual": True, "audio": True}

    @property
    def width(self) -> int:
        """Returns D of f_a and f_v."""
        return 2 * self.spec.encoder.hidden

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; a CNN without `batch_statistics` keeps the statistics it was loaded with."""
        super().train(mode)
        self.visual.train(mode and self.batch_statistics["visual"])
        self.audio.train(mode and self.batch_statistics["audio"])
        return self

    def forward(self, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Computes f_a, f_v: (B, T, 3, H, W), (B, T, 96, 64) -> two (B, T, D)."""
        f_a, f_v = self.temporal(*self.cnn(frames, log_mel))
        return f_a, f_v

    def cnn(self, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the CNNs: (B, T, 3, H, W), (B, T, 96, 64) -> (B, T, Da), (B, T, Dv).

        With AGVA the visual part is the map's cells, (B, T, H'W', Dv), since the attention over them is
        learned. Frames are RGB, uint8 or in [0, 1].
        """
        return self.cnn_audio(log_mel), self.cnn_visual(frames)

    def cnn_visual(self, frames: Tensor) -> Tensor:
        """Runs the CNN of the frames: (B, T, 3, H, W) -> (B, T, Dv), or cells (B, T, H'W', Dv) with AGVA."""
        if self.temporal.attention is not None:
            return self.maps(frames).flatten(2, 3)
        return split(self.run("visual", frames.flatten(0, 1)), frames)

    def maps(self, frames: Tensor) -> Tensor:
        """Computes visual maps, channels last: (B, T, 3, 224, 224) -> (B, T, 7, 7, Dv)."""
        maps = self.run("visual", frames.flatten(0, 1), "maps")
        return split(maps.permute(0, 2, 3, 1), frames)


def at_once(cnn: str, x: Tensor) -> int:
    """Returns how many images or patches (N, ...) go through a CNN together on a CPU without gradients."""
    return max(1, PIXELS_AT_ONCE * (3 if cnn == "visual" else 1) // x[0].numel())


def channels_last(cnns: C) -> C:
    """Lays the weights of 2-D convolutions out channels last, which is faster; returns the same CNNs."""
    for weight in cnns.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return cnns


def unit(frames: Tensor) -> Tensor:
    """Converts uint8 frames to floats in [0, 1]; leaves floats as they are: any shape -> the same."""
    return frames.float().div_(255) if frames.dtype == torch.uint8 else frames


def split(flat: Tensor, like: Tensor) -> Tensor:
    """Splits the first axis again: (B * T, ...), (B, T, ...) -> (B, T, ...)."""
    return flat.reshape(*like.shape[:2], *flat.shape[1:])


def map_cells(visual: VisualBackbone, crop_size: int) -> int:
    """Returns H' x W' of the maps of square frames of `crop_size`, found by trying one.

    Raises:
        ConfigError: what `check_crop` raises.
    """
    check_crop(visual, crop_size)
    training = visual.training
    visual.eval()
    with torch.no_grad():
        maps = visual.maps(torch.zeros(1, 3, crop_size, crop_size))
    visual.train(training)
    return maps.shape[-2] * maps.shape[-1]


def check_crop(visual: VisualBackbone, crop_size: int) -> None:
    """Tries whether a CNN on the CPU takes frames of `crop_size`, unless it was made for that size.

    Raises:
        ConfigError: it does not.
    """
    reads, training = visual.reads(visual.config), visual.training
    if crop_size == reads.pixels:
        return
    frames = torch.zeros(1, reads.frames, 3, crop_size, crop_size)
    try:
        with torch.no_grad():
            visual.eval()(frames if reads.frames > 1 else frames[0])
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"crop_size={crop_size}: {visual.config.name} cannot read such frames: {first_line(error)}",
            hint=f"--crop-size {reads.pixels}",
        ) from None
    visual.train(training)
