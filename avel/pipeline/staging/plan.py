"""Plans a run of `avel extract`: which clips it has to stage, and why each of them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from avel.config import digest, settings_of
from avel.errors import ConfigError, MissingPathError
from avel.pipeline.config import ExtractConfig
from avel.pipeline.media.refusal import ClipRefused
from avel.pipeline.staging.stage import core_seconds, fingerprint
from avel.stores.clip_layout import StoreAttributes
from avel.stores.columns import BLOCK_RECORDS, as_bools
from avel.stores.datasets.dataset import Dataset
from avel.stores.files import file_at
from avel.stores.manifest import Cause, Entry, Manifest, joined, pending, to_table
from avel.stores.shards import Packing
from avel.text import as_plain, duration, plural


@dataclass(frozen=True)
class Plan:
    """Work of one run.

    Attributes:
        attributes: the store's attributes after the run.
        video_ids: the video of each row after the run: old videos keep their rows, new ones follow.
        todo: pending entries of the clips to stage.
        unchanged: entries of the dataset's other clips, staged or failed in an earlier run.
        redated: new entries for those of `unchanged` whose file has the same bytes at a new path or date.
        removed: pending entries of videos no longer in the dataset, whose chunks must be deleted: they are
            incomplete or of other settings, and nothing will stage them again.
        unreadable: how many of `unchanged` are staged although their file cannot be read now.
        voided: how many of `removed` are staged with the store's old settings.
        replaced_bytes: what the store loses with the staged clips among `todo` and `removed`.
    """

    attributes: StoreAttributes
    video_ids: pa.Array
    todo: Manifest
    unchanged: Manifest
    redated: tuple[Entry, ...]
    removed: Manifest
    unreadable: int = 0
    voided: int = 0
    replaced_bytes: int = 0

    @property
    def videos(self) -> int:
        """Returns how many videos the dataset has."""
        return len(self.unchanged) + len(self.todo)

    @property
    def begun(self) -> Manifest:
        """Returns the entries with which the run begins."""
        return joined(Manifest(to_table(self.redated)), self.todo, self.removed)


@dataclass(frozen=True)
class RestageOptions:
    """Options that stage unchanged clips again: those that failed, all, or damaged ones.

    Attributes:
        damaged: id of each clip whose bytes in the store are damaged -> what is wrong with them.
    """

    retry_failed: bool = False
    overwrite: bool = False
    damaged: Mapping[str, str] = field(default_factory=dict)


def stored_settings(config: ExtractConfig) -> dict[str, object]:
    """Returns the settings that change what is stored, by name."""
    return {setting.key: setting.of(config) for setting in settings_of(config) if setting.in_key}


def make_plan(
    dataset: Dataset,
    config: ExtractConfig,
    found: StoreAttributes | None,
    rows: pa.Array,
    entries: Manifest,
    restage: RestageOptions,
    packing: Packing | None = None,
) -> Plan:
    """Compares the dataset and the config with a store.

    Args:
        found: attributes of the store, None for a new one.
        rows: the video of each of its rows.
        entries: its manifest.
        packing: form of the store's shards, if it has any.

    Raises:
        ConfigError: new settings would delete staged clips. With `overwrite` they are deleted.
        MissingPathError: new settings would delete staged clips whose files cannot be read.
    """
    ids, entry_ids = (each.table["video_id"].combine_chunks() for each in (dataset.videos, entries))
    # An id's row is its place among the distinct ids. The manifest of a killed run may have rows of videos
    # that the store does not list yet.
    encoded = pa.concat_arrays([rows, entry_ids, ids]).dictionary_encode()
    video_ids, numbers = encoded.dictionary, encoded.indices.to_numpy()
    row_of_entry, row_of_video = np.split(numbers[len(rows) :], [len(entries)])
    attributes = StoreAttributes(
        grid=config.grid(),
        settings=stored_settings(config),
        digest=digest(config),
        frame_codec=config.frame_codec,
        videos=len(video_ids),
        waveform=config.waveform,
    )
    paths = dataset.videos.table["path"].combine_chunks()
    place_of_row = np.full(len(video_ids), -1)
    place_of_row[row_of_entry] = np.arange(len(entries))
    places = place_of_row[row_of_video]
    known_causes = _known_causes(entries, config, attributes.digest, is_new=found is None)
    causes, redated, unreadable = _compare_files(paths, entries, places, known_causes, restage)
    is_gone = ~np.isin(row_of_entry, row_of_video) & _left_over(entries, attributes.digest)
    places_gone = is_gone.nonzero()[0]
    todo = (causes != "").nonzero()[0]
    known = todo[places[todo] >= 0]
    old, gone = entries.take(places[known]), entries.take(places_gone)
    again, voided = (each.take(_staged_places(each, found)) for each in (old, gone))
    if not restage.overwrite:
        lost = paths.take(known[_staged_places(old, found)]).to_pylist()
        _refuse_to_lose([*lost, *voided.texts("source_path")])
        if len(again) and found is not None and found.digest != attributes.digest:
            _refuse_to_stage_again(again, found.settings, config)
    rows_gone, nowhere = row_of_entry[places_gone], [""] * len(gone)
    return Plan(
        attributes=attributes,
        video_ids=video_ids,
        todo=pending(ids.take(todo), row_of_video[todo], causes[todo], paths.take(todo)),
        unchanged=entries.take(np.delete(places, todo)),
        redated=tuple(redated),
        removed=pending(gone.table["video_id"], rows_gone, gone.table["cause"], nowhere),
        unreadable=unreadable,
        voided=len(voided),
        replaced_bytes=_lost_bytes(entries, np.append(places[known], places_gone), packing),
    )


def _known_causes(
    entries: Manifest, config: ExtractConfig, made_with: str, *, is_new: bool
) -> NDArray[np.object_]:
    """Returns why each clip has to be staged whatever its file is, "" where that depends on the file."""
    causes = np.full(len(entries), "", object)
    causes[~entries.holds(settings=made_with) | _audio_rule_changed(entries, config)] = "settings-changed"
    if is_new:
        causes[:] = "new"
    begun_before = entries.holds(state="pending").nonzero()[0]
    causes[begun_before] = np.array(entries.take(begun_before).texts("cause"), object)
    return causes


def _compare_files(
    paths: pa.Array,
    entries: Manifest,
    places: NDArray[np.int64],
    known_causes: NDArray[np.object_],
    restage: RestageOptions,
) -> tuple[NDArray[np.object_], list[Entry], int]:
    """Returns why each video has to be staged, "" for no reason; and `redated`, `unreadable` of a Plan.

    Looks at the file of each video whose entry alone does not tell whether to stage it. Compares columns
    first, since most files are as they were, and a million `Entry` objects take long.

    Args:
        places: (V,) place of each video's entry, -1 for a video without one.
        known_causes: what `_known_causes` returned.
    """
    causes = np.append(known_causes, "new")[places]  # place -1 takes the last: new
    undecided = (causes == "").nonzero()[0]  # numbers of videos
    at = places[undecided]
    old = entries.table.select(["source_path", "source_bytes", "source_mtime_ns"]).take(pa.array(at))
    files = old.set_column(0, "source_path", paths.take(pa.array(undecided)))
    unclear = as_bools(pc.not_equal(files["source_path"], old["source_path"])) | restage.overwrite
    if restage.damaged:
        unclear |= entries.is_one_of("video_id", sorted(restage.damaged))[at]
    for begin in () if restage.overwrite else range(0, len(unclear), BLOCK_RECORDS):
        block = files.slice(begin, BLOCK_RECORDS)
        rows = zip(*(column.to_pylist() for column in block.columns), strict=True)
        unclear[begin : begin + len(block)] |= [_status(path) != (size, mtime) for path, size, mtime in rows]
    if restage.retry_failed:
        causes[undecided[~unclear & entries.holds(state="failed")[at]]] = "retry-failed"
    numbers, redated, unreadable = undecided[unclear], list[Entry](), 0
    unclear_paths, unclear_entries = paths.take(pa.array(numbers)).to_pylist(), entries.take(places[numbers])
    for number, path, entry in zip(numbers.tolist(), unclear_paths, unclear_entries.records(), strict=True):
        cause = _cause(entry, path, restage)
        if cause is not None:
            causes[number] = cause
            continue
        now = _as_on_disk(entry, path)
        if now != entry:
            redated.append(now)
        unreadable += entry.state == "staged" and not _readable(path)
    return causes, redated, unreadable


def _cause(entry: Entry, path: str, restage: RestageOptions) -> Cause | None:
    """Returns why a clip has to be staged, by its file and the options; None if it need not be.

    A staged clip whose file cannot be read stays as it is, so a disk that is not mounted does no harm.
    """
    cause: Cause | None = "retry-failed" if entry.state == "failed" and restage.retry_failed else None
    if restage.overwrite:
        cause = "overwrite"
    elif entry.video_id in restage.damaged:
        cause = "damaged"
    elif _source_changed(entry, path):
        cause = "source-changed"
    return None if entry.state == "staged" and not _readable(path) else cause


def _staged_places(entries: Manifest, found: StoreAttributes | None) -> NDArray[np.int64]:
    """Returns the places of the clips that are staged with the settings that the store has so far."""
    if found is None:
        return np.array([], np.int64)
    return entries.holds(state="staged", settings=found.digest).nonzero()[0]


def _lost_bytes(entries: Manifest, places: NDArray[np.int64], packing: Packing | None) -> int:
    """Returns the bytes a store loses with these clips. A shard goes only when no clip of it stays."""
    goes, packed = np.zeros(len(entries), bool), entries.column("packed")
    goes[places] = True
    lost = goes & entries.holds(state="staged")
    if packing is not None:
        shards = entries.column("row") // packing.clips
        lost &= ~(packed & np.isin(shards, shards[packed & ~goes]))
    return int(entries.column("stored_bytes")[lost].sum())


def _left_over(entries: Manifest, made_with: str) -> NDArray[np.bool_]:
    """Returns for each entry whether its chunks are incomplete, or of other settings."""
    others = ~entries.holds(state="failed") & ~entries.holds(settings=made_with)
    return entries.holds(state="pending") | others


def _refuse_to_lose(paths: Sequence[str]) -> None:
    """Raises MissingPathError if one of `paths`, sources of staged clips to be deleted, cannot be read."""
    lost = [path for path in paths if not _readable(path)]
    if lost:
        raise MissingPathError(
            f"these settings would delete {plural(len(lost), 'staged clip')} whose files cannot be read, "
            f"the first: {lost[0]}",
            hint="mount their disk, or stage into another store; --overwrite deletes them",
        )


def _refuse_to_stage_again(
    entries: Manifest, before: Mapping[str, object], config: ExtractConfig
) -> NoReturn:
    """Raises ConfigError: these staged clips would be staged again, as settings differ from `before`."""
    now = as_plain(stored_settings(config))
    changes = [
        f"{key} was {before.get(key)}, is now {value}"
        for key, value in now.items()
        if value != before.get(key)
    ]
    raise ConfigError(
        f"{', '.join(changes)}: that would delete {plural(len(entries), 'staged clip')}, which took about "
        f"{duration(core_seconds(entries))} of one core",
        hint="give another STORE, or --overwrite to stage these clips again",
    )


def _audio_rule_changed(entries: Manifest, config: ExtractConfig) -> NDArray[np.bool_]:
    """Returns for each entry whether `missing_audio` now decides otherwise about its clip.

    The setting matters only for clips without audio. In the digest it would have all clips staged again.
    """
    if config.missing_audio == "fail":
        return entries.holds(state="staged", audio="silence")
    return entries.holds(reason="no-audio")


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
        status = os.stat(file_at(path) if "\\x" in path else path)  # a million Paths would take 8 s
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
