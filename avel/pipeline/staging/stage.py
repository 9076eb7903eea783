"""Stages one clip: writes its frames, log-mel and waveform into the store, and describes it in an entry."""

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avel.config import digest
from avel.errors import AvelError
from avel.grid import CHUNK_SEGMENTS, Grid
from avel.pipeline.config import ExtractConfig
from avel.pipeline.media.audio import as_int16
from avel.pipeline.media.log_mel import MEL_SAMPLE_RATE, log_mel
from avel.pipeline.media.reading import Media, open_media
from avel.pipeline.media.refusal import ClipRefused
from avel.stores.clip_writer import ClipWriter
from avel.stores.files import file_at
from avel.stores.jpeg import encode_jpeg
from avel.stores.location import RemoteLocation, locate
from avel.stores.manifest import Entry, Manifest, failed

KIB = 1 << 10
PIECE_BYTES = 1 << 20
TELL_SECONDS = 5.0
"""Most seconds between two calls of `uncounted`, while an object store keeps a clip waiting."""


@dataclass
class Stopwatch:
    """Seconds that each step took for one clip. Reading and hashing the file count as decoding."""

    decode: float = 0.0
    scale: float = 0.0
    jpeg: float = 0.0
    audio: float = 0.0
    write: float = 0.0

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Adds the duration of the block to the step `name`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - began)

    def move(self, name: str, seconds: float) -> None:
        """Moves `seconds` from decoding to the step `name`, which ran within its time."""
        self.decode -= seconds
        setattr(self, name, getattr(self, name) + seconds)

    def columns(self) -> dict[str, Any]:
        """Returns the fields of an `Entry` for these seconds and for this process's peak memory."""
        seconds = {f"{step}_seconds": round(getattr(self, step), 6) for step in STEPS}
        return seconds | {"peak_mib": peak_mib()}


STEPS = tuple(step.name for step in fields(Stopwatch))
"""Steps of staging a clip; an entry has the seconds of each, as `decode_seconds` and so on."""


def core_seconds(entries: Manifest) -> float:
    """Returns what staging clips took, all steps together, in seconds of one core."""
    return float(sum(entries.column(f"{step}_seconds").sum() for step in STEPS))


