"""Decides what happens in each synthetic clip, second by second."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters, digits

import numpy as np

from avel.errors import ConfigError

LONGEST_SCENE_SECONDS = 3
SHORTEST_EVENT, LONGEST_EVENT = 0.3, 0.7
"""Fractions of the clip that an event fills."""
TEST_FRACTION, VAL_FRACTION = 0.25, 0.15
Names = tuple[str, ...]
Second = tuple[Names, Names]
"""Classes that are shown, and classes that sound."""


@dataclass(frozen=True)
class Script:
    """One clip: `video[t]` and `audio[t]` name the classes shown and sounding in second t (T tuples each).

    Its event is of class `category`, in the seconds that show and sound it.
    """

    video_id: str
    category: str
    video: tuple[Names, ...]
    audio: tuple[Names, ...]
    split: str

    @property
    def event_seconds(self) -> tuple[int, int]:
        """Returns onset and offset of the event."""
        pairs = enumerate(zip(self.video, self.audio, strict=True))
        seconds = [second for second, (video, audio) in pairs if self.category in {*video} & {*audio}]
        return seconds[0], seconds[-1] + 1


def write_scripts(clips: int, seed: int, classes: Sequence[str], seconds: int) -> tuple[Script, ...]:
    """Returns `clips` scripts of one event each, the classes in turn.

    The splits hold about 60, 15 and 25 % of the clips, and every class is in each.

    Raises:
        ConfigError: too few clips, classes or seconds for that.
    """
    _check(clips, classes, seconds)
    test, val = (max(len(classes), round(fraction * clips)) for fraction in (TEST_FRACTION, VAL_FRACTION))
    splits = ["train"] * (clips - val - test) + ["val"] * val + ["test"] * test
    rng = np.random.default_rng([seed, clips, seconds, zlib.crc32("&".join(classes).encode())])
    letters = rng.choice(list(ascii_letters + digits), (clips, 11))
    letters[1::4, 0], letters[2, 0] = "-", "_"  # as some YouTube ids begin
    scripts = []
    for clip, split in enumerate(splits):
        name = classes[clip % len(classes)]
        length = round(seconds * rng.uniform(SHORTEST_EVENT, LONGEST_EVENT))
        start = int(rng.integers(0, seconds - length + 1))
        each_second = _background(rng, name, classes, start)
        each_second += [((name,), (name,))] * length
        each_second += _background(rng, name, classes, seconds - len(each_second))
        video, audio = zip(*each_second, strict=True)
        scripts.append(Script("".join(letters[clip]), name, video, audio, split))
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


def _background(rng: np.random.Generator, name: str, classes: Sequence[str], seconds: int) -> list[Second]:
    """Returns background seconds of a clip about `name`, in scenes of one to three seconds.

    The object appears without sound or with that of another class, or its sound comes without an object or
    with another one, so that neither modality alone tells such a second from the event.
    """
    each_second: list[Second] = []
    while len(each_second) < seconds:
        own, other = (name,), (str(rng.choice([each for each in classes if each != name])),)
        kinds: list[Second] = [(own, ()), ((), own), (own, other), (other, own)]
        each_second += [kinds[rng.integers(len(kinds))]] * int(rng.integers(1, LONGEST_SCENE_SECONDS + 1))
    return each_second[:seconds]
