"""Packs staged clips of a store into shards for `avel pack`, so that there are fewer files.

A shard is written under a temporary name and renamed. Then the manifest calls its clips packed. Then their
chunks outside the shard are deleted. So a kill at any moment leaves every clip whole, and the manifest says
where.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.ahead import read_ahead, reading_threads
from avel.errors import ConfigError, StoreError
from avel.progress import Progress
from avel.stores.chunks import verified
from avel.stores.clip_layout import (
    RUN_TOKEN,
    StoreAttributes,
    array_spec,
    chunk_name,
    read_chunk,
    without_format_warning,
)
from avel.stores.clip_writer import end_run, erase, remove_leftovers, writing
from avel.stores.clips import ClipStore
from avel.stores.documents import parse
from avel.stores.location import Location, RemoteLocation
from avel.stores.manifest import Entry, Manifest, ManifestWriter, read_manifest
from avel.stores.shards import NO_PLACE, PACK_AGAIN, PACKED, SHARDS_AGAIN, Packing, index_of, read_packing
from avel.text import duration, plural

CLIPS = 64
"""Clips to a shard by default: a quarter of a GB of frames as JPEG files."""
MOST_UPLOADS = 4
"""Shards on their way to an object store at once, each of them in memory."""


@dataclass(frozen=True)
class PackSummary:
    """Results of packing.

    Attributes:
        clips: staged clips of the store.
        packed: how many of them lie in shards now.
        now: how many this run has packed.
        shards: how many shards this run has written.
        room: how many clips a shard has room for.
        waiting: staged clips that are not packed because others of their shard are still to be staged.
        damaged: video id -> what is wrong, of clips that were found damaged; they stay where they are.
    """

    store: str
    clips: int
    packed: int
    now: int
    shards: int
    room: int
    waiting: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def headline(self) -> str:
        """Returns the result in one line."""
        whole = f"{self.packed:,} of {plural(self.clips, 'staged clip')} in shards of {self.room}"
        waits = f", {self.waiting:,} wait until the rest of their shard is staged" if self.waiting else ""
        first = next(iter(self.damaged.items()), None)
        lost = f", {len(self.damaged):,} damaged, the first: {first[0]} ({first[1]})" if first else ""
        return f"{self.store}: {whole}{waits}{lost}; {self.now:,} packed now, in {duration(self.seconds)}"


def pack(store: Path | str, clips: int | None = None) -> PackSummary:
    """Moves the staged clips of a store into shards of `clips` clips, 64 by default; reading works as before.

    A shard is written once none of its clips is still to be staged. After an interruption the same call goes
    on. Clips that `extract` stages later lie in files of their own, until the next call.

    Raises:
        BusyError: another run is at work on the store.
        ConfigError: the store has shards of another number of clips.
        MissingPathError: there is no store.
        StoreError: the store is damaged, or has another format or version.
        WriteError: the store cannot be written.
    """
    began = time.monotonic()
    location = ClipStore.open(store).location
    with ExitStack() as stack:
        with writing(location):
            check_lock = stack.enter_context(location.lock())
            remove_leftovers(location)
            opened, manifest = ClipStore.open(store), ManifestWriter(location)
            entries = manifest.entries
            packing = _prepare(opened, entries, clips)
            location.write(RUN_TOKEN, uuid.uuid4().hex.encode())  # workers of earlier runs write nothing more
            _delete_rest(opened.attributes, location, entries)
        shards, waiting = _shards(entries, opened.digest, packing)
        packer, damaged, now = _Packer(location, opened.attributes, packing, entries), dict[str, str](), 0
        with Progress(sum(map(len, shards)), "clips", of="packing") as progress:
            for places, (packed, faults) in zip(shards, packer.pack_all(shards), strict=True):
                with writing(location):
                    check_lock()
                    manifest.append(packed)
                erase(location, opened.attributes, [entry.row for entry in packed])
                damaged |= faults
                now += len(packed)
                progress.advance(len(places), failed=len(faults))
        with writing(location):
            check_lock()
            manifest.merge()
        end_run(location)
    staged = entries.where(state="staged", settings=opened.digest)
    return PackSummary(
        store=str(store),
        clips=len(staged),
        packed=int(staged.column("packed").sum()) + now,
        now=now,
        shards=len(shards),
        room=packing.clips,
        waiting=waiting,
        damaged=damaged,
        seconds=round(time.monotonic() - began, 3),
    )


def delete_unused_shards(location: Location) -> None:
    """Deletes the shards without a packed clip: all of theirs were staged again, or are to be.

    Raises:
        WriteError: the store does not allow it.
    """
    packing = read_packing(location)
    if packing is None:
        return
    used = {str(row // packing.clips) for row in read_manifest(location).packed_rows.tolist()}
    with writing(location):
        parts = [(name, name.split("/")) for name in location.names(PACKED)]  # packed/ARRAY/c/SHARD/...
        unused = [(name, part) for name, part in parts if part[2:3] == ["c"] and part[3] not in used]
        location.delete([name for name, _ in unused])
        location.prune({"/".join(part[:4]) for _, part in unused})


def _prepare(store: ClipStore, entries: Manifest, clips: int | None) -> Packing:
    """Makes the arrays of the shards, or gives them rows for new videos; writes their group last.

    Raises:
        ConfigError: there are shards of another number of clips.
    """
    packing, location = store.packing or Packing(CLIPS if clips is None else clips), store.location
    if clips is not None and clips != packing.clips:
        raise _other_room(location, packing.clips, clips)
    has_packed = bool(len(entries.packed_rows))
    for name in store.attributes.arrays:
        file = f"{PACKED}/{name}/zarr.json"
        wanted, before = _array_json(store.attributes, name, packing), location.read(file)
        if before is not None and has_packed:
            where = f"{location.url}/{file}"
            again = PACK_AGAIN if store.packing is None else SHARDS_AGAIN
            grid = parse(before, where, again).get("chunk_grid")
            if grid != parse(wanted, where, again)["chunk_grid"]:
                raise _other_room(location, _room(grid, where, again), packing.clips)
        if before != wanted:
            location.write(file, wanted)
    if store.packing is None:
        location.write(f"{PACKED}/zarr.json", packing.as_json())
    return packing


def _room(grid: Any, where: str, hint: str) -> object:
    """Returns how many clips a shard has room for by the `chunk_grid` of an array."""
    try:
        return grid["configuration"]["chunk_shape"][0]
    except (TypeError, LookupError):
        raise StoreError(f"{where}: its chunk_grid has no chunk_shape", hint=hint) from None


def _other_room(location: Location, room: object, clips: int) -> ConfigError:
    return ConfigError(
        f"{location.url}: has shards of {room} clips, not of {clips}",
        hint=f"avel pack STORE --clips {room}; other shards need a new store",
    )


def _array_json(attributes: StoreAttributes, name: str, packing: Packing) -> bytes:
    """Returns the zarr.json of an array of shards."""
    import zarr
    from zarr.core.buffer import Buffer
    from zarr.storage import MemoryStore

    files: dict[str, Buffer] = {}
    with without_format_warning():
        zarr.create_array(MemoryStore(files), name=name, **array_spec(attributes, name, packing))
    return files[f"{name}/zarr.json"].to_bytes()


def _delete_rest(attributes: StoreAttributes, location: Location, entries: Manifest) -> None:
    """Deletes what a killed run has left: packed clips' chunks outside shards, and shards without clips."""
    delete_unused_shards(location)
    packed = set(entries.packed_rows.tolist())
    if packed:
        rows = {name.split("/")[2] for array in attributes.arrays for name in location.names(f"{array}/c")}
        erase(location, attributes, sorted(packed & {int(row) for row in rows if row.isdecimal()}))


