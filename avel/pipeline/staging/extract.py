"""Stages clips for `avel extract`: frames, log-mel and waveform of each, and what became of it."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from avel.ahead import usable_cores
from avel.config import resolve, to_toml
from avel.errors import AvelError, ConfigError
from avel.pipeline.config import ExtractConfig
from avel.pipeline.media.log_mel import MEL_SAMPLE_RATE, check_segments
from avel.pipeline.staging.cluster import MixedVersionsError, versions, worker_threads
from avel.pipeline.staging.forecast import Forecast, forecast
from avel.pipeline.staging.plan import Plan, RestageOptions, make_plan
from avel.pipeline.staging.summary import DoneClips, ExtractSummary, summarize
from avel.pipeline.staging.workers import stage_all
from avel.progress import Progress, note
from avel.stores.clip_check import damaged_clips
from avel.stores.clip_layout import read_attributes, read_video_ids
from avel.stores.clip_writer import (
    check_place,
    end_run,
    erase,
    prepare_store,
    remove_leftovers,
    write_dataset,
    writing,
)
from avel.stores.clips import ClipStore
from avel.stores.datasets.changes import changes
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.formats import read_dataset
from avel.stores.files import free_bytes
from avel.stores.location import Location, RemoteLocation, locate
from avel.stores.manifest import Entry, Manifest, ManifestWriter, failed, read_manifest
from avel.stores.packing import delete_unused_shards
from avel.stores.seal import UNSEALED, sealed
from avel.stores.shards import read_packing
from avel.text import duration, plural, size

FORECAST_FROM = 200
"""From this many clips to stage on, a few are staged first to forecast the run."""
PARTS_SECONDS = 5.0
"""Time between two parts of an object store's manifest. What came after the last part before a kill is staged
again."""
STAGED_WITH = "# staged with "
"""Begins the comment in the config.toml of a store that names the versions of the programs."""


def extract(
    dataset: Dataset | Path | str,
    store: Path | str,
    config: ExtractConfig | None = None,
    *,
    annotations: Path | str | None = None,
    format: str = "auto",
    format_settings: Mapping[str, Any] | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    repair: bool = False,
    overwrite: bool = False,
    mixed_versions: bool = False,
    dry_run: bool = False,
    **options: Any,
) -> ExtractSummary:
    """Stages a dataset's clips into a Zarr store: frames (T * N, S, S, 3), log-mel (T, 96, 64), waveform.

    After an interruption the same call stages only the clips that are left. A clip that cannot be read is
    recorded with the reason and does not stop the others.

    Args:
        dataset: a Dataset, an AVE folder, a folder of another format, or any folder of videos.
        store: a folder, or an object-store URL.
        config: how to stage; single settings in `options` override it.
        annotations: CSV or Parquet for a plain folder of videos.
        format: name of the dataset's format; "auto" finds it.
        format_settings: settings of the format, by name.
        workers: number of decoding processes; all cores by default.
        scheduler: address of a dask scheduler whose workers decode instead, a clip in each of their threads.
        retry_failed: stage failed clips again.
        repair: read every byte of the staged clips first, and stage damaged ones again.
        overwrite: stage all clips again. Settings that would change what is stored of staged clips need it.
        mixed_versions: stage clips although other versions of avel, PyAV or FFmpeg staged those of the store.
        dry_run: change nothing; the summary's `forecast` says what would be staged.

    Raises:
        BusyError: another run is at work on the store, or has taken it over.
        ConfigError: settings or options do not go together, or would delete staged clips without `overwrite`;
            nothing was changed.
        DatasetError: annotations cannot be used, or an event lies beyond the grid; nothing was changed.
        MissingPathError: new settings would delete staged clips whose files cannot be read.
        MixedVersionsError: without `mixed_versions`, other versions staged clips that would stay; or a worker
            has other versions than this process.
        StoreError: `store` is something else than a clip store.
        WriteError: the store cannot be written.
    """
    began = time.monotonic()
    config = resolve(ExtractConfig, "extract", base=config, options=options)
    check_segments(config.grid().at(MEL_SAMPLE_RATE).samples_per_segment)
    if workers is not None and workers < 1:
        raise ConfigError(
            f"workers={workers}: no process would decode", hint="1 or more; by default the cores"
        )
    if workers and scheduler:
        raise ConfigError(
            "--workers counts processes here, and --scheduler uses the workers of a cluster",
            hint="give --scheduler alone; dask worker ADDRESS --nthreads N sets a worker's number of clips",
        )
    data = (
        dataset
        if isinstance(dataset, Dataset)
        else read_dataset(dataset, annotations, format=format, **(format_settings or {}))
    )
    if config.segments is None:
        config = replace(config, segments=data.segments(config.segment_seconds))
    data.check_grid(config.grid())
    location, workers, run = locate(store), workers or usable_cores(), uuid.uuid4().hex
    with writing(location):
        check_place(location)
    if dry_run:
        restage = RestageOptions(retry_failed, overwrite, _damaged(location) if repair else {})
        plan = _plan(location, data, config, read_manifest(location), restage)
        _staged_with(location, plan, mixed_versions)  # refuses what the run itself would
        _note_changes(location, data)
        expected = forecast(plan, config, worker_threads(scheduler) if scheduler else workers)
        seconds = time.monotonic() - began
        return summarize(str(store), plan.videos, plan.unchanged, DoneClips(), seconds, expected)
    with ExitStack() as stack:
        with writing(location):
            check_lock = stack.enter_context(location.lock())
            remove_leftovers(location)
            restage = RestageOptions(retry_failed, overwrite, _damaged(location) if repair else {})
            manifest = ManifestWriter(location)
            plan = _plan(location, data, config, manifest.entries, restage)
            staged_with = _staged_with(location, plan, mixed_versions)
            if len(plan.todo) >= FORECAST_FROM:
                expected = forecast(plan, config, worker_threads(scheduler) if scheduler else workers)
                _check_room(location, plan, expected)
            _note_changes(location, data)
            _begin(location, run, manifest, plan, data, config, staged_with)
            del data, dataset  # written by now; of a million clips they take hundreds of MB
            pa.default_memory_pool().release_unused()
        batches = stage_all(plan.todo, run, location.url, config, workers=workers, scheduler=scheduler)
        done, videos, unchanged = DoneClips(), plan.videos, plan.unchanged
        left = {video_id: why for video_id, why in restage.damaged.items() if video_id not in plan.todo}
        if left:
            first = next(iter(left))
            note(
                f"{plural(len(left), 'damaged clip')} cannot be staged again (no file that can be read, or "
                f"no longer in the dataset); the first: {first}: {left[first]}"
            )
        if plan.todo:
            _record(batches, manifest, location, len(plan.todo), check_lock, done)
        del plan, batches  # merging the manifest takes as much memory again
        with writing(location):
            check_lock()
            manifest.merge()
            if not scheduler:  # a killed worker elsewhere may have left half-written files to the next run
                end_run(location)
    summary = summarize(str(store), videos, unchanged, done, time.monotonic() - began)
    return replace(summary, damaged=tuple(left))


def _damaged(location: Location) -> dict[str, str]:
    """Returns the store's damaged clips with a fault of each, and says how many; none of a new store."""
    attributes = read_attributes(location)
    if attributes is None:
        return {}
    store = ClipStore(location, attributes)
    damaged = {video_id: faults[0] for video_id, faults in damaged_clips(store).items()}
    first = next((f", the first: {video_id}: {why}" for video_id, why in damaged.items()), "")
    note(f"{location.url}: {len(damaged):,} of {plural(len(store.entries), 'clip')} are damaged{first}")
    return damaged


