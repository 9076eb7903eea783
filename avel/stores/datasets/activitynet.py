"""ActivityNet's JSON, also that of UnAV-100: `{"database": {id: {"subset", "duration", "annotations"}}}`.

An annotation is `{"segment": [onset, offset], "label": class}`, in seconds.
Sources: http://activity-net.org (Caba Heilbron et al. 2015); https://github.com/ttgeng233/UnAV (Geng et al.
2023), whose loader reads these keys and the subsets train, validation and test.
"""

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avel.config import option
from avel.errors import DatasetError
from avel.stores.datasets.annotation_text import read_json
from avel.stores.datasets.dataset import Dataset, make_dataset
from avel.stores.datasets.formats import FORMATS, DatasetFormat, only_file
from avel.stores.datasets.media import MediaConfig, match_media, media_files
from avel.stores.datasets.sample import Annotated, Event, Sample

PATTERNS = ("*annotations.json", "activity_net*.json")
NAMES = " or ".join(PATTERNS)
SPLIT_OF = {
    "train": "train",
    "training": "train",
    "val": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "": "",
}
"""Subset, in any case -> split."""
SUBSET_OF = {"train": "train", "val": "validation", "test": "test", "": ""}


@FORMATS.register("activitynet")
class ActivityNet(DatasetFormat["ActivityNet.Config"]):
    """A folder with ActivityNet's JSON: videos of any length, with any number of events, which may overlap.

    Clips have lengths of their own, up to the longest duration in the JSON.

    Where no video of a subset has an annotation, as in ActivityNet's own test subset, the events of its
    videos are not known. An annotation that is there twice counts once.
    """

    annotations_ending = ".json"

    @dataclass(frozen=True)
    class Config(MediaConfig):
        """Settings of ActivityNet's JSON."""

        annotations: Path | None = option(None, "JSON of the events.", shown=f"{NAMES}, also in annotations/")

    @staticmethod
    def matches(folder: Path) -> bool:
        return bool(_files(folder))

    def read(self, folder: Path) -> Dataset:
        """Returns a sample for each video of the database.

        Raises:
            MissingPathError: no such JSON.
            DatasetError: several of them, or an entry that cannot be read, with its video.
        """
        path = self.config.annotations or only_file(
            _files(folder), folder, NAMES, "--format activitynet --annotations "
        )
        held = read_json(path)
        database = held.get("database") if isinstance(held, dict) else None
        if not isinstance(database, dict):
            raise DatasetError(f'{path}: holds no {{"database": {{...}}}}', hint="name another JSON")
        samples = _unknown_without_events(
            _sample(number, str(video_id), entry, f"{path}: {video_id}")
            for number, (video_id, entry) in enumerate(database.items())
        )
        files = media_files(self.config.videos or folder)
        for name in [name for name in files if name.startswith("v_") and name not in database]:
            files.setdefault(name.removeprefix("v_"), []).extend(files.pop(name))  # v_X.mp4 is video X
        videos, extra = match_media(samples, files)
        stated = {sample.video_id: _duration(database[sample.video_id], sample.where) for sample in samples}
        known = {video_id: seconds for video_id, seconds in stated.items() if seconds is not None}
        return make_dataset(folder.resolve().name, folder, samples, videos, extra, stated_seconds=known)


def activitynet_text(clips: Iterable[Annotated]) -> str:
    """Returns clips with their events as ActivityNet's JSON, which `ActivityNet` reads; scores as "score".

    A clip whose events are not known gets no "annotations".
    """
    database: dict[str, Any] = {}
    for clip in clips:
        entry: dict[str, Any] = {"subset": SUBSET_OF[clip.split], "duration": clip.seconds}
        if clip.events is not None:
            scores = clip.scores or [None] * len(clip.events)
            entry["annotations"] = [
                {"segment": [event.onset_seconds, event.offset_seconds], "label": event.category}
                | ({} if score is None else {"score": score})
                for event, score in zip(clip.events, scores, strict=True)
            ]
        database[clip.video_id] = entry
    return json.dumps({"version": "avel", "database": database}, indent=1) + "\n"


def _files(folder: Path) -> list[Path]:
    places = (folder, folder / "annotations")
    return sorted({path for place in places for pattern in PATTERNS for path in place.glob(pattern)})


def _sample(number: int, video_id: str, entry: Any, where: str) -> Sample:
    if not isinstance(entry, dict) or not isinstance(entry.get("annotations", []), list):
        raise DatasetError(f'{where}: {entry!r} is not {{"subset", "duration", "annotations"}}')
    subset = str(entry.get("subset", ""))
    if subset.lower() not in SPLIT_OF:
        raise DatasetError(
            f"{where}: subset {subset!r} is none of {', '.join(filter(None, SPLIT_OF))}",
            hint="write one of these",
        )
    events = tuple(
        _event(each, f"{where}: annotation {place}")
        for place, each in enumerate(entry.get("annotations", []), start=1)
    )
    known = tuple(dict.fromkeys(events)) if "annotations" in entry else None
    return Sample(number, video_id, known, split=SPLIT_OF[subset.lower()], where=where)


def _duration(entry: dict[str, Any], where: str) -> float | None:
    """Returns the length of a video in seconds, None where the entry has none."""
    duration = entry.get("duration")
    if duration is None:
        return None
    is_number = isinstance(duration, int | float) and not isinstance(duration, bool)
    if not is_number or not 0 < duration <= sys.float_info.max:
        raise DatasetError(f"{where}: duration {duration!r} is not a length", hint="give it in seconds")
    return float(duration)


def _event(annotation: Any, where: str) -> Event:
    try:
        category = annotation["label"]
        onset, offset = (float(each) for each in annotation["segment"])
        if not isinstance(category, str) or not math.isfinite(onset + offset):
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):
        raise DatasetError(
            f'{where}: {annotation!r} is not {{"segment": [onset, offset], "label": class}}'
        ) from None
    return Event(category, onset, offset, where)


def _unknown_without_events(found: Iterable[Sample]) -> tuple[Sample, ...]:
    """Returns the samples; in a split without any event, the events of all samples become unknown."""
    samples = tuple(found)
    annotated = {sample.split for sample in samples if sample.events}
    return tuple(sample if sample.split in annotated else replace(sample, events=None) for sample in samples)
