"""Runs a trained head again for its attention maps and fused vectors."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avel.heads.models.head import Model
from avel.heads.models.parts import AttentionMap, ClassifierMLP
from avel.heads.training.data import inputs_of
from avel.heads.training.fit import CLIPS_AT_ONCE
from avel.heads.training.records import load_model
from avel.views.reading import HeadRun


@dataclass(frozen=True)
class Inside:
    """Inner values of one trial on R clips; those after the end of a clip mean nothing.

    Attributes:
        fused: (R, T, D) the head's extra `fused`, else the input of its classification layer; the vectors of
            several tracks are concatenated.
        attention: the head's attention maps: (R, T, T), over cells (R, T, N), or of the clip (R, 1, T).
    """

    fused: NDArray[np.float32]
    attention: dict[AttentionMap, NDArray[np.float32]]


def look_inside(run: HeadRun, trial: int, places: NDArray[np.int64]) -> Inside:
    """Runs one trial on R samples, by their indices in the arrays of `run`, on the CPU.

    Raises:
        StoreError: the trial's weights or the cached features are gone.
    """
    record = run.records[trial]
    model = load_model(run.run, record)
    fused: list[Tensor] = []
    layer_inputs: list[Tensor] = []
    layer = classification_layer(model)
    hook = layer.register_forward_pre_hook(lambda _, inputs: layer_inputs.append(inputs[0]))
    maps: dict[AttentionMap, list[Tensor]] = {each: [] for each in model.head.attention_maps}
    videos = videos_of(run, places)
    for start in range(0, len(videos), CLIPS_AT_ONCE):
        batch = videos[start : start + CLIPS_AT_ONCE]
        audio, visual = inputs_of(record.inputs, partial(_read, run, batch))
        lengths = torch.from_numpy(run.cache.lengths[batch]) if run.cache.differing_lengths else None
        with torch.inference_mode():
            extras = model(audio, visual, lengths).extras
        fused.append((extras["fused"] if "fused" in extras else layer_inputs[-1]).float())
        for each, parts in maps.items():
            if each.name in extras:  # maps over cells are there only where the cache has visual maps
                values = extras[each.name].float()
                parts.append(values if values.ndim == 3 else values.unsqueeze(1))
    hook.remove()
    attention = {each: torch.cat(parts).numpy() for each, parts in maps.items() if parts}
    return Inside(torch.cat(fused).flatten(2).numpy(), attention)


def _read(run: HeadRun, videos: NDArray[np.int64], name: str) -> Tensor:
    return torch.from_numpy(run.cache.read(name, videos)).float()


def classification_layer(model: Model) -> nn.Module:
    """Returns the layer that turns fused vectors into scores: the three-layer MLP, else the last Linear."""
    modules = list(model.head.modules())
    mlps = [module for module in modules if isinstance(module, ClassifierMLP)]
    return mlps[0] if mlps else [module for module in modules if isinstance(module, nn.Linear)][-1]


def videos_of(run: HeadRun, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the indices in the cache of the videos of R samples: (R,) -> (R,)."""
    samples = run.cache.samples
    video_of = dict(zip(samples.number.tolist(), samples.video.tolist(), strict=True))
    return np.array([video_of[number] for number in run.number[places].tolist()], np.int64)
