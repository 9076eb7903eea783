"""Caches of clips whose events are audible, visible or both, several at once, with a known answer."""

from pathlib import Path

import numpy as np

from avel.stores.datasets.labels import ClassTable, EventTable
from avel.stores.features import write_features
from tests.samples import cached_samples

SAMPLES, T, C = 60, 6, 3
AUDIO, VISUAL = 1, 2


def random_events(seed: int = 0, samples: int = SAMPLES) -> EventTable:
    """One to three events a clip, of any class and modality; some overlap."""
    random = np.random.default_rng(seed)
    found = []
    for sample in range(samples):
        for _ in range(random.integers(1, 4)):
            onset = random.integers(0, T - 1)
            found.append(
                (sample, random.integers(C), onset, random.integers(onset + 1, T + 1), random.integers(3))
            )
    columns = zip(*found, strict=True)
    kinds = (int, int, float, float, int)
    return EventTable(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))


def longhand_labels(events: EventTable, samples: int = SAMPLES) -> np.ndarray:
    """Whether a class is in a segment, (R, T, M, C) for audio and visual; onsets and offsets are whole."""
    labels = np.zeros((samples, T, 2, C), int)
    for sample, number, onset, offset, modality in zip(
        events.sample,
        events.category,
        events.onset_seconds,
        events.offset_seconds,
        events.modality,
        strict=True,
    ):
        for track, only in enumerate((AUDIO, VISUAL)):
            if modality in (0, only):
                labels[sample, int(onset) : int(offset), track, number] = 1
    return labels


def write_parsing_cache(
    path: Path,
    *,
    events: EventTable | None = None,
    weak_train: bool = True,
    noise: float = 0.3,
    seed: int = 0,
) -> Path:
    """Features are sums of the prototypes of what is heard, or seen; 36, 12 and 12 clips in the splits.

    With `weak_train` only the classes of train clips are known.
    """
    random = np.random.default_rng(seed)
    events = random_events(seed) if events is None else events
    labels = longhand_labels(events)
    known = np.arange(SAMPLES) >= (36 if weak_train else 0)
    weak = ~known[events.sample]
    classes = ClassTable(~known, events.sample[weak], events.category[weak])
    arrays = {}
    for track, name in enumerate(("f_a", "f_v")):
        prototypes = random.normal(size=(C, 12))
        arrays[name] = labels[:, :, track] @ prototypes + noise * random.normal(size=(SAMPLES, T, 12))
    write_features(
        path,
        video_ids=tuple(f"clip{number}" for number in range(SAMPLES)),
        categories=("bark", "bell", "saw"),
        samples=cached_samples(
            np.zeros((SAMPLES, T), int),
            C,
            split=np.repeat(["train", "val", "test"], (36, 12, 12)),
            known=known,
            events=events,
            classes=classes,
        ),
        arrays=arrays,
        provenance={"made by": "the tests"},
    )
    return path
