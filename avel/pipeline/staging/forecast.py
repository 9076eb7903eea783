"""Estimates clips, bytes and seconds of a run, from a few clips staged in a temporary store."""

import tempfile
from collections import Counter
from dataclasses import dataclass, replace

from avel.grid import evenly_spaced
from avel.pipeline.config import ExtractConfig
from avel.pipeline.staging.isolate import Isolated
from avel.pipeline.staging.plan import Plan
from avel.pipeline.staging.stage import core_seconds
from avel.stores.clip_writer import prepare_store
from avel.stores.location import locate
from avel.stores.manifest import Manifest, to_table

SAMPLE_CLIPS = 4


@dataclass(frozen=True)
class Forecast:
    """Estimates of what a run will take.

    Attributes:
        clips: how many clips the run stages.
        causes: how many of them for each cause, "new", "source-changed", ..., the most frequent first.
        bytes: estimated bytes that it writes.
        seconds: estimated duration.
        measured_on: how many clips were staged for the estimate.
    """

    clips: int
    causes: dict[str, int]
    bytes: int
    seconds: float
    measured_on: int


def forecast(plan: Plan, config: ExtractConfig, workers: int) -> Forecast:
    """Stages at most four clips of the plan, evenly spaced, and scales up what they took."""
    sample = plan.todo.take(evenly_spaced(len(plan.todo), SAMPLE_CLIPS))
    with tempfile.TemporaryDirectory() as folder:
        attributes = replace(plan.attributes, videos=len(sample))
        location = locate(folder)
        prepare_store(location, attributes, sample.ids)
        with Isolated(folder, config) as child:
            done = [child.stage(replace(entry, row=row)) for row, entry in enumerate(sample.values())]
    scale = len(plan.todo) / max(len(sample), 1)
    found = Manifest(to_table(done))
    return Forecast(
        clips=len(plan.todo),
        causes=dict(Counter(plan.todo.texts("cause")).most_common()),
        bytes=round(found.stored_bytes * scale),
        seconds=round(core_seconds(found) * scale / workers, 1),
        measured_on=len(done),
    )
