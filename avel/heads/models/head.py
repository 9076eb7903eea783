"""Base class of heads: features of two modalities in, a score for each class and segment out."""

import difflib
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from avel.digests import digest_of
from avel.errors import ConfigError, UnknownNameError
from avel.heads.config import HEADS, HeadConfig, Inputs, TrainConfig, WeakLabels
from avel.heads.models.layout import Layout, load_layout, plain_state
from avel.heads.models.parts import AttentionMap, at_least_float32
from avel.heads.tasks.choose import TASKS
from avel.heads.tasks.single_label import SingleLabel
from avel.nn import Standard, mask_of, zero_padding
from avel.progress import note
from avel.temporal import Temporal, TemporalSizes


@dataclass(frozen=True)
class Widths:
    """Sizes of a head's inputs and scores.

    Attributes:
        audio, visual: features of a vector, D, or of each cell of a visual map, C.
        classes: K, the number of scores of a segment: classes and background, or the classes of all tracks.
        cells: H * W of visual maps, 0 for vectors.
        segments: T, which few heads need; 0 where it is not known.
        task: name of the task, in `TASKS`.
        tracks: how many tracks of labels share the scores, one after the other.
        temporal: sizes of the Bi-LSTMs that are fine-tuned, which read `audio` and `visual`; None without.
    """

    audio: int
    visual: int
    classes: int
    cells: int = 0
    segments: int = 0
    task: str = SingleLabel.name
    tracks: int = 1
    temporal: TemporalSizes | None = None

    @property
    def encoded(self) -> "Widths":
        """Returns the widths of what the head reads: the output of fine-tuned Bi-LSTMs, if there are any."""
        if self.temporal is None:
            return self
        return replace(self, audio=2 * self.temporal.hidden, visual=2 * self.temporal.hidden, temporal=None)


@dataclass(frozen=True)
class Published:
    """An accuracy that was reported for a head on AVE's test split.

    Attributes:
        features: what the head read; "AV-BT", or networks of audio and vision.
        source: where the figure stands.
        checked: whether the figure was read there. The others are from memory, and tables mark them "?".
    """

    percent: float
    supervision: Literal["full", "weak"]
    features: str
    source: str
    checked: bool = True

    def __str__(self) -> str:
        """Returns the text of a table's cell.

        >>> str(Published(77.4, "full", "VGGish, VGG-19", "the paper", checked=False))
        '77.4?'
        """
        return f"{self.percent:.1f}" + "?" * (not self.checked)


VGG = "VGGish, VGG-19"


class HeadOutput(NamedTuple):
    """Scores before softmax or sigmoid, (B, T, K), and other tensors by name, such as attention maps.

    `mask` (B, T) is True before the end of each clip; None where all have T segments. `Model` sets it, and
    losses read it.
    """

    logits: Tensor
    extras: dict[str, Tensor]
    mask: Tensor | None = None


