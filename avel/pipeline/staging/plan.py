"""What a run has to do: which clips, and why each of them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from avel.config import as_dict, digest
from avel.pipeline.config import ExtractConfig
from avel.pipeline.media.refusal import ClipRefused
from avel.pipeline.staging.stage import fingerprint
from avel.stores.clips import Head
from avel.stores.dataset import Dataset
from avel.stores.manifest import Cause, Entry


@dataclass(frozen=True)
class Plan:
    """The work of one run.

    Attributes:
        head: the store as it will be: old videos keep their rows, new ones follow.
        todo: pending entries of the clips to stage.
        touched: entries whose file has a new date and the old bytes.
        kept: entries of the dataset's other clips, staged or failed earlier.
    """

    head: Head
    todo: tuple[Entry, ...]
    touched: tuple[Entry, ...]
    kept: tuple[Entry, ...]


@dataclass(frozen=True)
class Wish:
    """What the user wants done again."""

    retry_failed: bool = False
    overwrite: bool = False


def settings_of(config: ExtractConfig) -> dict[str, object]:
    """The config's fields that change what is stored."""
    numeric = {name for name, field in config.__dataclass_fields__.items() if field.metadata["numeric"]}
    return {name: value for name, value in as_dict(config).items() if name in numeric}


def make_plan(
    dataset: Dataset, config: ExtractConfig, found: Head | None, entries: Mapping[str, Entry], wish: Wish
) -> Plan:
    """Compares the dataset and the config with what the manifest says was done."""
    old_ids = found.video_ids if found else ()
    known = set(old_ids)
    head = Head(
        grid=config.grid(),
        settings=settings_of(config),
        digest=digest(config),
        frame_codec=config.frame_codec,
        video_ids=old_ids + tuple(video.video_id for video in dataset.videos if video.video_id not in known),
    )
    row_of = {video_id: row for row, video_id in enumerate(head.video_ids)}
    todo, touched, kept = [], [], []
    for video in dataset.videos:
        path = os.path.abspath(video.path) if video.path else ""
        entry = entries.get(video.video_id)
        cause = _cause(entry, path, config, wish)
        if cause is not None:
            todo.append(Entry(video.video_id, row_of[video.video_id], cause=cause, source_path=path))
            continue
        assert entry is not None
        now = _as_on_disk(entry, path)
        if now != entry:
            touched.append(now)
        kept.append(now)
    return Plan(head, tuple(todo), tuple(touched), tuple(kept))


def _cause(entry: Entry | None, path: str, config: ExtractConfig, wish: Wish) -> Cause | None:
    """Why the clip has to be staged (again); None where it need not be."""
    if entry is None:
        return "new"
    if entry.state == "pending":
        return entry.cause
    if wish.overwrite:
        return "overwrite"
    if entry.settings != digest(config) or _audio_rule_changed(entry, config):
        return "settings-changed"
    if _source_changed(entry, path):
        return "source-changed"
    if entry.state == "failed" and wish.retry_failed:
        return "retry-failed"
    return None


def _audio_rule_changed(entry: Entry, config: ExtractConfig) -> bool:
    """`missing_audio` concerns clips without sound only, so it is not among the settings of all."""
    if config.missing_audio == "fail":
        return entry.state == "staged" and entry.audio == "silence"
    return entry.reason == "no-audio"


def _source_changed(entry: Entry, path: str) -> bool:
    """By size and date, and by the bytes where only the date differs."""
    bytes_now, mtime_now = _status(path)
    if bytes_now != entry.source_bytes:
        return True
    if mtime_now == entry.source_mtime_ns:
        return False
    if not entry.source_sha256:
        return True
    try:
        return fingerprint(replace(entry, source_path=path)).source_sha256 != entry.source_sha256
    except ClipRefused:
        return True


def _as_on_disk(entry: Entry, path: str) -> Entry:
    return replace(entry, source_path=path, source_mtime_ns=_status(path)[1])


def _status(path: str) -> tuple[int, int]:
    """Bytes and date of a file; zeros where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
