"""What a run has to do: which clips, and why each of them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from avel.config import as_dict, digest
from avel.errors import MissingPathError
from avel.pipeline.config import ExtractConfig
from avel.pipeline.media.refusal import ClipRefused
from avel.pipeline.staging.stage import fingerprint
from avel.stores.clips import StoreAttributes
from avel.stores.datasets.dataset import Dataset
from avel.stores.manifest import Cause, Entry


@dataclass(frozen=True)
class Plan:
    """The work of one run.

    Attributes:
        attributes: the store as it will be: old videos keep their rows, new ones follow.
        todo: pending entries of the clips to stage.
        touched: entries whose file has a new date and the old bytes.
        kept: entries of the dataset's other clips, staged or failed earlier.
        gone: pending entries of videos that left the dataset before they were staged as it is asked for now.
        sourceless: how many of `kept` are staged although their file cannot be read now.
        given_up: how many of `gone` are whole until the new settings void them.
    """

    attributes: StoreAttributes
    todo: tuple[Entry, ...]
    touched: tuple[Entry, ...]
    kept: tuple[Entry, ...]
    gone: tuple[Entry, ...] = ()
    sourceless: int = 0
    given_up: int = 0


@dataclass(frozen=True)
class RestageOptions:
    """What the user wants done again."""

    retry_failed: bool = False
    overwrite: bool = False


def stored_settings(config: ExtractConfig) -> dict[str, object]:
    """The config's fields that change what is stored."""
    numeric = {name for name, field in config.__dataclass_fields__.items() if field.metadata["numeric"]}
    return {name: value for name, value in as_dict(config).items() if name in numeric}


def make_plan(
    dataset: Dataset,
    config: ExtractConfig,
    found: StoreAttributes | None,
    entries: Mapping[str, Entry],
    wish: RestageOptions,
) -> Plan:
    """Compares the dataset and the config with what the manifest says was done.

    Raises:
        MissingPathError: these settings void staged clips whose files cannot be read; `overwrite` does it.
    """
    # a killed run may have given rows, in the manifest, to videos that the attributes does not name yet
    old_ids = tuple(dict.fromkeys((*(found.video_ids if found else ()), *entries)))
    known = set(old_ids)
    attributes = StoreAttributes(
        grid=config.grid(),
        settings=stored_settings(config),
        digest=digest(config),
        frame_codec=config.frame_codec,
        video_ids=old_ids + tuple(video.video_id for video in dataset.videos if video.video_id not in known),
    )
    row_of = {video_id: row for row, video_id in enumerate(attributes.video_ids)}
    todo, touched, kept, sourceless = [], [], [], 0
    for video in dataset.videos:
        path = os.path.abspath(video.path) if video.path else ""
        entry = entries.get(video.video_id)
        cause = _cause(entry, path, config, wish, begun=found is not None)
        if cause is not None:
            todo.append(Entry(video.video_id, row_of[video.video_id], cause=cause, source_path=path))
            continue
        assert entry is not None
        now = _as_on_disk(entry, path)
        if now != entry:
            touched.append(now)
        kept.append(now)
        sourceless += entry.state == "staged" and (wish.overwrite or _status(path) is None)
    gone = _gone(entries.values(), {video.video_id for video in dataset.videos}, row_of, attributes.digest)
    leaving = [entries[each.video_id] for each in gone if _is_whole(entries[each.video_id], found)]
    if not wish.overwrite:
        _refuse_to_lose([each for each in todo if _is_whole(entries.get(each.video_id), found)] + leaving)
    return Plan(attributes, tuple(todo), tuple(touched), tuple(kept), gone, sourceless, len(leaving))


def _cause(
    entry: Entry | None, path: str, config: ExtractConfig, wish: RestageOptions, begun: bool
) -> Cause | None:
    """Why the clip has to be staged (again); None where it need not be.

    A staged clip whose file cannot be read is as good as it gets: a disk that is not mounted costs nothing.
    """
    if entry is None:
        return "new"
    if entry.state == "pending":
        return entry.cause
    if not begun:
        return "new"
    if entry.settings != digest(config) or _audio_rule_changed(entry, config):
        return "settings-changed"
    if wish.overwrite or _source_changed(entry, path):
        kept = entry.state == "staged" and not _readable(path)
        return None if kept else "overwrite" if wish.overwrite else "source-changed"
    return "retry-failed" if entry.state == "failed" and wish.retry_failed else None


def _is_whole(entry: Entry | None, found: StoreAttributes | None) -> bool:
    if entry is None or found is None:
        return False
    return entry.state == "staged" and entry.settings == found.digest


def _refuse_to_lose(entries: Sequence[Entry]) -> None:
    """Raises where clips that are whole would be given up for files that are not there."""
    lost = [entry for entry in entries if not _readable(entry.source_path)]
    if lost:
        where = lost[0].source_path or lost[0].video_id
        raise MissingPathError(
            f"these settings void {len(lost)} staged clips whose files cannot be read, the first: {where}",
            hint="mount their disk, or stage into another store; --overwrite gives them up",
        )


def _gone(
    entries: Iterable[Entry], present: set[str], row_of: Mapping[str, int], settings: str
) -> tuple[Entry, ...]:
    """Videos that nothing will stage any more, as pending: their chunks are partial, or of other settings."""
    return tuple(
        Entry(entry.video_id, row_of[entry.video_id], cause=entry.cause)
        for entry in entries
        if entry.video_id not in present
        and entry.state != "failed"
        and (entry.state == "pending" or entry.settings != settings)
    )


def _audio_rule_changed(entry: Entry, config: ExtractConfig) -> bool:
    """`missing_audio` concerns clips without sound only, so it is not among the settings of all."""
    if config.missing_audio == "fail":
        return entry.state == "staged" and entry.audio == "silence"
    return entry.reason == "no-audio"


def _source_changed(entry: Entry, path: str) -> bool:
    """By size and date, and by the bytes where only the date differs."""
    bytes_now, mtime_now = _status(path) or (0, 0)
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
    """The entry with the file's present path and date; as it is where the file cannot be read."""
    status = _status(path)
    if status is None or (status[1] != entry.source_mtime_ns and not _readable(path)):
        return entry
    return replace(entry, source_path=path, source_mtime_ns=status[1])


def _status(path: str) -> tuple[int, int] | None:
    """Bytes and date of a file; None where it is not to be seen."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _readable(path: str) -> bool:
    """Whether the file opens: a permission or a stale mount shows only then."""
    try:
        with open(path, "rb"):
            return True
    except OSError:
        return False
