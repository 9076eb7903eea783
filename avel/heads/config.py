"""Config of the heads; torch-free, because the command line builds its options from it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from avel.config import as_dict, convert, option
from avel.errors import ConfigError

T = TypeVar("T")
REQUIRED = ("lr", "batch_size", "epochs")
"""Settings without which no head is trained."""


@dataclass(frozen=True)
class HeadConfig:
    """Which head, its settings, and how its members are trained.

    A setting that is None takes the head's own default; one the head does not know is refused when given.
    """

    head: str = option("tacma", "Fusion head to train, by name.")
    supervision: Literal["full", "weak"] = option(
        "full", "Learn from the label of every segment, or from the video's event alone."
    )
    inputs: Literal["auto", "encoded", "cnn", "maps"] = option(
        "auto", "What the head reads: f_a and f_v, CNN vectors, or CNN audio vectors and visual maps."
    )
    standardise: bool = option(False, "Shift and scale each feature by its mean and deviation over train.")

    modality: Literal["both", "audio", "visual"] | None = option(
        None, "mlp, bilstm: use both modalities or one."
    )
    merge: Literal["add", "concatenate"] | None = option(
        None, "mlp, bilstm: add the two modalities or concatenate them."
    )
    theta: float | None = option(None, "tacma: decay of attention with time difference, Eq. 4.", low=0)
    routing: Literal["cross", "printed"] | None = option(
        None, "tacma: which values each attention map weights; printed is Eq. 6 to the letter."
    )
    d_h: int | None = option(None, "tacma: width of queries and keys.", low=1)
    d_e: int | None = option(None, "tacma: width of the fused features.", low=1)
    threshold: float | None = option(None, "psp: attention that a pair must exceed to count.", low=0, high=1)
    pair_loss: float | None = option(
        None, "psp: weight of the pair-similarity loss; 0 trains without.", low=0
    )
    dropout: float | None = option(None, "psp: share of activations dropped in training.", low=0, high=0.99)
    fusion: Literal["concatenate", "dmrn"] | None = option(None, "avel: how the two streams are fused.")

    lr: float | None = option(None, "Learning rate of Adam at the start.", low=0)
    decay: float | None = option(None, "Factor on the learning rate at each step of its schedule.", low=0)
    decay_every: int | None = option(None, "Epochs between two steps of the schedule.", low=1)
    decay_after: tuple[int, ...] | None = option(None, "Epochs after which the schedule steps.", low=1)
    batch_size: int | None = option(None, "Clips in a batch; the last, smaller one is trained on too.", low=1)
    epochs: int | None = option(None, "Passes over the train rows.", low=1)
    patience: int = option(
        0, "Epochs without a better validation accuracy before a member stops; 0 never.", low=0
    )

    seed: int = option(0, "Seed of the first member.", low=0)
    seeds: int = option(1, "Members to train, with consecutive seeds.", low=1)
    dtype: Literal["float32", "bfloat16"] = option("float32", "Arithmetic of the matrix products.")
    device: str = option("auto", "cpu, cuda or auto.", numeric=False)
    together: Literal["auto", "always", "never"] = option(
        "auto", "Train members as one batched program, or in turn; auto takes the faster.", numeric=False
    )
    memory_gb: float | None = option(
        None,
        "Features larger than this are streamed; half of the free memory if not given.",
        numeric=False,
        low=0,
    )


def checked(config: HeadConfig) -> HeadConfig:
    """The config with each field of its type and within its bounds, whoever made it.

    Raises:
        ConfigError: a field that is neither.
    """
    fields = as_dict(config).items()
    return HeadConfig(**{name: convert(HeadConfig, name, value, "HeadConfig") for name, value in fields})


def with_defaults(config: HeadConfig, defaults: Mapping[str, Any]) -> HeadConfig:
    """The config with the head's own defaults in the place of None.

    Raises:
        ConfigError: a setting was given that this head does not know; defaults that are not whole.
    """
    unknown = sorted(set(defaults) - set(open_settings()))
    if unknown:
        raise ConfigError(
            f"head {config.head!r} has defaults for {', '.join(unknown)}, which are no settings of a head",
            hint=f"a head can have {', '.join(open_settings())}",
        )
    without = [name for name in REQUIRED if defaults.get(name) is None]
    if without:
        raise ConfigError(
            f"head {config.head!r} has no default for {', '.join(without)}", hint="add it to its `defaults`"
        )
    for name in open_settings():
        value = getattr(config, name)
        if value is not None and name not in defaults:
            raise ConfigError(
                f"head {config.head!r} has no setting {name} (given: {value})",
                hint=f"it knows {', '.join(sorted(defaults))}",
            )
    missing = {name: value for name, value in defaults.items() if getattr(config, name) is None}
    return dataclasses.replace(config, **missing)


def settled(value: T | None) -> T:
    """A setting that the head's defaults hold, so that it is not None in a resolved config."""
    assert value is not None
    return value


def open_settings() -> tuple[str, ...]:
    """Names of the fields whose default is the head's affair."""
    shared = ("memory_gb",)
    return tuple(
        field.name
        for field in dataclasses.fields(HeadConfig)
        if field.default is None and field.name not in shared
    )
