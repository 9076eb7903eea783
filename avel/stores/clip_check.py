"""Verifies a clip store: reads every chunk that the manifest lists, byte for byte."""

from __future__ import annotations

import errno
from collections import defaultdict
from typing import Any

import numpy as np

from avel.errors import StoreError
from avel.progress import Progress
from avel.stores.clip_layout import ROWS, START_AGAIN, chunk_name, chunk_shape, row_shape
from avel.stores.clips import ClipStore
from avel.stores.manifest import Entry
from avel.stores.seal import seal_fault

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


def verify_clips(store: ClipStore) -> tuple[str, ...]:
    """Lists the faults of a store, a line each; reads every byte and checks every checksum.

    Raises:
        StoreError: an array is missing, or of another form than the store's settings say.
    """
    faults = [f"{name}: {what}" for name, found in damaged_clips(store).items() for what in found]
    settings = store.location.read("config.toml")
    if settings is not None and (broken := seal_fault(settings)):
        faults.append(f"config.toml: {broken}")
    faults += [f"{name}: not in the manifest" for name in store.video_ids if name not in store.entries]
    return tuple(faults)


def damaged_clips(store: ClipStore) -> dict[str, list[str]]:
    """Reads every byte of all clips; returns what is wrong with each damaged one, by its id.

    Raises:
        StoreError: an array is missing, or of another form than the store's settings say.
    """
    _check_shapes(store)
    faults, video_of, suspects = defaultdict[str, list[str]](list), dict[int, str](), list[str]()
    with Progress(len(store.entries), "clips", of="verifying") as progress:
        for entry in store.entries.records():
            video_id, has_row = entry.video_id, entry.row < len(store.video_ids)
            if not has_row or store.video_ids[entry.row] != video_id:
                faults[video_id].append(f"the manifest says row {entry.row}, but {ROWS} does not")
            if entry.row in video_of:
                faults[video_id].append(f"shares row {entry.row} with {video_of[entry.row]}")
            video_of[entry.row] = video_id
            if has_row and _faults_of_video(store, entry):
                suspects.append(video_id)
            progress.advance()
    # `avel pack` may have moved chunks meanwhile, so suspects are read a second time
    again = ClipStore(store.location, store.attributes)
    for video_id in suspects:
        if found := _faults_of_video(again, again.entries[video_id]):
            faults[video_id] += found
    return dict(faults)


def _check_shapes(store: ClipStore) -> None:
    """Raises StoreError if an array does not have the shape that the store's attributes ask for."""
    for name, array in store.arrays.items():
        expected = (len(store), *row_shape(store.attributes, name))
        if array.shape != expected:
            raise StoreError(
                f"{store.location.url}: {name} has the shape {array.shape}, its settings ask for {expected}",
                hint=START_AGAIN,
            )
    last = int(store.entries.packed_rows.max(initial=-1))
    if last < 0:
        return
    store.packing_of(last)  # raises where nothing says what form the shards have
    if any(array.shape[0] <= last for array in store.packed_arrays.values()):
        raise StoreError(
            f"{store.location.url}: the shards have too few rows",
            hint=f"avel pack {store.location.url} adds them",
        )


def _faults_of_video(store: ClipStore, entry: Entry) -> list[str]:
    """Lists what is wrong with the chunks of one video: damaged ones if it is staged, any if it failed."""
    if entry.state == "staged" and entry.settings == store.digest:
        return [fault for name in store.attributes.arrays for fault in _faults_of_array(store, entry, name)]
    if entry.state != "failed":
        return []
    extra = [
        file
        for name in store.attributes.arrays
        for file, is_there in _chunk_files(store, entry, name).items()
        if is_there
    ]
    return [f"failed, but {extra[0]} is there"] if extra else []


def _chunk_files(store: ClipStore, entry: Entry, name: str) -> dict[str, bool]:
    """Returns the file of each chunk of one video in an array, in order -> whether it is there."""
    numbers = range(store.attributes.chunks)
    if entry.packed:
        return {
            f"the chunk in {chunk_name(store.attributes, name, entry.row, number, store.packing)}": (
                store.find_chunk(name, entry.row, number) is not None
            )
            for number in numbers
        }
    there = set(store.location.names(f"{name}/c/{entry.row}"))
    files = [chunk_name(store.attributes, name, entry.row, number) for number in numbers]
    return {file: file in there for file in files}


def _faults_of_array(store: ClipStore, entry: Entry, name: str) -> list[str]:
    """Returns the first fault of one video's chunks, read one by one to spare memory; [] for none.

    A chunk that `avel pack` moves away meanwhile reads as fill values, which may look whole. So the files are
    looked for after reading: then that one is missing.
    """
    step, total = chunk_shape(store.attributes, name)[0], row_shape(store.attributes, name)[0]
    try:
        whole = [
            _is_whole(store.read_part(name, entry.row, slice(first, min(first + step, total))))
            for first in range(0, total, step)
        ]
        for (file, is_there), right in zip(_chunk_files(store, entry, name).items(), whole, strict=True):
            if not (is_there and right):
                return [f"{file} is incomplete" if is_there else f"staged, but {file} is missing"]
    except StoreError as error:
        return [error.message.removeprefix(f"{store.location.url}: {entry.video_id}: ")]
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EACCES):  # another error is not this file's fault
            raise
        return [f"{name} cannot be read: {error}"]
    return []


def _is_whole(chunk: np.ndarray[Any, Any]) -> bool:
    if chunk.dtype == object:
        return all(bytes(frame[:2]) == JPEG_START and bytes(frame[-2:]) == JPEG_END for frame in chunk.flat)
    return chunk.dtype.kind != "f" or not bool(np.isnan(chunk).any())
