"""Samples of feature caches, made from the labels that they are to have."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from avel.stores.cached_samples import CachedSamples
from avel.stores.datasets.labels import ClassTable, EventTable, take


def events_of(label: Any, background: int, segment_seconds: float = 1.0) -> EventTable:
    """One event for each run of a class in labels (R, T); -1 and background are none."""
    found = []
    for sample, row in enumerate(np.asarray(label).tolist()):
        onset = 0
        for segment in range(1, len(row) + 1):
            if segment == len(row) or row[segment] != row[onset]:
                if row[onset] not in (-1, background):
                    found.append((sample, row[onset], onset * segment_seconds, segment * segment_seconds))
                onset = segment
    columns = list(zip(*found, strict=True)) if found else [()] * 4
    return EventTable(
        *(np.array(column, kind) for column, kind in zip(columns, (int, int, float, float), strict=True)),
        modality=np.zeros(len(found), int),
    )


def cached_samples(
    label: Any,
    background: int,
    *,
    number: Any = None,
    video: Any = None,
    split: Sequence[str] | None = None,
    leaked: Any = None,
    known: Any = None,
    events: EventTable | None = None,
    tag: Sequence[str] | None = None,
    classes: ClassTable | None = None,
) -> CachedSamples:
    """R samples with labels (R, T); by default numbered from 0, each of its own video, in train."""
    label = np.asarray(label)
    count = len(label)
    known = (label != -1).all(1) if known is None else np.asarray(known)
    events = events_of(label, background) if events is None else events
    return CachedSamples(
        number=np.arange(count) if number is None else np.asarray(number),
        video=np.arange(count) if video is None else np.asarray(video),
        split=np.array(["train"] * count if split is None else split, object),
        leaked=np.zeros(count, bool) if leaked is None else np.asarray(leaked),
        known=known,
        events=take(events, known[events.sample]),
        tag=np.array([""] * count if tag is None else tag, object),
        classes=classes or ClassTable(np.zeros(count, bool), *np.zeros((2, 0), np.int64)),
    )