def _plan(
    location: Location, data: Dataset, config: ExtractConfig, entries: Manifest, restage: RestageOptions
) -> Plan:
    """Compares the dataset and the config with the store."""
    found = read_attributes(location)
    rows = read_video_ids(location, found) if found else pa.array([], pa.string())
    return make_plan(data, config, found, rows, entries, restage, read_packing(location))


def _note_changes(location: Location, data: Dataset) -> None:
    """Says how the samples that the store has will change, since each run replaces them."""
    with suppress(AvelError):  # there is no store yet, or its tables are damaged and will be replaced
        attributes = read_attributes(location)
        if attributes is not None:
            store = ClipStore(location, attributes)
            found = changes({name: store.table(name) for name in ("samples", "events")}, data)
            if found:
                note(f"{location.url}: replaces its samples; {'; '.join(found)}")


def _check_room(location: Location, plan: Plan, expected: Forecast) -> None:
    """Says what staging will take, and checks that there is room.

    Raises:
        ConfigError: the store's disk, if it has one, has no room for it.
    """
    needs = f"{plural(expected.clips, 'clip')} take about {size(expected.bytes)}"
    note(f"{needs} and {duration(expected.seconds)}, estimated from {plural(expected.measured_on, 'clip')}")
    if "://" in location.url:
        return
    free = free_bytes(Path(location.url)) + plan.replaced_bytes
    if free < expected.bytes:
        raise ConfigError(
            f"{location.url}: {needs}, {size(free)} are free on its disk",
            hint="a store on another disk, or smaller clips by --size or --jpeg-quality",
        )