class Head(nn.Module, ABC):
    """Base of all heads. A subclass declares its settings in a nested `Config`, and defines `forward`.

    Attributes:
        Config: settings of the head, a frozen dataclass derived from HeadConfig.
        source: the publication that the head comes from.
        published: what was reported for it on AVE.
        inputs: what it can read ("encoded", "cnn", "maps"), the best first.
        attention_maps: those of its outputs' extras that the report draws as attention.
        weak: whether it can learn from video labels.
        weak_labels: the kinds of video labels that it can learn from, that of its published code first; its
            `weak_loss` gets classes (B,) for "event" and fractions (B, K) for "fractions".
        tasks: names of the tasks that it can be trained for: those whose labels its losses and layers know.
        stackable: whether its trials can be one batched program. Such a head has no LSTM, no `begin_epoch`,
            and dropout only by a setting `dropout`; where that is not 0, its trials are trained one by one.
        buffered: settings kept as buffers, so that trials which differ in them can still be stacked.
        segments: numbers of segments that its layers can take; None for any.
        takes_differing_lengths: whether a batch may hold clips of different lengths: its `forward` takes a
            mask, and the segments after the end of a clip have no influence on the others.
    """

    Config: ClassVar[type[HeadConfig]] = HeadConfig
    source: ClassVar[str] = ""
    published: ClassVar[tuple[Published, ...]] = ()
    inputs: ClassVar[tuple[Inputs, ...]] = ("encoded",)
    attention_maps: ClassVar[tuple[AttentionMap, ...]] = ()
    weak: ClassVar[bool] = True
    weak_labels: ClassVar[tuple[WeakLabels, ...]] = ("event", "fractions")
    tasks: ClassVar[tuple[str, ...]] = (SingleLabel.name,)
    stackable: ClassVar[bool] = False
    buffered: ClassVar[tuple[str, ...]] = ()
    segments: ClassVar[range | None] = None
    takes_differing_lengths: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Notes attributes that may be misspelt; refuses unknown names in `inputs`, `tasks`, `weak_labels`.

        Raises:
            UnknownNameError: there is no such inputs, task or kind of video labels.
        """
        super().__init_subclass__()
        for name, value in vars(cls).items():
            is_plain = not callable(value) and not isinstance(value, property)
            new = is_plain and not any(name in vars(base) for base in cls.__mro__[1:])
            meant = difflib.get_close_matches(name, Head.__annotations__, cutoff=0.8) if new else []
            if meant:
                note(f"{cls.__name__}: avel does not read the attribute {name!r}; did you mean {meant[0]!r}?")
        for attribute, known in (
            ("inputs", get_args(Inputs)),
            ("tasks", TASKS),
            ("weak_labels", get_args(WeakLabels)),
        ):
            for name in getattr(cls, attribute):  # a text, as in inputs = ("maps"), fails at its "m"
                if name not in known:
                    raise UnknownNameError(attribute, name, known, where=cls.__name__)

    def __init__(self, widths: Widths, config: HeadConfig, weak: bool) -> None:
        """Builds the network for the widths of a cache; `weak` networks learn from video labels.

        Raises:
            ConfigError: the head cannot be trained for the task, or cannot take clips of that many segments.
        """
        super().__init__()
        self.widths, self.config, self.task = widths, config, TASKS[widths.task]
        self.check_task(widths.task)
        allowed = self.segments
        if allowed is not None and widths.segments not in allowed:
            raise ConfigError(
                f"head {config.name!r} takes {allowed[0]} to {allowed[-1]} segments, the clips have"
                f" {widths.segments}",
                hint="avel heads lists the others, which take any number",
            )

    @classmethod
    def check_task(cls, task: str) -> None:
        """Refuses a task that the head is not for.

        Raises:
            ConfigError: it is not among `tasks`; the hint names heads that can learn it.
        """
        if task not in cls.tasks:
            able = [name for name in HEADS if task in HEADS[name].tasks]
            raise ConfigError(
                f"head {cls.Config.name!r} is for task {' or '.join(cls.tasks)}, and this is {task}",
                hint=f"heads that can: {', '.join(able)}",
            )

    @classmethod
    def check_lengths(cls) -> None:
        """Refuses clips of differing lengths, unless the head can leave out the padding after a clip's end.

        Raises:
            ConfigError: it cannot; the hint names heads that can.
        """
        if not cls.takes_differing_lengths:
            able = [name for name in HEADS if HEADS[name].takes_differing_lengths]
            raise ConfigError(
                f"head {cls.Config.name!r} takes clips of one length, and these differ in length",
                hint=f"heads that can: {', '.join(able)}",
            )

    @abstractmethod
    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Returns logits: (B, T, D), (B, T, D) or maps (B, T, H, W, C) -> (B, T, K).

        `mask` (B, T) is True before the end of each clip, and inputs after it are 0; without it all have T
        segments. Heads without `takes_differing_lengths` never get one.
        """

    def layout(self) -> Layout | None:
        """Returns the names of the published network's state dict; None where none is public."""
        return None

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Takes the state dict of the published network, whose scores the head then gives.

        Raises:
            ConfigError: no such network is public, or tensors are missing, surplus or of another shape.
        """
        layout = self.layout()
        if layout is None:
            raise ConfigError(
                f"head {self.config.name!r} has no published network whose weights it could take",
                hint="heads that have one: "
                + ", ".join(name for name in HEADS if HEADS[name].layout is not Head.layout),
            )
        load_layout(self, layout, plain_state(state))

    def begin_epoch(self, epoch: int) -> None:
        """Prepares for an epoch, counted from 1, before it is trained; only buffers may change."""

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Returns the loss under full supervision: (B, T, K), (B, T, ...) -> scalar."""
        return self.task.loss(output.logits, labels, output.mask)

    def weak_loss(self, output: HeadOutput, video_labels: Tensor) -> Tensor:
        """Returns the loss under weak supervision: (B, T, K), labels of videos (B, ...) -> scalar."""
        return self.task.video_loss(output.logits, video_labels, output.mask)


PROJECTED = 256
"""Width of AV-BT's features: the default of `--project` if a head adds audio and visual of unlike widths."""


