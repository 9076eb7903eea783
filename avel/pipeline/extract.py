"""`avel extract`: raw clips -> staged frames and log-mel, and a manifest with the fate of each clip."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avel.config import as_dict, resolve
from avel.pipeline.config import ExtractConfig
from avel.pipeline.plan import Plan, Wish, make_plan
from avel.pipeline.workers import stage_all
from avel.progress import Progress
from avel.stores.clip_writer import check_place, prepare, write_dataset
from avel.stores.clips import read_head
from avel.stores.dataset import Dataset, read_dataset
from avel.stores.files import only_one
from avel.stores.location import LocalLocation, Location, locate
from avel.stores.manifest import Entry, ManifestWriter

STEPS = ("decode", "scale", "jpeg", "audio", "write")


@dataclass(frozen=True)
class ExtractSummary:
    """What a run did. `staged` + `skipped` + `failed` are all videos of the dataset.

    Attributes:
        staged: clips staged in this run.
        skipped: clips that were staged before and are unchanged.
        failed: clips that are failed now, in this run or an earlier one.
        reasons: how many failed for each reason.
        failures: (video id, reason, detail) of every failed clip.
        restaged: how many of this run's clips were there before, by cause ("source-changed", ...).
        seconds: wall time.
        split_seconds: process time by step, over all workers: decode, scale, jpeg, audio, write.
    """

    store: str
    videos: int
    staged: int
    skipped: int
    failed: int
    reasons: dict[str, int] = field(default_factory=dict)
    failures: tuple[tuple[str, str, str], ...] = ()
    restaged: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    clips_per_second: float = 0.0
    split_seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As plain values for `--json`."""
        return asdict(self)


def extract(
    dataset: Dataset | Path | str,
    store: Path | str,
    config: ExtractConfig | None = None,
    *,
    annotations: Path | str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> ExtractSummary:
    """Stages a dataset's clips: frames (T * N, S, S, 3) and log-mel (T, 96, 64) of each, into a Zarr store.

    Give the same command again after whatever interrupted it: only what is not done is done. A clip that
    cannot be read is recorded with its reason and never stops the others.

    Args:
        dataset: a Dataset, an AVE folder, or any folder of videos.
        store: a folder, or an object-store URL.
        config: how to stage; `options` are single fields of it, which win.
        annotations: CSV or Parquet for a plain folder of videos.
        workers: decoding processes; all cores by default.
        scheduler: address of a dask scheduler to use instead.
        retry_failed: stage clips again that failed.
        overwrite: stage all clips again.

    Raises:
        BusyError: another run is at work on the store.
        StoreError: `store` is something else.
        WriteError: the store cannot be written.
    """
    began = time.monotonic()
    config = configured(config, options)
    data = dataset if isinstance(dataset, Dataset) else read_dataset(dataset, annotations)
    location = locate(store)
    check_place(location)
    with _alone(location):
        manifest = ManifestWriter(location)
        plan = make_plan(data, config, read_head(location), manifest.entries, Wish(retry_failed, overwrite))
        manifest.append((*plan.touched, *plan.todo))  # before their chunks are touched, they are pending
        prepare(location, plan.head)
        write_dataset(location, data)
        count = workers or os.cpu_count() or 1
        batches = stage_all(plan.todo, location.url, config, workers=count, scheduler=scheduler)
        done = _record(batches, manifest, len(plan.todo)) if plan.todo else []
        manifest.merge()
    return _summary(location.url, plan, done, time.monotonic() - began)


def configured(config: ExtractConfig | None, options: dict[str, Any]) -> ExtractConfig:
    """The config with single fields replaced, checked like the command line's."""
    return resolve(ExtractConfig, "extract", preset=as_dict(config or ExtractConfig()), options=options)


def _record(batches: Iterator[list[Entry]], manifest: ManifestWriter, total: int) -> list[Entry]:
    done: list[Entry] = []
    with Progress(total, "clips") as progress:
        for batch in batches:
            manifest.append(batch)
            done += batch
            progress.advance(len(batch), failed=sum(entry.state == "failed" for entry in batch))
    return done


@contextmanager
def _alone(location: Location) -> Iterator[None]:
    if not isinstance(location, LocalLocation):
        yield
        return
    with only_one(location.path, "store"):
        yield


def _summary(store: str, plan: Plan, done: list[Entry], seconds: float) -> ExtractSummary:
    everything = (*plan.kept, *done)
    failures = tuple((e.video_id, e.reason, e.detail) for e in everything if e.state == "failed")
    return ExtractSummary(
        store=store,
        videos=len(everything),
        staged=sum(entry.state == "staged" for entry in done),
        skipped=sum(entry.state == "staged" for entry in plan.kept),
        failed=len(failures),
        reasons=_count(reason for _, reason, _ in failures),
        failures=failures,
        restaged=_count(entry.cause for entry in done if entry.cause != "new"),
        seconds=round(seconds, 3),
        clips_per_second=round(len(done) / seconds, 3),
        split_seconds={
            step: round(sum(getattr(entry, f"{step}_seconds") for entry in done), 3) for step in STEPS
        },
    )


def _count(values: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return found