@dataclass
class Stager:
    """Stages clips into one store, one after another.

    Args:
        run: token with which `prepare_store` was called.
        alive: called after each chunk of a clip, so that a watching process can tell slow from hung.
        uncounted: called where time passed that is not the clip's: after each MiB of the source file that was
            hashed, and while an object store does not answer.
    """

    store: str
    config: ExtractConfig
    run: str = ""
    alive: Callable[[], None] = lambda: None
    uncounted: Callable[[], None] = lambda: None
    writer: ClipWriter = field(init=False)

    def __post_init__(self) -> None:
        self.digest = digest(self.config)
        self.grid = self.config.grid()
        self.writer = ClipWriter(locate(self.store), self.digest, self.run)

    def stage(self, entry: Entry) -> Entry:
        """Stages one clip; returns its entry. A staged one is on disk only after `clip_writer.flush`.

        Raises:
            WriteError: the store cannot be written.
            StaleError: another run has begun on the store.
        """
        watch = Stopwatch()
        try:
            with watch.timing("decode"):
                entry = fingerprint(entry, self.uncounted)
            if entry.cause != "new":  # what is there of a new clip, if anything, is overwritten now
                self._erase(entry.row)
            return replace(self._stage(entry, watch), **watch.columns())
        except ClipRefused as refused:
            reason, detail = refused.reason, refused.detail
        except MemoryError:
            reason, detail = "memory", "the decoder could not allocate memory"
        except AvelError:  # a fault of the store or the run, not of the clip
            raise
        except Exception as error:  # an error that we did not foresee fails this clip, not the run
            reason, detail = "crashed", f"{type(error).__name__}: {error}"
        self._erase(entry.row)
        return replace(failed(entry, reason, detail), settings=self.digest, **watch.columns())

    def _erase(self, row: int) -> None:
        with self._waiting():
            self.writer.erase(row)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Calls `uncounted` while the block waits for an object store, which is not the clip's time."""
        if not isinstance(self.writer.location, RemoteLocation):
            yield
            return
        done = threading.Event()

        def tell() -> None:
            while not done.wait(min(TELL_SECONDS, self.config.time_limit / 2)):
                self.uncounted()

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            done.set()
            teller.join()

    def _stage(self, entry: Entry, watch: Stopwatch) -> Entry:
        log_mel_grid, before = self.grid.at(MEL_SAMPLE_RATE), self.writer.written_bytes
        grid = self.grid if self.config.waveform else log_mel_grid
        if grid != log_mel_grid:  # read the audio at the other rate as well
            with self._opened(entry, log_mel_grid, watch) as media:
                self._audio(media, entry.row, watch, log_mel_grid)
        with self._opened(entry, grid, watch) as media:
            self._audio(media, entry.row, watch, grid)
            self._video(media, entry.row, watch)
            info, has_audio = media.info, media.has_audio
        return replace(
            entry,
            state="staged",
            settings=self.digest,
            detail=info.damage,
            audio="stream" if has_audio else "silence",
            stored_bytes=self.writer.written_bytes - before,
            valid_seconds=round(info.valid_seconds, 6),
        )

    @contextmanager
    def _opened(self, entry: Entry, grid: Grid, watch: Stopwatch) -> Iterator[Media]:
        opening = open_media(
            file_at(entry.source_path),
            grid,
            resize=self.config.resize,
            missing_audio=self.config.missing_audio,
            for_jpeg=self.config.frame_codec == "jpeg",
            alive=self.alive,
        )
        with ExitStack() as stack:
            with watch.timing("decode"):
                media = stack.enter_context(opening)
            yield media

    def _audio(self, media: Media, row: int, watch: Stopwatch, grid: Grid) -> None:
        """Writes what is kept of audio at the sample rate of `grid`: log-mel patches, waveform, or both."""
        samples, first = media.samples(), 0
        while True:
            with watch.timing("audio"):
                chunk = next(samples, None)
                if chunk is None:
                    return
                patches = None
                if grid.sample_rate == MEL_SAMPLE_RATE:
                    patches = log_mel(chunk.reshape(-1, grid.samples_per_segment))
            with watch.timing("write"), self._waiting():
                if patches is not None:
                    self.writer.write("log_mel", row, first // grid.samples_per_segment, patches)
                if self.config.waveform and grid == self.grid:
                    self.writer.write("waveform", row, first, as_int16(chunk))
            first += len(chunk)
            self.alive()

    def _video(self, media: Media, row: int, watch: Stopwatch) -> None:
        first = 0
        with watch.timing("decode"):
            for block in self._blocks(media, watch):
                began = time.perf_counter()
                with self._waiting():
                    self.writer.write("frames", row, first, block)
                watch.move("write", time.perf_counter() - began)
                first += len(block)
                self.alive()
            watch.move("scale", media.scale_seconds)

    def _blocks(self, media: Media, watch: Stopwatch) -> Iterator[NDArray[np.uint8] | list[bytes]]:
        """Yields the frames of one chunk of the store at a time, encoded as the store holds them."""
        if self.config.frame_codec == "raw":
            yield from media.frames(CHUNK_SEGMENTS)
            return
        files: list[bytes] = []
        for picture, slots in media.pictures():  # encode each at once, while it is in the processor's cache
            began = time.perf_counter()
            file = encode_jpeg(picture, self.config.jpeg_quality, media.colours)
            watch.move("jpeg", time.perf_counter() - began)
            for _ in range(slots):
                files.append(file)
                if len(files) == self.writer.attributes.chunk_frames:
                    yield files
                    files = []
        if files:
            yield files


def peak_mib() -> int:
    """Returns the most memory that this process has used, in MiB; 0 where the system does not say.

    psutil does not know it, and getrusage would also count the parent's memory at the fork.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s*(\d+)", status, re.MULTILINE)
    return int(found[1]) // KIB if found else 0


def fingerprint(entry: Entry, after_mib: Callable[[], None] = lambda: None) -> Entry:
    """Returns the entry with size, modification time and SHA-256 of its source file.

    Raises:
        ClipRefused: the file is missing or cannot be read.
    """
    if not entry.source_path:
        raise ClipRefused("missing", "the dataset has no file for it")
    try:
        with open(file_at(entry.source_path), "rb") as file:
            status, sha256 = os.fstat(file.fileno()), hashlib.sha256()
            while piece := file.read(PIECE_BYTES):
                sha256.update(piece)
                after_mib()
    except FileNotFoundError:
        raise ClipRefused("missing", entry.source_path) from None
    except OSError as error:
        raise ClipRefused("unreadable", str(error)) from None
    return replace(
        entry,
        source_bytes=status.st_size,
        source_mtime_ns=status.st_mtime_ns,
        source_sha256=sha256.hexdigest(),
    )
