"""Takes the weights of a published network: names of its state dict, mapped to those of a head of avel."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from avel.errors import ConfigError
from avel.stores.tensors import SAVE_STATE, state_in

SHOWN_NAMES = 4


@dataclass(frozen=True)
class Layout:
    """Names of a published network's state dict.

    Attributes:
        code: the public repository, and the class in it.
        names: module or tensor of the head -> its published name; a tensor's own name counts before those of
            the modules that hold it, an inner module before an outer one.
        unused: modules and tensors of the published network that reach no output, and are left out.
        head_only: tensors of the head that the published network does not have, and that keep their values.
        changed: tensor of the head -> function that makes it of the published one.
    """

    code: str
    names: Mapping[str, str]
    unused: tuple[str, ...] = ()
    head_only: tuple[str, ...] = ()
    changed: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)

    def name_of(self, own: str) -> str:
        """Returns the published name of one of the head's tensors."""
        parts = own.split(".")
        for end in range(len(parts), 0, -1):
            if (found := self.names.get(".".join(parts[:end]))) is not None:
                return ".".join([found, *parts[end:]])
        return own


def plain_state(state: object) -> dict[str, Tensor]:
    """Returns the state dict that a checkpoint holds, names without the "module." of torch's DataParallel.

    Raises:
        ConfigError: it holds none.
    """
    if not (tensors := state_in(state)):
        raise ConfigError(f"holds a {type(state).__name__}, no state dict", hint=SAVE_STATE)
    return tensors


def load_layout(module: nn.Module, layout: Layout, state: Mapping[str, Tensor]) -> None:
    """Copies a published network's tensors, of any dtype and named as `plain_state` names them, into a head.

    Raises:
        ConfigError: tensors are missing, have another shape, or have no place in the head; then nothing is
            changed.
    """
    own = {name: value for name, value in module.state_dict().items() if name not in layout.head_only}
    theirs = {name: layout.name_of(name) for name in own}
    missing = [other for other in theirs.values() if other not in state]
    unused = tuple(f"{name}." for name in layout.unused)
    surplus = [name for name in state if name not in theirs.values() and not f"{name}.".startswith(unused)]
    wrong = []
    taken: dict[str, Tensor] = {}
    for name, other in theirs.items():
        if other in state:
            value = state[other]
            if name in layout.changed:
                try:
                    value = layout.changed[name](value)
                except (RuntimeError, IndexError):  # of another number of dimensions or elements
                    wrong.append(f"{other} {tuple(value.shape)}")
                    continue
            if value.shape != own[name].shape:
                wrong.append(f"{other} {tuple(state[other].shape)}, the head has {tuple(own[name].shape)}")
            taken[name] = value
    faults = [
        f"{len(names)} {what}: {', '.join(names[:SHOWN_NAMES])}{', ...' * (len(names) > SHOWN_NAMES)}"
        for what, names in (("missing", missing), ("without a place", surplus), ("of another shape", wrong))
        if names
    ]
    if faults:
        raise ConfigError(
            f"not the state dict of {layout.code}: " + "; ".join(faults),
            hint="the head must be the same network: the same supervision, settings, inputs and classes",
        )
    with torch.no_grad():
        for name, value in taken.items():
            own[name].copy_(value)


def nested(prefix: str, names: Mapping[str, str], own: str = "") -> dict[str, str]:
    """Puts a prefix before the published names, and one before the head's.

    >>> nested("att.", {"score": "affine_h"}, own="agva.")
    {'agva.score': 'att.affine_h'}
    """
    return {own + name: prefix + other for name, other in names.items()}


AGVA_NAMES = {
    "video.0": "affine_video",
    "audio.0": "affine_audio",
    "video_score": "affine_v",
    "audio_score": "affine_g",
    "score": "affine_h",
}
"""Names in AVEL's audio-guided attention, which many of the other codes copied."""
ATTENTION_NAMES = {"attention": "self_attn", "feedforward.0": "linear1", "feedforward.3": "linear2"}
"""Names in PyTorch's Transformer layer."""
