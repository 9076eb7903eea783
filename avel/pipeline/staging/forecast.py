"""What a run would do, without doing it: clips, bytes and minutes, from a few clips staged elsewhere."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avel.pipeline.config import ExtractConfig
from avel.pipeline.staging.isolate import Isolated
from avel.pipeline.staging.plan import Plan
from avel.stores.clip_writer import prepare_store
from avel.stores.clips import chunk_names
from avel.stores.location import locate
from avel.stores.manifest import Entry

SAMPLE_CLIPS = 4


@dataclass(frozen=True)
class Forecast:
    """What `--dry-run` tells.

    Attributes:
        clips: how many would be staged.
        causes: how many of them for each cause: "new", "source-changed", ...
        bytes: estimated size of what would be written.
        minutes: estimated time.
        measured_on: how many clips were staged in a temporary store for the estimate.
    """

    clips: int
    causes: dict[str, int]
    bytes: int
    minutes: float
    measured_on: int


def forecast(plan: Plan, config: ExtractConfig, workers: int) -> Forecast:
    """Stages up to four clips, evenly spaced over the work, in a temporary store."""
    causes: dict[str, int] = {}
    for entry in plan.todo:
        causes[entry.cause] = causes.get(entry.cause, 0) + 1
    sample = spread(plan.todo)
    with tempfile.TemporaryDirectory() as folder:
        attributes = replace(plan.attributes, video_ids=tuple(entry.video_id for entry in sample))
        location = locate(folder)
        prepare_store(location, attributes)
        with Isolated(folder, config) as child:
            done = [child.stage(replace(entry, row=row)) for row, entry in enumerate(sample)]
        written = [
            sum((Path(folder) / name).stat().st_size for name in chunk_names(attributes, entry.row))
            for entry in done
            if entry.state == "staged"
        ]
    share = len(plan.todo) / max(len(sample), 1)
    return Forecast(
        clips=len(plan.todo),
        causes=causes,
        bytes=round(sum(written) * share),
        minutes=round(sum(map(_seconds, done)) * share / workers / 60, 2),
        measured_on=len(done),
    )


def spread(entries: Sequence[Entry]) -> list[Entry]:
    """Up to four of the entries, evenly spaced."""
    count = min(len(entries), SAMPLE_CLIPS)
    return [entries[number * len(entries) // count] for number in range(count)]


def _seconds(entry: Entry) -> float:
    return (
        entry.decode_seconds
        + entry.scale_seconds
        + entry.jpeg_seconds
        + entry.audio_seconds
        + entry.write_seconds
    )