class Model(nn.Module):
    """A head behind its standardisation and projection, as it is trained and saved.

    Attributes:
        temporal: the Bi-LSTMs that are fine-tuned; None where there are none.
        project: modality -> Linear to the width of `--project`; empty where there is none.
    """

    def __init__(self, head: Head, widths: Widths, config: TrainConfig) -> None:
        super().__init__()
        self.head = head
        self.temporal = None if widths.temporal is None else Temporal(widths.temporal)
        widths = widths.encoded
        self.standard_a = Standard(widths.audio) if config.standardise else None
        self.standard_v = Standard(widths.visual) if config.standardise else None
        width = projected_width(config, widths)
        self.project = nn.ModuleDict()
        if width is not None:
            for name in config.head.modalities:
                self.project[name] = nn.Linear(getattr(widths, name), width)
        self.weak = config.supervision == "weak"

    def forward(self, audio: Tensor, visual: Tensor, lengths: Tensor | None = None) -> HeadOutput:
        """Returns scores: (B, T, D), (B, T, ...) -> logits (B, T, K).

        `lengths` (B,) are the numbers of segments, where they differ; what comes after them has no influence,
        and its scores are 0.
        """
        mask = None if lengths is None else mask_of(lengths, audio.shape[1])
        # Zero the padding before these layers, because a NaN there would spoil their gradient. Zero it again
        # after them, because their biases change it
        audio, visual = zero_padding(audio, mask), zero_padding(visual, mask)
        if self.temporal is not None:
            audio, visual = self.temporal(audio, visual, mask)
        if self.standard_a is not None and self.standard_v is not None:
            audio, visual = self.standard_a(audio), self.standard_v(visual)
        if "audio" in self.project:
            audio = self.project["audio"](audio)
        if "visual" in self.project:
            visual = self.project["visual"](visual)
        if mask is None:
            output: HeadOutput = self.head(audio, visual)
            return output
        output = self.head(zero_padding(audio, mask), zero_padding(visual, mask), mask)
        return HeadOutput(zero_padding(output.logits, mask), output.extras, mask)

    def loss(self, output: HeadOutput, targets: Tensor) -> Tensor:
        """Returns the head's loss, never in bfloat16: (B, T, K) and labels, of videos if weak -> scalar."""
        output = output._replace(logits=at_least_float32(output.logits))
        return self.head.weak_loss(output, targets) if self.weak else self.head.loss(output, targets)


def projected_width(config: TrainConfig, widths: Widths) -> int | None:
    """Returns the width to which a Linear brings each modality; None where the head reads it as it is."""
    widths = widths.encoded
    unlike = config.head.equal_widths and widths.audio != widths.visual
    return PROJECTED if config.project is None and unlike else config.project


def head_class(config: TrainConfig) -> type[Head]:
    """Returns the class of the head that a config names.

    Raises:
        ConfigError: the head cannot learn from video labels, which the config asks for.
    """
    head: type[Head] = HEADS[config.head.name]
    if config.supervision == "weak" and not head.weak:
        raise ConfigError(
            f"head {config.head.name!r} cannot learn from video labels", hint="--supervision full"
        )
    return head


def weak_labels_of(config: TrainConfig, task: str) -> WeakLabels | None:
    """Returns the kind of video labels that a head learns from; None under full supervision.

    Raises:
        ConfigError: the config names a kind that the head or the task does not have.
    """
    if config.supervision == "full":
        return None
    head = head_class(config)
    able = head.weak_labels if task == SingleLabel.name else ("event",)
    if config.weak_labels == "published":
        return able[0]
    if config.weak_labels not in able:
        raise ConfigError(
            f"head {config.head.name!r} cannot learn task {task} from --weak-labels {config.weak_labels}",
            hint=f"--weak-labels {able[0]}",
        )
    return config.weak_labels


def code_digest(head: type[Head]) -> str:
    """Returns 16 hex digits over the file in which a head is written.

    "+" and 16 more follow for the files of other heads from which it imports, and from which these import. A
    head without a file, such as one typed at a prompt, counts by its name alone.
    """
    kinds: list[type] = [kind for kind in head.__mro__ if issubclass(kind, Head) and kind is not Head]
    for kind in kinds:  # the list grows in the loop
        names = getattr(sys.modules.get(kind.__module__), "__dict__", {}).values()
        modules = {value.__module__ for value in names if inspect.isclass(value) or inspect.isfunction(value)}
        modules -= {kind.__module__}
        kinds += [other for other in _derived(Head) if other.__module__ in modules and other not in kinds]
    own = _code(head)
    others = sorted({_code(kind) for kind in kinds} - {own})
    return digest_of(own) + (f"+{digest_of(others)}" if others else "")


def _derived(kind: type) -> list[type]:
    """Lists the classes derived from a class, directly or through others."""
    direct: list[type] = kind.__subclasses__()
    return direct + [each for derived in direct for each in _derived(derived)]


def _code(kind: type) -> str:
    try:
        return Path(inspect.getfile(kind)).read_text()
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"


def build_model(config: TrainConfig, widths: Widths, seed: int) -> Model:
    """Builds a model whose first weights depend on `seed` alone.

    Raises:
        ConfigError: settings or widths that the head cannot be built with.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width, read = projected_width(config, widths), widths.encoded
        read = read if width is None else replace(read, audio=width, visual=width)
        head = head_class(config)(read, config.head, config.supervision == "weak")
        return Model(head, widths, config)
