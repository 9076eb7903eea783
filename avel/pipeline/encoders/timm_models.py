"""Any image model of timm, `timm:NAME`: its own resolution, mean and std; maps where it has them."""

from pathlib import Path
from typing import Any

from torch import Tensor

from avel.config import ComponentConfig
from avel.errors import ConfigError, WeightsError, import_extra
from avel.pipeline.config import VISUAL_BACKBONES
from avel.pipeline.encoders.backbones import FrameInput, Normalise, VisualBackbone
from avel.pipeline.encoders.hub import SETTINGS_FILE, HubBackbone, ModelConfig, as_maps
from avel.pipeline.encoders.weights import StateDict, load_into
from avel.stores.documents import parse


@VISUAL_BACKBONES.register("timm")
class TimmVisual(HubBackbone, VisualBackbone):
    """Vectors as the model pools them, before its classifier. State dict: timm's, under `net.`."""

    Config = ModelConfig
    settings_on_hub = False  # timm itself holds the settings of its models

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.net: Any = _create(config.model)
        self.width = self.net.head_hidden_size
        self.normalise = Normalise(self.net.pretrained_cfg["mean"], self.net.pretrained_cfg["std"])

    @classmethod
    def repository(cls, model: str) -> str:
        """Returns the repository that timm names for a model."""
        known = _known(model)
        if not known.hf_hub_id:
            raise WeightsError(
                f"timm:{model}: timm has no weights of it on the hub",
                hint=f"timm:FOLDER, with {SETTINGS_FILE} and *.safetensors of the model in it",
            )
        return str(known.hf_hub_id)

    @classmethod
    def reads(cls, config: ComponentConfig) -> FrameInput:
        """Returns one frame of the resolution that the model was trained with.

        Raises:
            ConfigError: no model was named, or timm has none of that name.
            WeightsError: a folder without the settings of a model of timm.
        """
        assert isinstance(config, ModelConfig)
        folder = cls.local_folder(config.model)
        if folder is None:
            return FrameInput(pixels=_known(config.model).input_size[-1])
        file = folder / SETTINGS_FILE
        try:
            kept = parse(file.read_bytes(), file, "fetch the model again")
            return FrameInput(pixels=kept.get("pretrained_cfg", kept)["input_size"][-1])
        except (OSError, KeyError) as error:
            raise WeightsError(
                f"{file}: no settings of a model of timm: {error}",
                hint=f"{SETTINGS_FILE} and *.safetensors of the model belong there",
            ) from None

    def maps(self, frames: Tensor) -> Tensor:
        """Computes maps of the last layer, or its tokens as maps: (B, 3, H, W) -> (B, D, H', W')."""
        return as_maps(self.net.forward_features(self.normalise(frames)), self.net.num_features, "timm")

    def vectors_and_maps(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Computes both in one pass of the model, as its own forward does."""
        features = self.net.forward_features(self.normalise(frames))
        return self.net.forward_head(features), as_maps(features, self.net.num_features, "timm")

    def forward(self, frames: Tensor) -> Tensor:
        """Computes the model's pooled vectors: (B, 3, H, W) -> (B, D)."""
        vectors: Tensor = self.net(self.normalise(frames))
        return vectors

    def load_folder(self, folder: Path) -> None:
        """Takes timm's weights in a folder."""
        self.net.load_state_dict(_create(str(folder), pretrained=True).state_dict())

    def load_published(self, state: StateDict, where: str) -> None:
        """Takes timm's state dict, with or without the classifier, whose name timm knows for each model."""
        classifier = self.net.pretrained_cfg.get("classifier") or ()
        names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        load_into(self.net, state, where, unused=tuple(f"{name}." for name in names))


def _create(model: str, *, pretrained: bool = False) -> Any:
    """Returns a model of timm's zoo, or of a folder, without its classifier.

    Raises:
        ConfigError: no such model.
    """
    source = f"local-dir:{model}" if Path(model).is_dir() else model
    try:
        return import_extra("timm", "timm").create_model(source, pretrained=pretrained, num_classes=0)
    except (RuntimeError, OSError, ValueError) as error:
        raise _unknown(model, error) from None


def _known(model: str) -> Any:
    """Returns what timm knows of a model without making it."""
    timm = import_extra("timm", "timm")
    try:
        return timm.get_pretrained_cfg(model, allow_unregistered=False)
    except RuntimeError as error:
        raise _unknown(model, error) from None


def _unknown(model: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"timm:{model}: {error}", hint="python -c 'import timm; print(timm.list_models())' lists them"
    )
