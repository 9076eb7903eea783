"""Plans a run of `avel extract`: which clips it has to stage, and why each of them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from avel.config import digest, settings_of
from avel.errors import ConfigError, MissingPathError
from avel.pipeline.config import ExtractConfig
from avel.pipeline.media.refusal import ClipRefused
from avel.pipeline.staging.stage import core_seconds, fingerprint
from avel.stores.clips import StoreAttributes
from avel.stores.datasets.dataset import Dataset
from avel.stores.files import file_at
from avel.stores.manifest import Cause, Entry
from avel.text import as_plain


@dataclass(frozen=True)
class Plan:
    """Work of one run.

    Attributes:
        attributes: the store's attributes after the run: old videos keep their rows, new ones follow.
        todo: pending entries of the clips to stage.
        unchanged: entries of the dataset's other clips, staged or failed in an earlier run.
        redated: those of `unchanged` whose file has another path or date, but the same bytes.
        removed: pending entries of videos no longer in the dataset, whose chunks must be deleted: they are
            incomplete or of other settings, and nothing will stage them again.
        unreadable: how many of `unchanged` are staged although their file cannot be read now.
        voided: how many of `removed` are staged with the store's old settings.
    """

    attributes: StoreAttributes
    todo: tuple[Entry, ...]
    unchanged: tuple[Entry, ...]
    redated: tuple[Entry, ...]
    removed: tuple[Entry, ...] = ()
    unreadable: int = 0
    voided: int = 0

    @property
    def replaced(self) -> int:
        """Returns how many clips are, or may be, staged so far and are deleted first."""
        return self.voided + sum(entry.cause not in ("new", "retry-failed") for entry in self.todo)


@dataclass(frozen=True)
class RestageOptions:
    """Options that stage unchanged clips again: failed ones, or all."""

    retry_failed: bool = False
    overwrite: bool = False


def stored_settings(config: ExtractConfig) -> dict[str, object]:
    """Returns the settings that change what is stored, by name."""
    return {setting.key: setting.of(config) for setting in settings_of(config) if setting.numeric}


def make_plan(
    dataset: Dataset,
    config: ExtractConfig,
    found: StoreAttributes | None,
    entries: Mapping[str, Entry],
    restage: RestageOptions,
) -> Plan:
    """Compares the dataset and the config with the manifest's `entries`; `found` is None for a new store.

    Raises:
        ConfigError: new settings would delete staged clips. With `overwrite` they are deleted.
        MissingPathError: they would, and the files of some cannot be read.
    """
    # the manifest of a killed run may have rows of videos that the attributes do not list yet
    old_ids = tuple(dict.fromkeys((*(found.video_ids if found else ()), *entries)))
    known = set(old_ids)
    attributes = StoreAttributes(
        grid=config.grid(),
        settings=stored_settings(config),
        digest=digest(config),
        frame_codec=config.frame_codec,
        video_ids=old_ids + tuple(video.video_id for video in dataset.videos if video.video_id not in known),
        waveform=config.waveform,
    )
    row_of = {video_id: row for row, video_id in enumerate(attributes.video_ids)}
    todo, redated, unchanged, unreadable = [], [], [], 0
    for video in dataset.videos:
        path = os.path.abspath(video.path) if video.path else ""
        entry = entries.get(video.video_id)
        cause = _cause(entry, path, config, restage, begun=found is not None)
        if cause is not None:
            todo.append(Entry(video.video_id, row_of[video.video_id], cause=cause, source_path=path))
            continue
        assert entry is not None
        now = _as_on_disk(entry, path)
        if now != entry:
            redated.append(now)
        unchanged.append(now)
        # with `overwrite`, only clips whose file cannot be read come this far
        unreadable += entry.state == "staged" and (restage.overwrite or _status(path) is None)
    removed = _removed(
        entries.values(), {video.video_id for video in dataset.videos}, row_of, attributes.digest
    )
    voided = [entries[each.video_id] for each in removed if _is_whole(entries[each.video_id], found)]
    if not restage.overwrite:
        again = [each for each in todo if _is_whole(entries.get(each.video_id), found)]
        _refuse_to_lose(again + voided)
        if again and found is not None and found.digest != attributes.digest:
            _refuse_to_stage_again([entries[each.video_id] for each in again], found.settings, config)
    return Plan(attributes, tuple(todo), tuple(unchanged), tuple(redated), removed, unreadable, len(voided))


def _cause(
    entry: Entry | None, path: str, config: ExtractConfig, restage: RestageOptions, begun: bool
) -> Cause | None:
    """Returns why the clip has to be staged, None if it need not be.

    A staged clip whose file cannot be read stays as it is, so a disk that is not mounted does no harm.
    """
    if entry is None:
        return "new"
    if entry.state == "pending":
        return entry.cause
    if not begun:
        return "new"
    if entry.settings != digest(config) or _audio_rule_changed(entry, config):
        return "settings-changed"
    if restage.overwrite or _source_changed(entry, path):
        must_stay = entry.state == "staged" and not _readable(path)
        return None if must_stay else "overwrite" if restage.overwrite else "source-changed"
    return "retry-failed" if entry.state == "failed" and restage.retry_failed else None


def _is_whole(entry: Entry | None, found: StoreAttributes | None) -> bool:
    """Returns whether the clip is staged with the settings that the store has so far."""
    if entry is None or found is None:
        return False
    return entry.state == "staged" and entry.settings == found.digest


def _refuse_to_lose(entries: Sequence[Entry]) -> None:
    """Raises MissingPathError if one of these whole clips has no readable file to be staged again from."""
    lost = [entry for entry in entries if not _readable(entry.source_path)]
    if lost:
        where = lost[0].source_path or lost[0].video_id
        raise MissingPathError(
            f"these settings would delete {len(lost)} staged clips whose files cannot be read, "
            f"the first: {where}",
            hint="mount their disk, or stage into another store; --overwrite deletes them",
        )


def _refuse_to_stage_again(
    entries: Sequence[Entry], before: Mapping[str, object], config: ExtractConfig
) -> NoReturn:
    """Raises ConfigError: these whole clips would be staged again, as settings differ from `before`."""
    now = as_plain(stored_settings(config))
    changes = [
        f"{key} was {before.get(key)}, is now {value}"
        for key, value in now.items()
        if value != before.get(key)
    ]
    minutes = core_seconds(entries) / 60
    raise ConfigError(
        f"{', '.join(changes)}: that would delete "
        f"{len(entries)} staged clips, which took about {minutes:.1f} minutes of one core",
        hint="give another STORE, or --overwrite to stage these clips again",
    )


def _removed(
    entries: Iterable[Entry], present: set[str], row_of: Mapping[str, int], settings: str
) -> tuple[Entry, ...]:
    """Returns, as pending, videos that left the dataset, with chunks incomplete or of other settings."""
    return tuple(
        Entry(entry.video_id, row_of[entry.video_id], cause=entry.cause)
        for entry in entries
        if entry.video_id not in present
        and entry.state != "failed"
        and (entry.state == "pending" or entry.settings != settings)
    )


def _audio_rule_changed(entry: Entry, config: ExtractConfig) -> bool:
    """Returns whether `missing_audio` now decides otherwise about a clip.

    It matters only for clips without audio, so it is not part of the digest, which would restage all clips.
    """
    if config.missing_audio == "fail":
        return entry.state == "staged" and entry.audio == "silence"
    return entry.reason == "no-audio"


def _source_changed(entry: Entry, path: str) -> bool:
    """Compares size and date; where only the date differs, also the bytes."""
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
    """Returns the entry with the file's path and date now, unchanged if the file cannot be read."""
    status = _status(path)
    if status is None or (status[1] != entry.source_mtime_ns and not _readable(path)):
        return entry
    return replace(entry, source_path=path, source_mtime_ns=status[1])


def _status(path: str) -> tuple[int, int] | None:
    """Returns size and modification time of a file; None where there is none."""
    try:
        status = os.stat(file_at(path))
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _readable(path: str) -> bool:
    """Returns whether the file opens, since missing permissions and stale mounts show only then."""
    try:
        with open(file_at(path), "rb"):
            return True
    except OSError:
        return False
