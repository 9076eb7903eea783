"""Decides what happens in each synthetic clip, second by second."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from string import ascii_letters, digits
from typing import Literal

import numpy as np

from avel.errors import ConfigError
from avel.stores.datasets.sample import MODALITIES, Event, Modality

LONGEST_SCENE_SECONDS = 3
SHORTEST_EVENT, LONGEST_EVENT = 0.3, 0.7
"""Fractions of the clip that an event fills."""
TEST_FRACTION, VAL_FRACTION = 0.25, 0.15
Names = tuple[str, ...]
Second = tuple[Names, Names]
"""Classes that are shown, and classes that sound."""
Course = Literal["one", "runs", "mixed", "overlapping", "parsing"]
"""Events of a clip. "one": one event; "runs": none to three of one class; "mixed": one to three of any class;
"overlapping": two that overlap; "parsing": three of any classes at any times, one audible alone, one visible
alone, one both."""
MOST_EVENTS = 3


@dataclass(frozen=True)
class Script:
    """One clip: `video[t]` and `audio[t]` name the classes shown and sounding in second t (T tuples each).

    `category` is the class that the clip is about, also where it has no event.
    """

    video_id: str
    category: str
    video: tuple[Names, ...]
    audio: tuple[Names, ...]
    split: str

    @property
    def events(self) -> tuple[Event, ...]:
        """Events in order of time: seconds in which a class is both shown and sounds."""
        return _events([set(video) & set(audio) for video, audio in zip(self.video, self.audio, strict=True)])

    @property
    def audio_events(self) -> tuple[Event, ...]:
        """Seconds in which a class sounds, shown or not."""
        return _events(list(map(set, self.audio)), "audio")

    @property
    def visual_events(self) -> tuple[Event, ...]:
        """Seconds in which a class is shown, with or without its sound."""
        return _events(list(map(set, self.video)), "visual")


def _events(classes: Sequence[set[str]], modality: Modality = "both") -> tuple[Event, ...]:
    """Returns the runs of seconds that hold a class, in order of time."""
    events = []
    for name in sorted(set[str]().union(*classes)):
        second = 0
        for is_event, run in groupby(name in names for names in classes):
            end = second + len(list(run))
            if is_event:
                events.append(Event(name, second, end, modality=modality))
            second = end
    return tuple(sorted(events, key=lambda event: event.onset_seconds))


def write_scripts(
    clips: int,
    seed: int,
    classes: Sequence[str],
    seconds: int,
    course: Course = "one",
    unseen: int = 0,
) -> tuple[Script, ...]:
    """Returns `clips` scripts, the classes in turn.

    The splits hold about 60, 15 and 25 % of the clips, and every class is in each; but train has none of the
    last `unseen` classes.

    Raises:
        ConfigError: too few clips, classes or seconds for that.
    """
    _check(clips, classes, seconds)
    test, val = (max(len(classes), round(fraction * clips)) for fraction in (TEST_FRACTION, VAL_FRACTION))
    splits = ["train"] * (clips - val - test) + ["val"] * val + ["test"] * test
    drawn = "&".join((*classes, *(() if course == "one" else (course,))))
    rng = np.random.default_rng([seed, clips, seconds, zlib.crc32(drawn.encode())])
    letters = rng.choice(list(ascii_letters + digits), (clips, 11))
    letters[1::4, 0], letters[2, 0] = "-", "_"  # as some YouTube ids begin
    scripts = []
    for clip, split in enumerate(splits):
        there = classes[: len(classes) - unseen] if split == "train" else classes
        name = there[clip % len(there)]
        scenes = (
            _parsing(rng, name, there, seconds)
            if course == "parsing"
            else _scenes(rng, name, there, seconds, course)
        )
        video, audio = (tuple(side) for side in zip(*scenes, strict=True))
        scripts.append(Script("".join(letters[clip]), name, video, audio, split))
    return tuple(scripts)


def _parsing(rng: np.random.Generator, name: str, classes: Sequence[str], seconds: int) -> list[Second]:
    """Returns the seconds of a clip with an event of each modality, the first of them of `name`."""
    modalities = [str(each) for each in rng.permutation(MODALITIES)]
    names = (name, *(str(rng.choice(classes)) for _ in modalities[1:]))
    spans = [_cuts(rng, 2, seconds) for _ in names]
    events = list(zip(names, modalities, spans, strict=True))

    def classes_of(second: int, lacking: Modality) -> Names:
        """Returns the classes of a second's events, without those in the modality `lacking` alone."""
        names_of = {
            category
            for category, modality, (start, end) in events
            if modality != lacking and start <= second < end
        }
        return tuple(sorted(names_of))

    return [(classes_of(second, "audio"), classes_of(second, "visual")) for second in range(seconds)]


def _scenes(
    rng: np.random.Generator, name: str, classes: Sequence[str], seconds: int, course: Course
) -> list[Second]:
    """Returns the seconds of a clip whose events are both shown and heard."""
    scenes: list[Second] = []
    for names, run in groupby(_happening(rng, name, classes, seconds, course)):
        length = len(list(run))
        scenes += [(names, names)] * length if names else _background(rng, name, classes, length)
    return scenes


def _happening(
    rng: np.random.Generator, name: str, classes: Sequence[str], seconds: int, course: Course
) -> list[Names]:
    """Returns the classes that have an event in each second of a clip about `name`."""
    if course == "one":
        length = round(seconds * rng.uniform(SHORTEST_EVENT, LONGEST_EVENT))
        start = int(rng.integers(0, seconds - length + 1))
        events = [(name, start, start + length)]
    elif course == "overlapping":
        other = str(rng.choice([each for each in classes if each != name]))
        first, second, third, last = _cuts(rng, 4, seconds)
        events = [(name, first, third), (other, second, last)]
    else:
        most = min(MOST_EVENTS, (seconds + 1) // 2)
        cuts = _cuts(rng, 2 * int(rng.integers(course == "mixed", most + 1)), seconds)
        spans = list(zip(cuts[::2], cuts[1::2], strict=True))
        others = [str(rng.choice(classes)) for _ in spans[1:]] if course == "mixed" else [name] * len(spans)
        events = [(each, *span) for each, span in zip((name, *others), spans, strict=False)]
    return [tuple(each for each, start, end in events if start <= second < end) for second in range(seconds)]


def _cuts(rng: np.random.Generator, count: int, seconds: int) -> list[int]:
    """Draws `count` different times of a clip in whole seconds, from 0 to its end, and sorts them."""
    return sorted(rng.choice(seconds + 1, count, replace=False).tolist())


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
    scenes: list[Second] = []
    while len(scenes) < seconds:
        own, other = (name,), (str(rng.choice([each for each in classes if each != name])),)
        kinds: list[Second] = [(own, ()), ((), own), (own, other), (other, own)]
        scenes += [kinds[rng.integers(len(kinds))]] * int(rng.integers(1, LONGEST_SCENE_SECONDS + 1))
    return scenes[:seconds]
