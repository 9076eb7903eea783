"""Configs of the pipeline's stages; torch-free, because the command line builds its options from them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from avel.config import ComponentConfig, component, group, option, resolve, settings_of
from avel.grid import Grid
from avel.registry import Registry
from avel.stores.datasets.formats import FORMATS as DATASET_FORMATS

VISUAL_BACKBONES: Registry[Any] = Registry(
    "visual backbone",
    modules={
        **dict.fromkeys(("resnet18", "resnet34", "resnet50"), "avel.pipeline.encoders.resnet"),
        "mobilenet_v2": "avel.pipeline.encoders.mobilenet",
        "vgg19": "avel.pipeline.encoders.vgg",
        "r2plus1d_18": "avel.pipeline.encoders.r2plus1d",
        "timm": "avel.pipeline.encoders.timm_models",
        "hf": "avel.pipeline.encoders.huggingface",
        "tiny": "avel.pipeline.encoders.tiny",
        "vectors": "avel.pipeline.encoders.vectors",
    },
    group="avel.visual_backbones",
    unlisted=("vectors",),
)
AUDIO_BACKBONES: Registry[Any] = Registry(
    "audio backbone",
    modules={
        **{name: f"avel.pipeline.encoders.{name}" for name in ("tiny", "vggish", "yamnet")},
        "cnn14": "avel.pipeline.encoders.panns",
        "hf": "avel.pipeline.encoders.huggingface",
        "vectors": "avel.pipeline.encoders.vectors",
    },
    group="avel.audio_backbones",
    unlisted=("vectors",),
)
"""CNNs of frames, and of patches or waveforms; `avel.pipeline.encoders.backbones` has their base classes."""
BACKBONES: Mapping[Literal["audio", "visual"], Registry[Any]] = {
    "visual": VISUAL_BACKBONES,
    "audio": AUDIO_BACKBONES,
}
RANDOM, PUBLISHED = "random", "published"
"""Values of `weights` for an untrained CNN, and for the first published weights."""


@dataclass(frozen=True)
class ExtractConfig:
    """Settings of staging: the grid, the frames' encoding, limits for bad clips.

    Attributes:
        set_by_option: dataset formats, of which a file has no tables; the option that gives their settings.
    """

    set_by_option: ClassVar[tuple[Iterable[str], str]] = (DATASET_FORMATS, "--format-set")

    segments: int | None = option(
        None,
        "Most segments T of a clip; longer clips are cut.",
        low=1,
        shown="10, or those of the longest clip",
    )
    segment_seconds: float = option(
        1.0, "Length of one segment in seconds, at least 0.975 for the log-mel patch.", low=0.001
    )
    fps: int = option(16, "Frames staged per second.", low=1)
    sample_rate: int = option(
        16000, "Samples per second of the waveform; log-mel is always computed at 16000.", low=8000
    )
    size: int = option(256, "Height and width of a staged frame in pixels.", low=8, high=4096)
    resize: Literal["squash", "crop"] = option(
        "squash", "Squash frames to the square (the paper's way), or scale the shorter side and crop."
    )
    frame_codec: Literal["jpeg", "raw"] = option(
        "jpeg", "Keep frames as JPEG, or bit-exact and about five times larger (raw, under zstd)."
    )
    jpeg_quality: int = option(
        96, "JPEG quality of the staged frames; below 96 the encoder uses a coarser DCT.", low=1, high=100
    )
    waveform: bool = option(True, "Keep the waveform, 16-bit, for networks that read it.")
    missing_audio: Literal["silence", "fail"] = option(
        "silence", "Stage a clip without sound as silent, or fail it.", in_key=False
    )
    time_limit: float = option(
        60.0,
        "Most seconds a clip may take per ten segments, or go without progress; else it fails as timeout.",
        in_key=False,
        low=0.1,
    )
    memory_limit: int = option(
        2048, "A clip fails if the process that decodes it takes more MiB.", in_key=False, low=64
    )

    def grid(self) -> Grid:
        """Returns the grid that frames and audio share."""
        segments = Grid().segments if self.segments is None else self.segments
        return Grid(segments, self.segment_seconds, self.fps, self.sample_rate, self.size)


@dataclass(frozen=True)
class BackboneConfig:
    """A CNN and its weights; each modality chooses from its own registry."""

    backbone: ComponentConfig | None
    weights: str = option(
        PUBLISHED,
        "Weights of this CNN: a file, a name of published ones, 'published' for the default, or 'random'.",
    )


@dataclass(frozen=True)
class VisualConfig(BackboneConfig):
    """CNN of the frames, where an encoder may be given instead."""

    backbone: ComponentConfig | None = component(
        VISUAL_BACKBONES,
        None,
        "CNN of the frames where no --encoder is given; timm:NAME and hf:NAME are models of other libraries.",
        shown="resnet50",
    )


@dataclass(frozen=True)
class AudioConfig(BackboneConfig):
    """CNN of the audio, where an encoder may be given instead."""

    backbone: ComponentConfig | None = component(
        AUDIO_BACKBONES,
        None,
        "CNN of the audio where no --encoder is given; hf:NAME is a model of another library.",
        shown="vggish",
    )


@dataclass(frozen=True)
class VisualBackboneConfig(VisualConfig):
    """CNN of the frames."""

    backbone: ComponentConfig = component(VISUAL_BACKBONES, "resnet50", "CNN of the frames.")


@dataclass(frozen=True)
class AudioBackboneConfig(AudioConfig):
    """CNN of the audio."""

    backbone: ComponentConfig = component(AUDIO_BACKBONES, "vggish", "CNN of the audio.")


@dataclass(frozen=True)
class EncoderConfig:
    """Settings of an encoder beside its CNNs (Section 3.2.1)."""

    agva: bool = option(False, "Audio-guided visual attention before the visual Bi-LSTM (Table 4).")
    visual_width: int = option(512, "Width to which a learned Linear reduces wider visual vectors.", low=1)
    audio_width: int = option(128, "Width to which a learned Linear reduces wider audio vectors.", low=1)
    hidden: int = option(128, "Bi-LSTM units per direction; features are twice as wide.", low=1)


@dataclass(frozen=True)
class ObjectiveConfig:
    """Projector and the loss of Eq. 2."""

    projector: str = option("2048-4096-4096", "Widths of the projector's linear layers.")
    shared_projector: bool = option(True, "One projector for both modalities, or one for each (Table 4).")
    lambd: float = option(5e-3, "Weight lambda of the off-diagonal term (Eq. 2).", low=0)
    correlate: Literal["clip", "batch"] = option(
        "clip", "Normalise over each clip's time (Eq. 1), or over all segments of the batch."
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer, its learning rates by part, and their schedule (Section 4.1)."""

    optimizer: Literal["lars", "adamw"] = option(
        "lars", "lars as the paper; adamw suits few clips and small batches better."
    )
    lr: float | None = option(
        None,
        "Learning rate of weights.",
        low=0,
        shown="0.2 x batch/256 with lars, 1e-3 with adamw",
    )
    lr_bias: float | None = option(
        None,
        "Learning rate of biases and norms.",
        low=0,
        shown="0.0048 x batch/256 with lars, 1e-3 with adamw",
    )
    lr_scale: float = option(1.0, "Factor on the learning rates of Bi-LSTMs, Linears and projector.", low=0)
    lr_scale_backbone: float = option(2e-4, "Factor on the learning rates of the pretrained CNNs.", low=0)
    warmup_epochs: float = option(10.0, "Epochs of linear warm-up; half of the run at most.", low=0)
    final_lr: float = option(0.1, "Fraction of the learning rate that the cosine ends at.", low=0, high=1)
    momentum: float = option(0.9, "Momentum of lars.", low=0, high=1)
    trust: float = option(1e-3, "Trust coefficient of lars.", low=0)
    weight_decay: float = option(1e-6, "Weight decay; 1-d parameters take none.", low=0)


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentations of a clip's frames (Table 5), with Barlow Twins' strengths where none is set here."""

    crop: bool = option(True, "Random resized crop; without it, a centre crop.")
    crop_scale: tuple[float, float] = option(
        (0.08, 1.0), "Fraction of the frame's area that a random crop keeps.", low=0.01, high=1
    )
    crop_size: int = option(224, "Height and width of the crop in pixels.", low=16)
    blur: bool = option(True, "Random Gaussian blur.")
    flip: bool = option(False, "Random horizontal flip.")
    jitter: bool = option(False, "Random brightness, contrast, saturation and hue.")
    grayscale: bool = option(False, "Random grayscale.")
    solarize: bool = option(False, "Random solarisation.")
    augment_per: Literal["clip", "frame"] = option(
        "clip", "One draw for all of a clip's frames, or each its own."
    )


@dataclass(frozen=True)
class FrozenConfig:
    """Settings of the vectors that `freeze_backbone` computes once."""

    frames: int = option(
        16, "Frames of each segment whose vectors --freeze-backbone keeps, evenly spaced.", low=1
    )
    augment: bool = option(
        False, "Augment each of those frames once, so that frozen CNNs see crops and blur too."
    )
    vectors: str | None = option(
        None,
        "Folder that keeps the vectors of --freeze-backbone, to share between runs.",
        in_key=False,
        shown="inside the run",
    )


class FromClipsOrCache:
    """Base of the settings of a command that takes a clip store, or a feature cache in its place.

    Attributes:
        of_clips: names of settings and groups that have no effect where a cache is given.
    """

    of_clips: ClassVar[tuple[str, ...]] = ()

    def changed(self, names: Collection[str]) -> str:
        """Lists the settings that are not at their defaults, of those in `names` and of groups in `names`."""
        changed = [setting for setting in settings_of(self) if setting.of(self) != setting.default]
        return ", ".join(each.name for each in changed if {each.name, each.path[0]} & {*names})


@dataclass(frozen=True)
class PretrainConfig(FromClipsOrCache):
    """AV-BT as the paper trains it (Section 3.2, 4.1); a preset overrides some of it by name."""

    of_clips: ClassVar[tuple[str, ...]] = (
        "visual",
        "audio",
        "frozen",
        "augmentation",
        "freeze_backbone",
        "backbone_batchnorm",
        "compile",
        "clips_at_once",
        "workers",
        "decode",
    )
    epochs: int = option(100, "Passes over the training clips.", low=1)
    batch_size: int = option(128, "Clips of a step, over all processes together.", low=1)
    seed: int = option(0, "Seed of weights, order, frames and augmentation.", low=0)
    standardise: bool = option(
        False,
        "Standardise the CNN vectors by mean and std of the training clips; of 256 of them if the CNNs "
        "are trained.",
    )
    start_from: str | None = option(
        None,
        "Run of avel pretrain to fine-tune. The weights and --standardise of this command then have no "
        "effect.",
        shown="a new encoder",
    )
    freeze_backbone: bool = option(
        False, "Compute the CNN vectors once, keep them, and train the rest (minutes on a CPU)."
    )
    backbone_batchnorm: Literal["auto", "frozen", "batch"] = option(
        "auto",
        "Batch-norm statistics: as loaded, the batch's, or auto: as loaded if pretrained.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto",
        "Number format of CNNs and projector; auto: bfloat16 on a GPU that has it.",
    )
    device: str = option("auto", "cpu, cuda, cuda:N, or auto: a GPU where there is one.", in_key=False)
    deterministic: bool = option(
        False, "Deterministic kernels: the same weights from the same seed on a GPU."
    )
    compile: bool = option(False, "torch.compile the CNNs.", in_key=False)
    clips_at_once: int | None = option(
        None,
        "Clips of a step that go through the CNNs together, 0 for all: fewer take less memory, and one more "
        "forward pass.",
        in_key=False,
        low=0,
        shown="as many as fit",
    )
    workers: int | None = option(
        None, "Threads that read and decode frames.", in_key=False, low=1, shown="one per core, 16 at most"
    )
    decode: Literal["auto", "gpu", "cpu"] = option(
        "auto",
        "Where JPEG is decoded; auto: on a GPU that has an engine for it.",
        in_key=False,
    )
    probe_every: int = option(
        0, "Fit a linear probe on train labels every k epochs and score it on val; 0 never.", low=0
    )
    checkpoint_every: int = option(
        1, "Epochs between checkpoints; the best encoder is one of them.", in_key=False, low=1
    )
    tensorboard: bool = option(False, "Also write TensorBoard events (needs tensorboard).", in_key=False)
    metrics_hook: str = option(
        "", "MODULE:FUNCTION that is called with the run and each line of its metrics.", in_key=False
    )
    visual: VisualBackboneConfig = group(VisualBackboneConfig, "Visual backbone", prefix="visual_")
    audio: AudioBackboneConfig = group(AudioBackboneConfig, "Audio backbone", prefix="audio_")
    frozen: FrozenConfig = group(FrozenConfig, "Frozen backbones", prefix="frozen_")
    encoder: EncoderConfig = group(EncoderConfig, "Encoder")
    objective: ObjectiveConfig = group(ObjectiveConfig, "Objective")
    optimizer: OptimizerConfig = group(OptimizerConfig, "Optimizer")
    augmentation: AugmentConfig = group(AugmentConfig, "Augmentation")

    @property
    def idle(self) -> tuple[str, ...]:
        """Returns the keys of settings without effect: a run in `start_from` decides what they would set."""
        return ("visual.weights", "audio.weights", "standardise") if self.start_from else ()


@dataclass(frozen=True)
class CacheConfig(FromClipsOrCache):
    """Settings of a feature cache: networks, frames, and arrays to keep."""

    of_clips: ClassVar[tuple[str, ...]] = (
        "untrained",
        "seed",
        "frames_per_segment",
        "crop_size",
        "keep_maps",
        "dtype",
        "workers",
    )
    untrained: bool = option(
        False, "Put Bi-LSTMs with random weights on the CNNs, in place of --encoder: what AV-BT has to beat."
    )
    seed: int = option(0, "Seed of --untrained and of weights that are random.", low=0)
    frames_per_segment: int | None = option(
        None,
        "Frames of a segment to encode. Their vectors are averaged, unless the CNN sees them together.",
        low=1,
        shown="the middle one, or as many as the CNN takes",
    )
    crop_size: int | None = option(
        None, "Height and width of the centre crop in pixels.", low=16, shown="the encoder's own"
    )
    keep_cnn: bool = option(False, "Also keep the CNN vectors, before the Bi-LSTMs.")
    keep_maps: bool = option(False, "Also keep the visual maps, in float16, for heads that attend over them.")
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto",
        "Number format of the CNNs; auto: that of CACHE if it is there, else bfloat16 on a GPU that has it.",
    )
    batch_size: int = option(8, "Clips that go through the encoder at once.", in_key=False, low=1)
    workers: int | None = option(
        None, "Threads that read and decode frames.", in_key=False, low=1, shown="one per core, 16 at most"
    )
    device: str = option(
        "auto", "cpu, cuda:0, several as cuda:0,cuda:1, or auto: every GPU, or the CPU.", in_key=False
    )
    visual: VisualConfig = group(VisualConfig, "Visual backbone", prefix="visual_")
    audio: AudioConfig = group(AudioConfig, "Audio backbone", prefix="audio_")

    def pretraining(self) -> PretrainConfig:
        """Returns the settings of an untrained encoder on these CNNs, or on the default ones."""
        chosen = {"visual": self.visual, "audio": self.audio, "seed": self.seed}
        return resolve(PretrainConfig, "pretrain", options=chosen)