def _shards(entries: Manifest, digest: str, packing: Packing) -> tuple[list[NDArray[np.int64]], int]:
    """Returns the places of the staged clips of each shard to write, and how many clips wait for others."""
    shard, packed = entries.column("row") // packing.clips, entries.column("packed")
    staged = entries.holds(state="staged", settings=digest)
    new = staged & ~packed
    waits = np.isin(shard, shard[~staged & ~entries.holds(state="failed")])
    places = (staged & ~waits & np.isin(shard, shard[new])).nonzero()[0]
    places = places[np.argsort(shard[places], kind="stable")]
    begins = np.diff(shard[places], prepend=-1).nonzero()[0]
    return np.split(places, begins)[1:], int((new & waits).sum())


@dataclass(frozen=True)
class _Packer:
    """Writes shards of one store."""

    location: Location
    attributes: StoreAttributes
    packing: Packing
    entries: Manifest

    def pack_all(self, shards: Sequence[NDArray[np.int64]]) -> Iterator[tuple[list[Entry], dict[str, str]]]:
        """Yields the entries that each shard has newly packed, and the clips of it that are damaged."""
        threads = reading_threads(None)
        if isinstance(self.location, RemoteLocation):
            threads = min(threads, MOST_UPLOADS)
        return read_ahead(self._pack, shards, threads=threads, ahead=0)

    def _pack(self, places: NDArray[np.int64]) -> tuple[list[Entry], dict[str, str]]:
        """Writes the shards of some clips: one file for each array and each chunk that a clip has in it."""
        entries = list(self.entries.take(places).values())
        faults: dict[str, str] = {}
        try:
            for name in self.attributes.arrays:
                for number in range(self.attributes.chunks):
                    file = chunk_name(self.attributes, name, entries[0].row, number, self.packing)
                    with writing(self.location):
                        self.location.write_pieces(file, self._pieces(entries, name, number, faults))
        except ValueError as error:  # without its index the old shard cannot be read, so it stays
            return [], {entry.video_id: str(error) for entry in entries if entry.packed}
        new = [entry for entry in entries if not entry.packed and entry.video_id not in faults]
        return [replace(entry, packed=True) for entry in new], faults

    def _pieces(
        self, entries: Sequence[Entry], name: str, number: int, faults: dict[str, str]
    ) -> Iterator[bytes]:
        """Yields the clips' chunks and the index; adds damaged clips to `faults`.

        A damaged clip of the shard that is replaced comes along as it is, so that nothing is lost.

        Raises:
            ValueError: the index of the shard that is replaced is damaged.
        """
        places, at = [NO_PLACE] * self.packing.clips, 0
        for entry in entries:
            packing = self.packing if entry.packed else None
            chunk = read_chunk(self.location, self.attributes, name, entry.row, number, packing)
            fault = _fault(chunk)
            if fault:
                faults[entry.video_id] = f"{name}: {fault}"
            if chunk is None or (fault and not entry.packed):
                continue
            places[entry.row % self.packing.clips] = at, len(chunk)
            at += len(chunk)
            yield chunk
        yield index_of(places)


def _fault(chunk: bytes | None) -> str:
    if chunk is None:
        return "its chunk is missing"
    try:
        verified(chunk)
    except ValueError as error:
        return str(error)
    return ""
