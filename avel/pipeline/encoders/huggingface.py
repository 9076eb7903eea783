"""Vision towers and audio models of transformers, `hf:NAME`, with the model's own preprocessing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from avel.config import ComponentConfig
from avel.errors import WeightsError, import_extra
from avel.pipeline.config import AUDIO_BACKBONES, VISUAL_BACKBONES
from avel.pipeline.encoders.backbones import (
    AudioBackbone,
    FrameInput,
    Normalise,
    VisualBackbone,
    WaveformInput,
)
from avel.pipeline.encoders.hub import HubBackbone, ModelConfig, as_maps
from avel.pipeline.encoders.waveform import WindowConfig
from avel.text import first_line


class HuggingFace(HubBackbone):
    """One tower of a model of transformers, under `net.`. Nothing in its repository is run."""

    published_part = "net"
    tower: str
    """Name of the tower in models that have several, as CLIP and CLAP do."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        settings = self.load_part("AutoConfig", config)
        self.net: Any = self._tower(_transformers().AutoModel.from_config(settings))
        self.width = _width(self.net.config)

    @classmethod
    def repository(cls, model: str) -> str:
        """Returns the name itself."""
        return model

    @classmethod
    def load_part(cls, kind: str, config: ComponentConfig) -> Any:
        """Loads a model's settings or preprocessing by the name of transformers' class, "AutoConfig" say."""
        return _from_folder(kind, cls.folder(config, weights=False))

    def load_folder(self, folder: Path) -> None:
        """Takes the weights as transformers loads them."""
        self.net.load_state_dict(self._tower(_from_folder("AutoModel", folder)).state_dict())

    def _tower(self, model: nn.Module) -> nn.Module:
        return getattr(model, self.tower, model)


@VISUAL_BACKBONES.register("hf")
class HuggingFaceVisual(HuggingFace, VisualBackbone):
    """A vision tower: CLIP's, SigLIP's, DINO's, ViT. The model's pooled vector, or the mean of its tokens."""

    Config = ModelConfig

    tower = "vision_model"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        processor = self.load_part("AutoImageProcessor", config)
        self.normalise = Normalise(tuple(processor.image_mean), tuple(processor.image_std))

    @classmethod
    def reads(cls, config: ComponentConfig) -> FrameInput:
        """Returns one frame of the resolution that the model's image processor makes."""
        processor = cls.load_part("AutoImageProcessor", config)
        size = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
        return FrameInput(pixels=size.get("height") or size["shortest_edge"])

    def maps(self, frames: Tensor) -> Tensor:
        """Computes the last layer's tokens as maps: (B, 3, H, W) -> (B, D, H', W')."""
        return self.vectors_and_maps(frames)[1]

    def forward(self, frames: Tensor) -> Tensor:
        """Computes pooled vectors: (B, 3, H, W) -> (B, D)."""
        return _vectors(self.net(pixel_values=self.normalise(frames)))

    def vectors_and_maps(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Computes both in one pass."""
        output = self.net(pixel_values=self.normalise(frames))
        return _vectors(output), as_maps(output.last_hidden_state, self.width, "hf")


@AUDIO_BACKBONES.register("hf")
class HuggingFaceAudio(HuggingFace, AudioBackbone):
    """An audio model: CLAP's tower, AST, or one like wav2vec. Its pooled vector, or the mean over time.

    The model's own feature extractor runs on the CPU, within `forward`.
    """

    @dataclass(frozen=True)
    class Config(ModelConfig, WindowConfig):
        """Name of the model, and window of the waveform."""

    tower = "audio_model"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.extractor = self.load_part("AutoFeatureExtractor", config)

    @classmethod
    def reads(cls, config: ComponentConfig) -> WaveformInput:
        """Returns windows at the sample rate of the model's feature extractor."""
        assert isinstance(config, HuggingFaceAudio.Config)
        extractor = cls.load_part("AutoFeatureExtractor", config)
        return WaveformInput(extractor.sampling_rate, config.window_seconds)

    def forward(self, audio: Tensor) -> Tensor:
        """Computes vectors of waveforms in [-1, 1]: (B, n) -> (B, D)."""
        rate = self.extractor.sampling_rate
        inputs = self.extractor([*audio.float().cpu().numpy()], sampling_rate=rate, return_tensors="pt")
        return _vectors(self.net(**inputs.to(audio.device)))


def _vectors(output: Any) -> Tensor:
    """Returns a model's pooled vectors, or where it has none the mean of its last layer's tokens: (B, D)."""
    pooled = getattr(output, "pooler_output", None)
    vectors: Tensor = output.last_hidden_state.mean(1) if pooled is None else pooled.flatten(1)
    return vectors


def _width(config: Any) -> int:
    """Returns D of a model's last layer."""
    width: int = getattr(config, "hidden_size", None) or config.hidden_sizes[-1]
    return width


def _transformers() -> Any:
    """Imports transformers, without its progress bars."""
    transformers = import_extra("transformers", "hf")
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _from_folder(kind: str, folder: Path) -> Any:
    """Makes an object of a class of transformers, "AutoModel" say, from the files in a folder.

    Raises:
        WeightsError: the files are not what it needs.
    """
    transformers = _transformers()
    try:
        return getattr(transformers, kind).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{folder}: {kind} of transformers cannot read it: {first_line(error)}",
            hint="config.json, preprocessor_config.json and *.safetensors of the model belong there",
        ) from None
