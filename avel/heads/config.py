"""Settings of training a head; torch-free, because the command line builds its options from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from avel.config import ComponentConfig, component, option
from avel.registry import Registry

TaskChoice = Literal["auto", "single_label", "multi_label"]
"""Name of a task, or "auto" for the one that the events of a dataset need."""
Inputs = Literal["encoded", "cnn", "maps"]
"""Inputs that a head may be written for: f_a and f_v, CNN vectors, or CNN audio vectors and visual maps."""
FineTuned = Literal["fine_tuned"]
"""f_a and f_v of Bi-LSTMs that learn with the head, for every head that reads "encoded" inputs."""
WeakLabels = Literal["event", "fractions"]
"""Kinds of video labels: the event, or the fraction of segments of each class."""

_NAMES = (  # noqa: SIM905
    "avin avrb_style avsdn avt_style bilstm cace cman cmbs cmran cpsp cross_attention dam han jcan lesp mlp "
    "mpn_style psp tacma vscg"
).split()
HEADS: Registry[Any] = Registry(
    "head",
    modules={"avel": "avel.heads.models.avel_net"} | {name: f"avel.heads.models.{name}" for name in _NAMES},
    group="avel.heads",
    files=True,
)
"""Fusion heads by name; `avel.heads.models.head` has their base class."""


@dataclass(frozen=True)
class HeadConfig(ComponentConfig):
    """Base of every head's `Config`: settings of Adam, of its schedule, and of how long it trains.

    Each head sets its own defaults. During the warm-up the rate rises evenly to `lr`. After that, the rate of
    an epoch is `lr`, times `lr_decay` for each step of the schedule so far, times the fraction of the cosine.

    Attributes:
        weak_defaults: defaults that differ under weak supervision: name -> value.
        standardise: whether its features are standardised where `--standardise` is not given.
    """

    weak_defaults: ClassVar[Mapping[str, Any]] = {}
    standardise: ClassVar[bool] = False

    lr: float = option(1e-3, "Learning rate of Adam, before it falls.", low=0)
    weight_decay: float = option(0.0, "Weight decay of Adam (L2, as torch.optim.Adam takes it).", low=0)
    clip_norm: float = option(0.0, "Largest norm of a step's gradient; 0 does not clip.", low=0)
    lr_decay: float = option(1.0, "Factor on the learning rate at each step of the schedule.", low=0)
    lr_decay_every: int = option(0, "Epochs between two steps of the schedule; 0 for none.", low=0)
    milestones: tuple[int, ...] = option((), "Epochs after which the schedule steps.", low=1)
    warmup_epochs: int = option(0, "Epochs in which the learning rate rises evenly to lr.", low=0)
    cosine: bool = option(False, "Let the learning rate fall to 0 along a cosine after the warm-up.")
    batch_size: int = option(64, "Clips in a batch; the last, smaller one is trained on too.", low=1)
    epochs: int = option(100, "Passes over the train samples.", low=1)

    @property
    def modalities(self) -> tuple[Literal["audio", "visual"], ...]:
        """Returns the modalities that the head reads with these settings."""
        return ("audio", "visual")

    @property
    def equal_widths(self) -> bool:
        """Returns True where the head adds audio to visual features, and so needs both of one width."""
        return False

    def under(self, supervision: str) -> Self:
        """Returns the config with the defaults of a supervision for all settings that were not given."""
        defaults = self.weak_defaults if supervision == "weak" else {}
        config = type(self)(**{**defaults, **self.explicit})
        object.__setattr__(config, "_explicit", frozenset(self.explicit))  # `defaults` were not given
        return config


@dataclass(frozen=True)
class TrainConfig:
    """Settings of training: the head with its own, and those that every training has.

    Where `standardise` is not given, the head's `Config` says it. Under weak supervision the head has its
    `weak_defaults`, but for the settings that its config was made with: `PSP.Config(threshold=0.1)`.
    """

    head: HeadConfig = component(
        HEADS, "tacma", "Fusion head (avel heads lists them), or a file that registers one, ./idea.py.",
        listed_by="avel heads NAME",
    )  # fmt: skip
    task: TaskChoice = option(
        "auto", "One label a segment, or any number in audio and visual each; auto: what the events need."
    )
    supervision: Literal["full", "weak"] = option(
        "full", "Learn from the labels of every segment, or from the video's classes alone."
    )
    weak_labels: Literal["published", "event", "fractions"] = option(
        "published",
        "What a weak label is: the video's event, or each class's fraction of its segments; published: as in "
        "the head's own code.",
    )
    negatives: str = option(
        "", "Clips without events to learn from too: a folder of videos, a store or a cache.", in_key=False
    )
    init: str = option(
        "",
        "Weights to start from, .pt, .pth or .safetensors: of the head's published network, or of a trial.",
        in_key=False,
    )
    select_by: Literal["auto", "segments", "videos"] = option(
        "auto",
        "Choose the epoch by labels of val segments, or of whole val videos; auto: by videos if weak "
        "supervision has one label a segment.",
    )
    inputs: Literal["auto", Inputs, FineTuned] = option(
        "auto",
        "Features to read. encoded: f_a, f_v; fine_tuned: f_a, f_v of Bi-LSTMs trained too; cnn: vectors; "
        "maps: visual maps; auto: the best.",
    )
    audio: str = option(
        "",
        "Audio features to read instead: a name in the cache (avel inspect), or several joined by +.",
        shown="as --inputs says",
    )
    visual: str = option("", "The same for visual features, vectors or maps.", shown="as --inputs says")
    project: int | None = option(
        None,
        "Width of a Linear for each modality before the head.",
        low=1,
        shown="256 if the head adds audio to visual features and their widths differ, else none",
    )
    standardise: bool | None = option(
        None,
        "Shift and scale each feature by its mean and std over train.",
        shown="as the head says",
        default_varies=True,
    )
    patience: int = option(
        0, "Epochs without a better validation score before a trial stops; 0 never.", low=0
    )
    seed: int = option(0, "Seed of the first trial.", low=0)
    seeds: int = option(1, "Trials of each setting, with consecutive seeds.", low=1)
    dtype: Literal["float32", "bfloat16"] = option("float32", "Arithmetic of the matrix products.")
    device: str = option("auto", "cpu, cuda, cuda:N, or auto: a GPU where there is one.", in_key=False)
    together: Literal["auto", "always", "never"] = option(
        "auto", "Train trials as one batched program, or in turn; auto takes the faster.", in_key=False
    )
    memory_gb: float | None = option(
        None, "Features larger than this are streamed.", in_key=False, low=0, shown="half of the free memory"
    )
    tensorboard: bool = option(False, "Also write TensorBoard events (needs tensorboard).", in_key=False)
    metrics_hook: str = option(
        "", "MODULE:FUNCTION that is called with the run and each line of its metrics.", in_key=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", self.head.under(self.supervision))
        if self.standardise is None:  # not given
            object.__setattr__(self, "standardise", self.head.standardise)

    def selects_by_videos(self, task: str) -> bool:
        """Returns True if the epoch is chosen by labels of whole val videos, not of their segments.

        In video parsing val has labels of segments; "auto" chooses by them under weak supervision too, as the
        code of Tian et al. 2020 does.
        """
        weak = self.supervision == "weak" and task == "single_label"
        return self.select_by == "videos" or (self.select_by == "auto" and weak)
