"""What happens in each of the demo's clips, second by second, before anything is drawn or heard."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from avel.errors import ConfigError

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ID_LETTERS = 11
LONGEST_SCENE_SECONDS = 3
WHOLE_CLIP_SHARE = 0.25
SHORTEST_EVENT, LONGEST_EVENT = 0.3, 0.8
"""Shares of the clip, where the event does not fill it."""

Names = tuple[str, ...]
Kind = Literal["seen only", "heard only", "neither", "other sound", "other object"]
BACKGROUNDS: tuple[Kind, ...] = ("seen only", "heard only", "neither", "other sound", "other object")
"""What a background second may hold; in the last two another class sounds, or is shown."""
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Script:
    """One clip: `seen[t]` and `heard[t]` name the classes shown and sounded in second t (T tuples each)."""

    video_id: str
    categories: Names
    start_seconds: int
    end_seconds: int
    seen: tuple[Names, ...]
    heard: tuple[Names, ...]
    split: Split


def write_scripts(clips: int, seed: int, classes: Sequence[str], seconds: int) -> tuple[Script, ...]:
    """`clips` scripts, the classes in turn; the first training clip's event has two classes, as some in AVE.

    The splits hold about 60/20/20 % of the clips, and every class is in each.

    Raises:
        ConfigError: too few clips, classes or seconds for that.
    """
    _check(clips, classes, seconds)
    rng = np.random.default_rng([seed, clips, seconds, zlib.crc32("&".join(classes).encode())])
    kinds = _shuffled_again_and_again(rng, BACKGROUNDS)
    scripts = []
    for clip, split in enumerate(_splits(clips, len(classes))):
        names = tuple(classes[(clip + more) % len(classes)] for more in range(2 if clip == 0 else 1))
        start, end = _bounds(rng, seconds)
        before = _background(rng, kinds, names, classes, start)
        after = _background(rng, kinds, names, classes, seconds - end)
        shown = [*before, *[(names, names)] * (end - start), *after]
        seen, heard = (tuple(side) for side in zip(*shown, strict=True))
        scripts.append(Script(_video_id(rng, clip), names, start, end, seen, heard, split))
    return tuple(scripts)


def _check(clips: int, classes: Sequence[str], seconds: int) -> None:
    if len(set(classes)) < 3 or len(set(classes)) < len(classes):
        raise ConfigError(f"classes={tuple(classes)!r}: needs at least 3 names, each once")
    if clips < 3 * len(classes):
        raise ConfigError(
            f"clips={clips} is too few to put each of {len(classes)} classes into train, val and test",
            hint=f"ask for at least {3 * len(classes)} clips, or for fewer classes",
        )
    if seconds < 3:
        raise ConfigError(f"seconds={seconds} leaves no room for an event and a background; use 3 or more")


def _splits(clips: int, classes: int) -> list[Split]:
    """The split of each clip: a run of at least as many neighbours as there are classes holds them all."""
    held_out = max(classes, round(0.2 * clips))
    counts: dict[Split, int] = {"train": clips - 2 * held_out, "val": held_out, "test": held_out}
    return [split for split, count in counts.items() for _ in range(count)]


def _bounds(rng: np.random.Generator, seconds: int) -> tuple[int, int]:
    """Start and end of an event: the whole clip in a quarter of the cases, as it often is in AVE."""
    whole = rng.random() < WHOLE_CLIP_SHARE
    length = seconds if whole else round(seconds * rng.uniform(SHORTEST_EVENT, LONGEST_EVENT))
    start = int(rng.integers(0, seconds - length + 1))
    return start, start + length


def _background(
    rng: np.random.Generator, kinds: Iterator[Kind], names: Names, classes: Sequence[str], seconds: int
) -> list[tuple[Names, Names]]:
    """What is seen and heard in each background second of a clip about `names`: scenes of one to three."""
    others = [name for name in classes if name not in names]
    shown: list[tuple[Names, Names]] = []
    while len(shown) < seconds:
        other = (others[rng.integers(len(others))],)
        scene: dict[Kind, tuple[Names, Names]] = {
            "seen only": (names, ()),
            "heard only": ((), names),
            "neither": ((), ()),
            "other sound": (names, other),
            "other object": (other, names),
        }
        shown += [scene[next(kinds)]] * int(rng.integers(1, LONGEST_SCENE_SECONDS + 1))
    return shown[:seconds]


def _video_id(rng: np.random.Generator, clip: int) -> str:
    """Eleven letters as the web's ids have them: every fourth starts with `-`, the third with `_`."""
    letters = [ALPHABET[at] for at in rng.integers(len(ALPHABET), size=ID_LETTERS)]
    if clip % 4 == 1 or clip == 2:
        letters[0] = "_" if clip == 2 else "-"
    return "".join(letters)


def _shuffled_again_and_again(rng: np.random.Generator, kinds: Sequence[Kind]) -> Iterator[Kind]:
    while True:
        for at in rng.permutation(len(kinds)):
            yield kinds[at]