def _begin(
    location: Location,
    run: str,
    manifest: ManifestWriter,
    plan: Plan,
    data: Dataset,
    config: ExtractConfig,
    staged_with: str,
) -> None:
    """Brings the store into the state that the plan starts from."""
    # pending in the manifest first: a run that is killed below must not leave deleted chunks as staged
    manifest.append(plan.begun)
    prepare_store(location, plan.attributes, plan.video_ids, run)
    erase(location, plan.attributes, plan.removed.column("row").tolist())
    delete_unused_shards(location)
    settings = plan.attributes.digest
    manifest.append(
        replace(failed(entry, "missing", "it left the dataset"), settings=settings)
        for entry in plan.removed.values()
    )
    write_dataset(location, data)
    text = f"# {UNSEALED}\n{staged_with}{to_toml(config, 'extract')}"
    location.write("config.toml", sealed(text.encode()))
    if plan.voided:
        note(f"deleted: {plural(plan.voided, 'staged clip')} of other settings, no longer in the dataset")
    limited = sum(len(plan.unchanged.where(reason=reason)) for reason in ("timeout", "memory"))
    if limited:
        note(f"{plural(limited, 'clip')} failed for timeout or memory before; --retry-failed tries again")
    if plan.unreadable:
        note(f"kept: {plural(plan.unreadable, 'staged clip')}, although the files cannot be read now")


def _staged_with(location: Location, plan: Plan, mixed_versions: bool) -> str:
    """Returns comments for config.toml that say with which versions the clips of the store were staged.

    Raises:
        MixedVersionsError: clips would be staged with other versions than those that stay.
    """
    found = (location.read("config.toml") or b"").decode(errors="replace").splitlines()
    before = [line for line in found if line.startswith(STAGED_WITH)]
    now = f"{STAGED_WITH}{versions()}"
    if plan.todo:
        stay = bool(plan.unchanged.holds(state="staged").any())
        if stay and before and before != [now] and not mixed_versions:
            others = "; ".join(line.removeprefix(STAGED_WITH) for line in before if line != now)
            raise MixedVersionsError(
                f"{location.url}: clips of it were staged with {others}, and this run has {versions()}: "
                "clips of both would differ a little",
                hint="install those versions, or give another STORE; --overwrite stages all clips again, "
                "--mixed-versions goes on",
            )
        before = [*(line for line in before if stay and line != now), now]
    return "".join(f"{line}\n" for line in before)


def _record(
    batches: Iterator[list[Entry]],
    manifest: ManifestWriter,
    location: Location,
    total: int,
    check_lock: Callable[[], None],
    done: DoneClips,
) -> None:
    """Writes entries into the manifest as they are done, and counts them.

    Into an object store they are written together every few seconds, since each part takes a request.
    """
    apart = PARTS_SECONDS if isinstance(location, RemoteLocation) else 0.0
    waiting, due = list[Entry](), 0.0

    def write() -> None:
        with writing(location):
            check_lock()
            manifest.append(waiting)
        waiting.clear()

    with Progress(total, "clips", of="staging") as progress:
        try:
            for batch in batches:
                waiting += batch
                if time.monotonic() >= due:
                    write()
                    due = time.monotonic() + apart
                done.add(batch)
                progress.advance(len(batch), failed=sum(entry.state == "failed" for entry in batch))
        except KeyboardInterrupt:
            write()
            raise
        write()
