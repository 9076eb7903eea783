"""Reports what a dataset, clip store, feature cache or run contains, and whether it is whole."""

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from avel.errors import MissingPathError
from avel.stores.cache_lock import finished_parts, parts_folder
from avel.stores.files import disk_bytes
from avel.stores.inspection_lines import SHOWN, WORDINGS
from avel.stores.kinds import kind_of, not_a
from avel.text import plural

UNFINISHED = "not finished"
GO_ON = "the same avel {} command goes on"
CACHE_SUFFIXES = (".h5", ".hdf5")
"""Endings of files that are feature caches even where their beginning is damaged."""
Findings = tuple[dict[str, Any], list[str], str]
"""Facts, problems, and what fixes them."""


@dataclass(frozen=True)
class Inspection:
    """Contents of a path. `facts` are plain values for JSON; it is whole if there are no `problems`.

    `fix` says what to do about the problems.
    """

    path: str
    kind: Literal["dataset", "store", "cache", "run"]
    whole: bool
    problems: tuple[str, ...]
    facts: dict[str, Any]
    fix: str = ""

    def headline(self) -> str:
        """Returns what it is in one line, and whether it is whole."""
        words = WORDINGS[self.kind]
        state = "whole" if self.whole else f"not whole: {'; '.join(self.problems)}"
        return f"{self.path}: {words.name}, {words.headline(self.facts)}; {state}"

    def lines(self) -> list[str]:
        """Returns its facts for people."""
        return WORDINGS[self.kind].lines(self.facts)


def inspect(
    path: Path | str,
    verify: bool = False,
    *,
    annotations: Path | str | None = None,
    format: str = "auto",
    format_settings: Mapping[str, Any] | None = None,
) -> Inspection:
    """Inspects what is at `path`; with `verify` it reads every byte and computes every checksum.

    A dataset is read with `annotations`, `format` and the format's settings, as by `extract`.

    Raises:
        MissingPathError: nothing is there.
        StoreError: what is there is no dataset and was not written by avel.
    """
    kind = _kind(str(path))
    if kind == "dataset":
        facts, problems, fix = _dataset(str(path), annotations, format, format_settings or {})
    else:
        facts, problems, fix = {"store": _store, "cache": _cache, "run": _run}[kind](str(path), verify)
    return Inspection(str(path), kind, not problems, tuple(problems), facts, fix if problems else "")


def _kind(path: str) -> Literal["dataset", "store", "cache", "run"]:
    place, kind = Path(path), kind_of(path)
    if kind == "store" or _is_begun(place):
        return "store"
    if kind == "run" or kind == "dataset" or kind == "cache":
        return kind
    if kind == "file" and place.suffix in CACHE_SUFFIXES:
        return "cache"
    if kind == "nothing":
        if finished_parts(place):
            return "cache"
        raise MissingPathError(f"{path}: nothing is there", hint="give a dataset, store, cache or run")
    raise not_a("dataset, store, cache or run", path, "")


def _is_begun(place: Path) -> bool:
    """Returns True for a clip store that an interrupted run left without its attributes.

    A lock alone is not one: killed commands of all kinds leave theirs.
    """
    from avel.stores.clip_layout import OWN_NAMES, RUN_TOKEN
    from avel.stores.location import ZARR_PARTIAL

    listed: list[str] = []
    with suppress(PermissionError):  # reading it as a dataset raises an error that says so
        listed = os.listdir(place) if place.is_dir() else []
    names = {name for name in listed if not ZARR_PARTIAL.fullmatch(name)}
    return bool(names & {"manifest", "zarr.json", RUN_TOKEN}) and names <= OWN_NAMES


def _dataset(
    path: str, annotations: Path | str | None, format: str, format_settings: Mapping[str, Any]
) -> Findings:
    """Audits the annotations; there is no more to verify, since avel stores no hashes of raw media."""
    from avel.stores.datasets.audit import audit
    from avel.stores.datasets.formats import read_dataset

    audited = audit(read_dataset(path, annotations, format=format, **format_settings))
    facts = audited.facts() | {"remarks": list(audited.remarks())}
    missing = len(audited.missing_files)
    problems = [f"{missing} of {audited.videos} videos have no file"] if missing else []
    return facts, problems, ""  # extract goes on without them


