"""Inputs and labels of heads, read from a feature cache and checked before training."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avel.ahead import read_ahead
from avel.errors import ConfigError, TrainingError
from avel.heads.config import FineTuned, TrainConfig, WeakLabels
from avel.heads.models.head import Widths, head_class, weak_labels_of
from avel.heads.tasks.choose import choose_task
from avel.heads.tasks.single_label import SingleLabel
from avel.heads.tasks.task import Task
from avel.memory import free_memory
from avel.nn import mask_of
from avel.progress import note
from avel.stores.datasets.labels import take
from avel.stores.datasets.sample import SPLITS
from avel.stores.features import FeatureCache
from avel.temporal import Temporal, TemporalSizes
from avel.text import size

FINE_TUNED: FineTuned = "fine_tuned"
ARRAYS_OF = {
    "encoded": ("f_a", "f_v"),
    "cnn": ("cnn_a", "cnn_v"),
    "maps": ("cnn_a", "maps"),
    FINE_TUNED: ("cnn_a", "cnn_v"),
}
"""Inputs of a head -> the arrays of the cache, audio and visual; other inputs name arrays themselves."""
VECTOR, MAP = 3, 5
"""Dimensions of an array of vectors (V, T, D), and of maps (V, T, H, W, C)."""
BLOCK_BYTES = 2**22
"""Size of a block of features that is read and checked at once."""
Joined = TypeVar("Joined", bound=Any)


@dataclass(frozen=True)
class Split:
    """R samples of one split.

    Attributes:
        number: (R,) number of each sample in its dataset.
        known: (R,) whether its events are known, so that predictions can be evaluated on it.
        has_video_label: (R,) whether the task has a label for the whole clip.
        videos: (R,) index into the cache's videos.
        labels: (R, T, ...) as the task makes them; -1 where a sample's events are not known, -2 after the end
            of its clip.
        video_labels: (R, ...) as the task makes them.
    """

    name: str
    number: NDArray[np.int64]
    video_id: NDArray[np.object_]
    leaked: NDArray[np.bool_]
    known: NDArray[np.bool_]
    has_video_label: NDArray[np.bool_]
    videos: Tensor
    labels: Tensor
    video_labels: Tensor

    def __len__(self) -> int:
        return len(self.number)

    def to_train_on(self, weak_labels: WeakLabels | None) -> "Split":
        """Returns the samples to train on: all, or for weak labels "event" only those with a video label."""
        if weak_labels != "event" or self.has_video_label.all():
            return self
        return take(self, np.flatnonzero(self.has_video_label))


@dataclass(frozen=True)
class Features:
    """Audio and visual inputs of V videos, in memory or read from the cache as they are asked for.

    Attributes:
        tensors: inputs in memory, (V, T, ...) each; None where they are read when needed.
        negatives: inputs of videos without events, whose numbers begin at V.
        lengths: number of segments of each video, those of `negatives` last; None where all have T.
    """

    cache: FeatureCache
    inputs: str
    device: torch.device
    tensors: tuple[Tensor, Tensor] | None
    negatives: "Features | None" = None
    lengths: Tensor | None = None

    def of(self, videos: Tensor) -> tuple[Tensor, Tensor]:
        """Returns float32 inputs of videos: (...) -> (..., T, D), (..., T, D) or maps (..., T, H, W, C)."""
        own = len(self.cache.video_ids)
        if self.negatives is None or not (is_negative := videos >= own).any():
            return self._of_own(videos)
        both = self._of_own(videos.masked_fill(is_negative, 0))
        for values, others in zip(both, self.negatives.of(videos[is_negative] - own), strict=True):
            values[is_negative] = others
        return both

    def _of_own(self, videos: Tensor) -> tuple[Tensor, Tensor]:
        if self.tensors is not None:
            audio, visual = (_select(values, videos).float() for values in self.tensors)
            return audio, visual
        unique, places = torch.unique(videos.cpu(), return_inverse=True)
        read = inputs_of(self.inputs, lambda name: torch.from_numpy(self.cache.read(name, unique.numpy())))
        audio, visual = (values.to(self.device)[places.to(self.device)].float() for values in read)
        return audio, visual

    def lengths_of(self, videos: Tensor) -> Tensor | None:
        """Returns how many segments videos have: (...) -> (...); None where all have T."""
        return None if self.lengths is None else self.lengths[videos]

    def batches(self, chunks: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the inputs of each chunk of videos; if not in memory, they are read one chunk ahead."""
        return map(self.of, chunks) if self.tensors is not None else read_ahead(self.of, chunks)


