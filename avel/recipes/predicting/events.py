"""Events of a video, and the formats in which they are written, also those of other tools and datasets."""

import csv
import html
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from avel.heads.tasks.parsing_metrics import find_runs
from avel.heads.tasks.task import Task
from avel.stores.datasets.activitynet import activitynet_text
from avel.stores.datasets.desed import desed_text
from avel.stores.datasets.sample import Annotated, Event
from avel.text import csv_cell, table


@dataclass(frozen=True)
class FoundEvent:
    """An event that a head found.

    Attributes:
        probability: mean probability of the class over the event's segments.
        track: "audio" or "visual" where these are told apart, else "".
    """

    start_seconds: float
    end_seconds: float
    category: str
    probability: float
    track: Literal["", "audio", "visual"] = ""

    @property
    def name(self) -> str:
        """Returns the class, and the track if there is one."""
        return f"{self.category} ({self.track})" if self.track else self.category


@dataclass(frozen=True)
class VideoEvents:
    """Events found in one video.

    Attributes:
        valid_seconds: length of the video.
        segments: most probable class (and track) and its probability, one pair for each segment.
        damage: which part of the file could not be read, or "".
    """

    video: str
    valid_seconds: float
    segment_seconds: float
    events: tuple[FoundEvent, ...]
    segments: tuple[tuple[str, float], ...]
    damage: str = ""


def find_events(
    probabilities: NDArray[Any], task: Task, segment_seconds: float, valid_seconds: float
) -> tuple[FoundEvent, ...]:
    """Lists the events, runs of segments of one class in one track, in order of time.

    `probabilities` (L, K) are those of the video's L segments.
    """
    events = []
    for place, segments in enumerate(task.classes_of(task.decode(probabilities[None])[0])):
        for number in sorted({number for classes in segments for number in classes}):
            score = probabilities[:, place * len(task.categories) + number]
            events += [
                FoundEvent(
                    start_seconds=round(onset * segment_seconds, 3),
                    end_seconds=round(min(offset * segment_seconds, valid_seconds), 3),
                    category=task.categories[number],
                    probability=round(float(score[onset:offset].mean()), 4),
                    track=task.tracks[place],
                )
                for onset, offset in find_runs(np.array([number in classes for classes in segments], np.int8))
            ]
    return tuple(sorted(events, key=lambda event: event.start_seconds))


def as_columns(videos: Sequence[VideoEvents]) -> str:
    """Formats events in aligned columns, one line for a video without any."""
    lines: list[tuple[Any, ...]] = []
    for video in videos:
        for event in video.events:
            span = (f"{event.start_seconds:g}", f"{event.end_seconds:g}")
            lines.append((video.video, *span, event.name, f"{event.probability:.2f}"))
        if not video.events:
            lines.append((video.video, "", "", "no event", ""))
    return "\n".join(table(("video", "start, s", "end, s", "event", "probability"), lines)) + "\n"


def as_json(videos: Sequence[VideoEvents]) -> str:
    """Formats videos with their events and segments as a JSON list."""
    return json.dumps([asdict(video) for video in videos], indent=2) + "\n"


def as_csv(videos: Sequence[VideoEvents]) -> str:
    """Formats events as CSV with a header, one line each."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("video", "start_seconds", "end_seconds", "category", "probability", "track"))
    for video in videos:
        for event in video.events:
            writer.writerow(map(csv_cell, (video.video, *asdict(event).values())))
    return buffer.getvalue()


def as_vtt(videos: Sequence[VideoEvents]) -> str:
    """Formats one video's events as WebVTT subtitles (W3C, WebVTT 1), one cue each."""
    cues = [
        f"{stamp(event.start_seconds)} --> {stamp(event.end_seconds)}\n"
        f"{_cue_text(event.name)} {event.probability:.0%}\n"
        for video in videos
        for event in video.events
    ]
    return "\n".join(["WEBVTT\n", *cues])


def as_audacity(videos: Sequence[VideoEvents]) -> str:
    """Formats one video's events as Audacity's label track: lines `start<TAB>end<TAB>class`, in seconds."""
    return "".join(
        f"{event.start_seconds:.6f}\t{event.end_seconds:.6f}\t{' '.join(event.name.split())}\n"
        for video in videos
        for event in video.events
    )


def as_activitynet(videos: Sequence[VideoEvents]) -> str:
    """Formats events as ActivityNet's JSON, videos by name without ending, probabilities as scores."""
    return activitynet_text(_annotated(video, Path(video.video).stem) for video in videos)


def as_desed(videos: Sequence[VideoEvents]) -> str:
    """Formats events as DESED's table, videos by the names of their files."""
    return desed_text(_annotated(video, Path(video.video).name) for video in videos)


def _annotated(video: VideoEvents, name: str) -> Annotated:
    return Annotated(
        name,
        video.valid_seconds,
        tuple(
            Event(event.category, event.start_seconds, event.end_seconds, modality=event.track or "both")
            for event in video.events
        ),
        scores=tuple(event.probability for event in video.events),
    )


def stamp(seconds: float) -> str:
    """Formats a WebVTT time.

    >>> stamp(3671.5)
    '01:01:11.500'
    """
    thousandths = round(seconds * 1000)
    hours, rest = divmod(thousandths, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"


def _cue_text(text: str) -> str:
    """Escapes markup, and removes line breaks, which would end the cue."""
    return " ".join(html.escape(text, quote=False).split())


WRITERS: dict[str, Callable[[Sequence[VideoEvents]], str]] = {
    "table": as_columns,
    "json": as_json,
    "csv": as_csv,
    "vtt": as_vtt,
    "audacity": as_audacity,
    "activitynet": as_activitynet,
    "desed": as_desed,
}
"""Format -> function that formats events in it."""
FORMAT_OF = {".json": "json", ".csv": "csv", ".vtt": "vtt", ".txt": "audacity", ".tsv": "desed"}
"""Ending of a file -> the format that it has unless another is named."""
OF_ONE_VIDEO = ("vtt", "audacity")
"""Formats that do not name the video."""