def _store(path: str, verify: bool) -> Findings:
    from avel.stores.clip_check import verify_clips
    from avel.stores.clip_layout import read_attributes
    from avel.stores.clips import REPAIR, ClipStore
    from avel.stores.datasets.sample import schemas
    from avel.stores.location import locate
    from avel.stores.manifest import counts, read_manifest

    location = locate(path)
    if read_attributes(location) is None and (location.names("manifest") or _is_begun(Path(path))):
        begun = {"videos": len(read_manifest(location)), "bytes": location.bytes()}
        return begun, [UNFINISHED], GO_ON.format("extract")
    store = ClipStore.open(path)
    entries, waiting = store.entries, store.waiting
    failed = entries.holds(state="failed")
    remarked = ~failed & ~entries.holds(detail="")
    seconds = entries.column("valid_seconds")
    rows = {name: store.table(name).num_rows for name in schemas()}  # reading them finds damage
    failures, remarks = map(entries.filter, (failed, remarked))
    facts = {
        "videos": len(store),
        "staged": len(store.staged_entries),
        "states": counts(entries),
        "failures": {
            name: f"{reason} {detail}".strip()
            for name, reason, detail in zip(
                failures.ids, failures.texts("reason"), failures.texts("detail"), strict=True
            )
        },
        "remarks": dict(zip(remarks.ids, remarks.texts("detail"), strict=True)),
        "samples": rows["samples"],
        "classes": len(store.description.categories),
        "grid": vars(store.grid),
        "settings": store.settings,
        "settings_digest": store.digest,
        "padded": int(((seconds > 0) & (seconds < store.grid.seconds)).sum()),
        "format": store.description.format,
        "format_settings": store.description.format_settings,
        "own_lengths": store.description.longest_seconds is not None,
        "bytes": store.stored_bytes,
    }
    count = plural(len(waiting), "video")
    problems = [f"{count} not staged yet: {', '.join(waiting[:SHOWN])}"] if waiting else []
    fix = GO_ON.format("extract")
    if verify:
        faults = verify_clips(store)
        problems, fix = [*problems, *faults], REPAIR if faults else fix
        store.dataset  # noqa: B018 - raises where its tables contradict each other
    return facts, problems, fix


def _cache(path: str, verify: bool) -> Findings:
    from avel.stores.features import FeatureCache
    from avel.stores.named_features import GROUP
    from avel.stores.provenance import CACHE_AGAIN

    if not os.path.exists(path):  # an unfinished call is known by its parts
        parts = _parts(Path(path))
        return parts | {"bytes": parts["parts_bytes"]}, [UNFINISHED], GO_ON.format("cache-features")
    cache = FeatureCache.open(path)
    provenance = dict(cache.provenance)
    clips = cache.sources
    provenance.pop(GROUP, None)
    facts = {
        "videos": len(cache.video_ids),
        "samples": len(cache.samples),
        "events": len(cache.samples.events),
        "unknown_samples": int((~cache.samples.known).sum()),
        "splits": dict(Counter(map(str, cache.samples.split))),
        "leaked_samples": int(cache.samples.leaked.sum()),
        "classes": len(cache.categories),
        "segments": cache.grid_segments,
        "fewest_segments": int(cache.lengths.min(initial=cache.grid_segments)),
        "segment_seconds": cache.segment_seconds,
        "arrays": {name: list(shape) for name, shape in cache.shapes.items()},
        "named": {
            name: {"modality": about.modality, "shape": list(cache.shapes[name]), "made": about.made}
            for name, about in cache.named.items()
        },
        "missing": [asdict(item) for item in cache.missing],
        "missing_samples": len(cache.missing),
        "digest": cache.digest,
        "clips_with_hash": len(clips),
        "clips": clips,
        "provenance": provenance,
        "bytes": disk_bytes(cache.path),
        **_parts(cache.path),
    }
    return facts, cache.faults() if verify else [], CACHE_AGAIN


def _parts(cache: Path) -> dict[str, Any]:
    """Returns the folder, number and bytes of the parts that unfinished calls left beside a cache."""
    parts = finished_parts(cache)
    return {
        "parts_folder": str(parts_folder(cache)),
        "finished_parts": len(parts),
        "parts_bytes": sum(map(disk_bytes, parts)),
    }


def _run(path: str, verify: bool) -> Findings:
    from avel.stores.runs import COMMANDS, Run

    run = Run.open(path)
    weights = sorted(Path(path).rglob("*.safetensors"))
    problems, fix = [UNFINISHED], GO_ON.format(COMMANDS[run.kind])
    if run.finished:
        problems, fix = run.faults(verify=verify), run.how_to_remake()
    facts = {
        "stage": COMMANDS[run.kind],
        "finished": run.finished,
        "inputs": run.inputs,
        "config": run.record.config,
        "versions": run.record.versions,
        "metrics": len(run.metrics()),
        "results": run.results if run.finished else {},
        "weights": {str(file.relative_to(path)): file.stat().st_size for file in weights},
        "bytes": disk_bytes(Path(path)),
    }
    return facts, problems, fix