@dataclass(frozen=True)
class Data:
    """Inputs and labels of one head; `splits` holds the splits that were read.

    Attributes:
        temporal: weights of the Bi-LSTMs that are fine-tuned, as AV-BT left them; empty if none are.
    """

    features: Features
    task: Task
    widths: Widths
    splits: dict[str, Split]
    temporal: Mapping[str, Tensor] = field(default_factory=dict)

    def training(self, config: TrainConfig) -> tuple[Split, Tensor]:
        """Returns the samples to train on, and labels of their segments (R, T, ...) or videos (R, ...)."""
        weak_labels = weak_labels_of(config, self.task.name)
        train = self.splits["train"].to_train_on(weak_labels)
        if weak_labels == "fractions":
            assert isinstance(self.task, SingleLabel)
            return train, self.task.fractions(train.labels)
        return train, train.labels if weak_labels is None else train.video_labels

    @cached_property
    def statistics(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns `feature_statistics` over train, measured once for all trials."""
        temporal = None
        if self.widths.temporal is not None:
            temporal = Temporal(self.widths.temporal).to(self.features.device)
            temporal.load_state_dict(self.temporal)
        return feature_statistics(self.features, self.splits["train"], temporal)


def join(parts: Sequence[Joined]) -> Joined:
    """Joins the rows of dataclasses whose fields are columns; text fields are those of the first."""
    columns: dict[str, Any] = {}
    for name, value in vars(parts[0]).items():
        of_parts = [getattr(part, name) for part in parts]
        if isinstance(value, Tensor):
            columns[name] = torch.cat(of_parts)
        elif not isinstance(value, str):
            columns[name] = np.concatenate(of_parts)
    joined: Joined = replace(parts[0], **columns)
    return joined


def read_data(
    cache: FeatureCache, config: TrainConfig, device: torch.device, splits: Sequence[str] | None = None
) -> Data:
    """Loads splits and inputs for a head; `check_labels` checks that it can learn from the labels.

    Args:
        splits: names of the splits, by default train, val, and test where it has samples.

    Raises:
        TrainingError: what the head needs is missing, or features are not finite.
        ConfigError: the head cannot be trained for the task, or on clips of differing lengths.
    """
    inputs, task = choose_inputs(cache, config), choose_task(cache, config.task)
    head_class(config).check_task(task.name)
    if cache.differing_lengths:
        head_class(config).check_lengths()
    if not len(cache.samples):
        raise TrainingError(
            f"{cache.path}: no labels in this cache", hint="stage the dataset with its annotations first"
        )
    if splits is None:
        splits = [name for name in SPLITS if name != "test" or name in cache.samples.split]
    audio, visual = ([cache.shapes[name] for name in names] for names in arrays_of(inputs))
    widths = Widths(
        audio=sum(shape[-1] for shape in audio),
        visual=sum(shape[-1] for shape in visual),
        classes=task.outputs,
        cells=visual[0][2] * visual[0][3] if len(visual[0]) == MAP else 0,
        segments=cache.grid_segments,
        task=task.name,
        tracks=len(task.tracks),
    )
    temporal: dict[str, Tensor] = {}
    if inputs == FINE_TUNED:
        temporal = {name: torch.from_numpy(values) for name, values in cache.read_temporal().items()}
        widths = replace(widths, temporal=TemporalSizes.of(temporal))
    of_split = {name: _split(cache, task, name, device) for name in splits}
    return Data(load_features(cache, inputs, config, device), task, widths, of_split, temporal)


def choose_inputs(cache: FeatureCache, config: TrainConfig) -> str:
    """Returns the inputs that a config asks for, or the best for its head that the cache holds.

    Raises:
        TrainingError: the cache holds none of them, or the head cannot read what was asked for.
        ConfigError: features are named, although `inputs` already says what to read.
        StoreError: features that are named cannot be joined.
    """
    head, name = head_class(config), config.head.name
    named = [features for features in (config.audio, config.visual) if features]
    # with one modality named, `inputs` says what the other reads; fine-tuning takes no names
    if config.inputs != "auto" and len(named) > (0 if config.inputs == FINE_TUNED else 1):
        raise ConfigError(
            f"cannot take inputs={config.inputs!r} and features {' and '.join(map(repr, named))} together",
            hint=f"give --inputs {config.inputs} alone, or the names of features alone",
        )
    if config.inputs == FINE_TUNED:
        return _fine_tuned(cache, config)
    if len(named) == 2:
        return _named_inputs(cache, config, config.audio, config.visual)
    if config.inputs != "auto" and config.inputs not in head.inputs:
        raise TrainingError(
            f"head {name!r} cannot read {config.inputs!r} inputs", hint=f"--inputs {' or '.join(head.inputs)}"
        )
    wanted = head.inputs if config.inputs == "auto" else (config.inputs,)
    cached = [inputs for inputs in wanted if all(name in cache.shapes for name in ARRAYS_OF[inputs])]
    if not cached:
        needs = " or ".join(" and ".join(ARRAYS_OF[inputs]) for inputs in wanted)
        raise TrainingError(
            f"{cache.path}: head {name!r} needs {needs}, the cache holds {', '.join(cache.shapes)}",
            hint="avel cache-features STORE CACHE --help names the option that adds them",
        )
    if named:
        audio, visual = ARRAYS_OF[cached[0]]
        return _named_inputs(cache, config, config.audio or audio, config.visual or visual)
    return cached[0]


def _fine_tuned(cache: FeatureCache, config: TrainConfig) -> str:
    """Returns the inputs of a head whose Bi-LSTMs are fine-tuned.

    Raises:
        TrainingError: the head cannot read f_a and f_v, or the cache holds no Bi-LSTMs.
    """
    head = config.head.name
    if "encoded" not in head_class(config).inputs:
        raise TrainingError(
            f"head {head!r} reads no f_a and f_v, so it has no Bi-LSTMs of AV-BT to fine-tune",
            hint="avel heads lists what each head reads",
        )
    if not cache.has_temporal:
        raise TrainingError(
            f"{cache.path}: keeps no Bi-LSTMs to fine-tune",
            hint="avel cache-features STORE NEW_CACHE --encoder RUN --keep-cnn keeps those of an encoder "
            "without AGVA, with the vectors that they read",
        )
    return FINE_TUNED


def replaced_inputs(cache: FeatureCache, config: TrainConfig) -> str:
    """Says that a head's usual inputs are not cached and which ones it reads instead; "" if they are."""
    usual, inputs = head_class(config).inputs[0], choose_inputs(cache, config)
    if config.inputs != "auto" or config.audio or config.visual or inputs == usual:
        return ""
    return f"head {config.head.name}: {usual} inputs are not cached, so it reads {inputs} inputs"


def _named_inputs(cache: FeatureCache, config: TrainConfig, audio: str, visual: str) -> str:
    """Returns inputs as text, audio then visual, several arrays of a modality joined by "+": "clap,clip+f_v".

    Raises:
        TrainingError: the cache holds no such array of that modality, or the head cannot read them.
        StoreError: arrays cannot be joined.
    """
    inputs = f"{audio},{visual}"
    for modality, names in zip(("audio", "visual"), arrays_of(inputs), strict=True):
        cached = [name for name in cache.shapes if cache.modality_of(name) == modality]
        for name in names:
            if name not in cached:
                raise TrainingError(
                    f"{cache.path}: no {modality} features named {name!r}",
                    hint=f"--{modality} takes {', '.join(cached)}, or several joined by +",
                )
        cache.check_joins(names)
        dimensions = len(cache.shapes[names[0]])
        able = {
            VECTOR: modality == "audio" or {"encoded", "cnn"} & {*head_class(config).inputs},
            MAP: modality == "visual" and "maps" in head_class(config).inputs,
        }
        if not able[dimensions]:
            what = "vectors" if dimensions == VECTOR else "maps"
            raise TrainingError(
                f"head {config.head.name!r} reads no {what} as {modality} features, which {names[0]!r} holds",
                hint="avel heads lists what each head reads",
            )
    return inputs


def arrays_of(inputs: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the arrays of inputs, audio and visual; those of a modality are concatenated.

    >>> arrays_of("maps"), arrays_of("clap,clip+f_v")
    ((('cnn_a',), ('maps',)), (('clap',), ('clip', 'f_v')))
    """
    audio, visual = ARRAYS_OF[inputs] if inputs in ARRAYS_OF else inputs.split(",")
    return tuple(audio.split("+")), tuple(visual.split("+"))


def inputs_of(inputs: str, read: Callable[[str], Tensor]) -> tuple[Tensor, Tensor]:
    """Returns audio and visual inputs, of arrays that `read` returns by name: twice (..., T, D), or maps."""
    audio, visual = ([read(name) for name in names] for names in arrays_of(inputs))
    return _joined(audio), _joined(visual)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


@torch.no_grad()
def feature_statistics(
    features: Features, train: Split, temporal: Temporal | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Computes mean and std of each feature over the train videos: "audio", "visual" -> (D,), (D,).

    The features are the inputs, or the output of `temporal` for them.
    """
    chunks = torch.split(torch.unique(train.videos), 64)
    sums = {"audio": torch.zeros(()), "visual": torch.zeros(())}
    for chunk, inputs in zip(chunks, features.batches(chunks), strict=True):
        lengths = features.lengths_of(chunk)
        mask = None if lengths is None else mask_of(lengths, inputs[0].shape[1])
        if temporal is not None:
            inputs = temporal(*inputs, mask)
        for name, values in zip(sums, inputs, strict=True):
            inside = values if mask is None else values[mask]
            flat = inside.flatten(0, -2).double().cpu()
            parts = flat.sum(0), flat.square().sum(0), torch.full_like(flat[0], len(flat))
            sums[name] = sums[name] + torch.stack(parts)
    result = {}
    for name, (total, squares, count) in sums.items():
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        result[name] = (mean.float(), std.float())
    return result


def load_features(cache: FeatureCache, inputs: str, config: TrainConfig, device: torch.device) -> Features:
    """Loads the inputs if they fit into memory; either way every value is read and must be finite."""
    names = [name for of_modality in arrays_of(inputs) for name in of_modality]
    lengths = torch.from_numpy(cache.lengths).to(device) if cache.differing_lengths else None
    wanted = sum(_bytes(cache, name) for name in names)
    limit = free_memory(device) / 2 if config.memory_gb is None else config.memory_gb * 1e9
    if wanted > limit:
        note(f"{cache.path}: {size(wanted)} of features are streamed, memory limit {size(limit)}")
        for name in names:
            for _ in _finite_blocks(cache, (name,)):
                pass
        return Features(cache, inputs, device, None, lengths=lengths)
    audio, visual = (_hold(cache, of_modality, device) for of_modality in arrays_of(inputs))
    return Features(cache, inputs, device, (audio, visual), lengths=lengths)


def _hold(cache: FeatureCache, names: Sequence[str], device: torch.device) -> Tensor:
    """Reads arrays into one tensor, with no more than a block of them in memory twice: (V, T, ...)."""
    values = torch.empty(0)
    for start, block in _finite_blocks(cache, names):
        if not start:
            values = torch.empty((len(cache), *block.shape[1:]), dtype=block.dtype, device=device)
        values[start : start + len(block)] = block
    return values


def _select(values: Tensor, videos: Tensor) -> Tensor:
    """Returns `values[videos]`: (V, T, ...), (...) -> (..., T, ...)."""
    # Indexing by a tensor takes three times as long
    return values.index_select(0, videos.flatten()).view(*videos.shape, *values.shape[1:])


def _bytes(cache: FeatureCache, name: str) -> int:
    """Returns the bytes of an array in the cache."""
    empty = cache.read(name, np.empty(0, np.int64))
    return int(np.prod(cache.shapes[name])) * empty.itemsize


def _split(cache: FeatureCache, task: Task, name: str, device: torch.device) -> Split:
    samples = cache.samples.take(np.flatnonzero(cache.samples.split == name))
    if not len(samples):
        raise TrainingError(
            f"{cache.path}: no sample of split {name!r} has features",
            hint=shlex.join(["avel", "inspect", str(cache.path)]),
        )
    unknown = np.flatnonzero(~samples.labelled)
    if len(unknown) and name != "test":  # here classes suffice; `check_labels` asks for times
        raise TrainingError(
            f"{cache.path}: the events of {len(unknown)} of {len(samples)} {name} samples are not known, "
            f"the first is sample {samples.number[unknown[0]]} "
            f"({cache.video_ids[samples.video[unknown[0]]]})",
            hint="label them, or take them out of the split; only test may lack labels",
        )
    targets = task.targets(cache, samples)
    tensors = (
        torch.from_numpy(values).to(device)
        for values in (samples.video, targets.labels, targets.video_labels)
    )
    ids = np.array(cache.video_ids, object)[samples.video]
    return Split(name, samples.number, ids, samples.leaked, samples.known, targets.has_video_label, *tensors)


def check_labels(cache: FeatureCache, splits: Mapping[str, Split], config: TrainConfig) -> None:
    """Checks that train samples have labels to learn from, and val samples those to choose the epoch by.

    Raises:
        TrainingError: the times of events are needed and not known; the labels of train teach nothing, since
            all are of one class, for example; or no sample has a video label.
        ConfigError: the head cannot learn from that kind of video labels.
    """
    task, train = choose_task(cache, config.task), splits["train"]
    weak_labels = weak_labels_of(config, task.name)
    learns_by_videos, selects_by_videos = weak_labels == "event", config.selects_by_videos(task.name)
    learn_without_times = "--supervision weak" if weak_labels is None else "--weak-labels event"
    for split, by_videos, if_no_times, if_no_video_labels in (
        (train, learns_by_videos, learn_without_times, "--supervision full"),
        (splits["val"], selects_by_videos, "--select-by videos", "--select-by segments"),
    ):
        if by_videos and not split.has_video_label.any():
            raise TrainingError(
                f"{cache.path}: no {split.name} sample has events of one class, so there are no video labels",
                hint=if_no_video_labels,
            )
        if not by_videos and not split.known.all():
            raise TrainingError(
                f"{cache.path}: {int((~split.known).sum())} of {len(split)} {split.name} samples have known "
                "classes, but no known times",
                hint=if_no_times,
            )
    why = task.obstacle(train.to_train_on(weak_labels).video_labels if learns_by_videos else train.labels)
    if why:
        of = "videos of " if learns_by_videos else ""
        raise TrainingError(f"{cache.path}: the train split holds {of}{why}")


def note_left_out(cache: FeatureCache, train: Split) -> None:
    """Notes how many train samples have events of several classes, and so no video label to learn from."""
    left_out = train.number[~train.has_video_label]
    if len(left_out):
        note(
            f"{cache.path}: weak supervision leaves out {len(left_out)} of {len(train)} train samples, "
            f"which have events of several classes; the first is sample {left_out[0]}"
        )


def _finite_blocks(cache: FeatureCache, names: Sequence[str]) -> Iterator[tuple[int, Tensor]]:
    """Yields blocks of videos, arrays joined (n, T, ...), each with the index of its first video.

    Raises:
        TrainingError: a value is not finite.
    """
    count = max(1, BLOCK_BYTES // (sum(_bytes(cache, name) for name in names) // len(cache)))
    for start in range(0, len(cache), count):
        videos = np.arange(start, min(start + count, len(cache)))
        blocks = {name: cache.read(name, videos) for name in names}
        for name, values in blocks.items():
            broken = np.flatnonzero(~np.isfinite(values.reshape(len(videos), -1)).all(1))
            if len(broken):
                video_id = cache.video_ids[start + int(broken[0])]
                raise TrainingError(
                    f"{cache.path}: {name} of video {video_id!r} is not finite", hint="make the cache again"
                )
        yield start, _joined([torch.from_numpy(values) for values in blocks.values()])
