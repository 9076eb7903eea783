"""`avel heads`: lists the heads and the settings of each."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from avel.config import resolve, settings_of
from avel.heads.config import HEADS, HeadConfig, TrainConfig
from avel.heads.models.head import Published, Widths, build_model, head_class
from avel.heads.tasks.multi_label import MultiLabel
from avel.heads.tasks.single_label import SingleLabel
from avel.text import describe, table
from avel.values import default_text

AVE_WIDTHS = {
    "encoded": Widths(256, 256, 29, segments=10),
    "cnn": Widths(128, 512, 29, segments=10),
    "maps": Widths(128, 512, 29, cells=49, segments=10),
}
"""Inputs -> their sizes on AVE: features of AV-BT, or of VGGish and VGG-19; 28 events and background."""
LLP_LABELS: dict[str, Any] = {"classes": 50, "task": MultiLabel.name, "tracks": 2}
"""Sizes on LLP that differ: 25 classes in audio and visual each."""


@dataclass(frozen=True)
class HeadInfo:
    """One head.

    Attributes:
        reads: inputs that it can read, the best first.
        tasks: names of the tasks that it can be trained for.
        weak: whether it can learn from video labels.
        takes_differing_lengths: whether the clips may differ in length.
        segments: numbers of segments that the longest clip may have, in words.
        parameters: number of them on AVE with the first of `reads`; on LLP if the head does parsing alone.
        source: the publication.
        published: what was reported for it on AVE.
    """

    name: str
    reads: tuple[str, ...]
    tasks: tuple[str, ...]
    weak: bool
    takes_differing_lengths: bool
    segments: str
    parameters: int
    source: str
    summary: str
    published: tuple[Published, ...]


@dataclass(frozen=True)
class SettingInfo:
    """One setting of a head: its type and bounds in words, its default, and that under weak supervision."""

    name: str
    type: str
    default: Any
    weak_default: Any
    help: str


@dataclass(frozen=True)
class HeadDescription:
    """A head with all its settings, its own before those that every head has."""

    head: HeadInfo
    settings: tuple[SettingInfo, ...]


def list_heads() -> tuple[HeadInfo, ...]:
    """Lists every head, avel's own and those of other packages, by name.

    >>> [head.name for head in list_heads()][:3]
    ['avel', 'avin', 'avrb_style']
    """
    return tuple(_info(name) for name in HEADS)


def describe_head(name: str) -> HeadDescription:
    """Returns a head and its settings, by its name or by the file that registers it.

    Raises:
        UnknownNameError: no such head.
    """
    name = HEADS.named(name)
    config = HEADS[name].Config()
    common = {setting.name for setting in settings_of(HeadConfig)}
    ordered = sorted(settings_of(config), key=lambda setting: setting.name in common)
    settings = (
        SettingInfo(
            each.name,
            ", ".join(filter(None, (describe(each.value_type), each.bounds))),
            each.of(config),
            config.weak_defaults.get(each.name, each.of(config)),
            each.help,
        )
        for each in ordered
    )
    return HeadDescription(_info(name), tuple(settings))


def head_lines(heads: tuple[HeadInfo, ...]) -> list[str]:
    """Returns the heads as a table for people."""
    rows = [
        (
            head.name,
            " ".join(head.reads),
            " ".join(head.tasks),
            "yes" if head.weak else "no",
            head.segments if head.takes_differing_lengths else "one",
            f"{head.parameters:,}",
            head.source,
        )
        for head in heads
    ]
    return table(("head", "reads, best first", "tasks", "weak", "lengths", "parameters", "source"), rows)


def setting_lines(described: HeadDescription) -> list[str]:
    """Returns a head and its settings for people."""
    head = described.head
    rows = [
        (
            each.name,
            each.type,
            default_text(each.default),
            "" if each.weak_default == each.default else default_text(each.weak_default),
            each.help,
        )
        for each in described.settings
    ]
    about = f"{head.name}: {head.summary} ({head.source})"
    reported = [
        f"reported on AVE, {each.supervision}: {each} ({each.features}; {each.source})"
        for each in head.published
    ]
    return [about, *reported, "", *table(("setting", "type", "default", "if weak", "meaning"), rows)]


def _info(name: str) -> HeadInfo:
    config = resolve(TrainConfig, "train-head", options={"head": name})
    head = head_class(config)
    widths = AVE_WIDTHS[head.inputs[0]]
    if SingleLabel.name not in head.tasks:
        widths = replace(widths, **LLP_LABELS)
    with torch.device("meta"):
        model = build_model(config, widths, 0)
    return HeadInfo(
        name,
        head.inputs,
        head.tasks,
        head.weak,
        head.takes_differing_lengths,
        "any" if head.segments is None else f"{head.segments[0]} to {head.segments[-1]}",
        sum(parameter.numel() for parameter in model.parameters()),
        head.source,
        (head.__doc__ or "").split("\n")[0],
        head.published,
    )
