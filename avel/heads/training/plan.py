"""Which members a sweep has, and which of them can be trained as one program."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avel.config import convert
from avel.errors import ConfigError
from avel.heads.config import HeadConfig
from avel.heads.models.head import HEADS, resolve_head
from avel.heads.training.members import Member


@dataclass(frozen=True)
class Planned:
    """A member of a sweep and the settings that set it apart, seed aside."""

    member: Member
    settings: dict[str, Any]


def plan(base: HeadConfig, settings: Mapping[str, Sequence[Any]]) -> list[Planned]:
    """The members of a sweep, all combinations by all seeds.

    Raises:
        ConfigError: a setting without values, or one that the head does not know; two members alike.
    """
    for key, values in settings.items():
        if key in ("seed", "seeds"):
            raise ConfigError(f"a sweep over {key!r}", hint="--seeds sets how many seeds, --seed the first")
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise ConfigError(
                f"a sweep over {key!r} with {values!r}, which is no list",
                hint=f'{{"{key}": [{values!r}]}} is one',
            )
        if not values:
            raise ConfigError(f"a sweep over {key!r} without values", hint="--set theta=0,0.03 has two")
    planned: dict[HeadConfig, Planned] = {}
    for values in itertools.product(*settings.values()):
        chosen = {
            key: convert(HeadConfig, key, value, "--set") for key, value in zip(settings, values, strict=True)
        }
        config = resolve_head(dataclasses.replace(base, **chosen))
        for seed in range(base.seed, base.seed + base.seeds):
            name = ",".join(f"{key}={value}" for key, value in (chosen | {"seed": seed}).items())
            member = Member(name, dataclasses.replace(config, seed=seed, seeds=1))
            if member.config in planned:
                twin = planned[member.config].member.name
                raise ConfigError(f"a sweep that trains {twin} again as {name}", hint="give each value once")
            planned[member.config] = Planned(member, chosen)
    return list(planned.values())


def groups_of(planned: Sequence[Planned], stacks: Callable[[HeadConfig], bool]) -> list[list[Planned]]:
    """Members that are trained as one program: alike but for seed and what their head keeps as buffers."""
    groups: dict[Any, list[Planned]] = {}
    for item in planned:
        config = item.member.config
        free: dict[str, Any] = {"seed": 0} | dict.fromkeys(HEADS[config.head].buffered)
        alike = dataclasses.replace(config, **free)
        key = alike if stacks(config) else item.member.name
        groups.setdefault(key, []).append(item)
    return list(groups.values())
