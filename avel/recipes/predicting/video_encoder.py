"""Encodes videos of any length by the staging and the encoders that a feature cache was made with."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avel.config import digest
from avel.errors import MissingPathError, StaleError, StoreError
from avel.grid import Grid
from avel.pipeline.caching.encode import PartEncoder, Work
from avel.pipeline.caching.key import encoder_file_digest
from avel.pipeline.caching.parts import Parts
from avel.pipeline.config import CacheConfig, ExtractConfig
from avel.pipeline.media.audio import as_int16
from avel.pipeline.media.log_mel import SAMPLE_RATE, log_mel
from avel.pipeline.media.reading import Media, open_media
from avel.stores.features import FeatureCache
from avel.stores.files import sha256_file
from avel.stores.jpeg import Colours, decode_jpeg, encode_jpeg
from avel.stores.provenance import AGAIN, places_of
from avel.stores.runs import read_config

LONGEST_SECONDS = 86400
"""Most seconds that are read of a video: a day."""


@dataclass(frozen=True)
class VideoFeatures:
    """CNN vectors of one video, name -> (L, ...).

    L is the number of segments, at least T unless the clips of the cache have lengths of their own.
    """

    vectors: dict[str, Tensor]
    valid_seconds: float
    damage: str

    def segments(self, segment_seconds: float) -> int:
        """Counts the segments that the video covers by half or more, 1 at least."""
        return max(1, int(self.valid_seconds / segment_seconds + 0.5))


class VideoEncoder:
    """Stages and encodes videos in the way in which the clips of a cache were.

    Args:
        cache: the cache whose staging and encoders are taken.
        encoder: where its run of `pretrain` lies now, if not where the cache says.
        weights: files of backbones that the cache knows by their hash only: "visual", "audio".

    Raises:
        StoreError: the cache was not made by avel's encoders.
        StaleError: the encoder, weights or staging differ from the cache's.
    """

    def __init__(
        self,
        cache: FeatureCache,
        *,
        encoder: Path | None = None,
        weights: dict[str, Path] | None = None,
        device: str = "cpu",
    ) -> None:
        if places_of(cache.path, cache.provenance).store is None:
            raise StoreError(
                f"{cache.path}: its features were not made by avel, so no video can be encoded like them",
                hint="make a cache with avel cache-features, and train the head on that",
            )
        self.segments = cache.grid_segments
        self._fewest = 1 if cache.differing_lengths else self.segments
        self.staging = staging_of(cache)
        self.grid = self.staging.grid()
        self.encoder = PartEncoder(_work(cache, encoder, weights or {}), device)
        _check_cnns(cache, self.encoder.cnn_digest)
        self._frames = list(cache.made.preprocessing.frames)
        if not all(0 <= frame < self.grid.frames_per_segment for frame in self._frames):
            raise StoreError(f"{cache.path}: preprocessing.frames: a segment has fewer", hint=AGAIN)

    def encode(self, path: Path) -> VideoFeatures:
        """Computes the CNN vectors of every segment of a video, in bounded memory.

        But for the waveform, where the audio CNN reads that: an hour at 16 kHz takes 0.1 GB.

        Raises:
            ClipRefused: the video cannot be read.
        """
        grid = self._grid_of(path)
        parts: dict[str, list[Tensor]] = {}
        waveform = self._waveform(path, grid.segments) if self.encoder.reads_waveform else None
        first = 0
        with self._open(path, grid) as media:
            for frames, samples in zip(media.frames(), media.samples(), strict=True):
                patches = log_mel(samples.reshape(-1, grid.samples_per_segment))
                audio = torch.from_numpy(patches)[None] if waveform is None else waveform
                vectors = self.encoder.cnn(self._pictures(frames, media.colours), audio, first)
                for name, values in vectors.items():
                    parts.setdefault(name, []).append(values[0].cpu())
                first += len(patches)
            info = media.info
        vectors = {name: torch.cat(values) for name, values in parts.items()}
        return VideoFeatures(vectors, info.valid_seconds, info.damage)

    def _waveform(self, path: Path, segments: int) -> Tensor:
        """Returns the audio as a store holds it, at the cache's sample rate, on the device: int16 (1, n)."""
        grid = replace(self.grid, segments=segments)
        with self._open(path, grid) as media:
            chunks = [as_int16(chunk) for chunk in media.samples()]
        return torch.from_numpy(np.concatenate(chunks))[None].to(self.encoder.device)

    def _pictures(self, frames: NDArray[np.uint8], colours: Colours) -> Tensor:
        """Returns those frames of n segments that the CNN sees: (1, n * N, 3, H, W)."""
        shape = frames.shape[1:]
        chosen = frames.reshape(-1, self.grid.frames_per_segment, *shape)[:, self._frames]
        images = self.encoder.cropped(self._through_jpeg(chosen.reshape(-1, *shape), colours))
        return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)[None]

    def _through_jpeg(self, frames: NDArray[np.uint8], colours: Colours) -> NDArray[np.uint8]:
        """Returns frames with the loss of the store's JPEG, with which the encoders were trained."""
        if self.staging.frame_codec == "raw":
            return frames
        quality = self.staging.jpeg_quality
        return np.stack([decode_jpeg(encode_jpeg(frame, quality, colours)) for frame in frames])

    def _grid_of(self, path: Path) -> Grid:
        """Returns the staging's grid with as many segments as the video has, and no fewer than are needed."""
        seconds = self.grid.segment_seconds
        with self._open(path, self._of_length(int(LONGEST_SECONDS / seconds))) as media:
            covered = int(media.info.valid_seconds / seconds + 0.5)
        return self._of_length(max(self._fewest, covered))

    def _of_length(self, segments: int) -> Grid:
        return replace(self.grid.at(SAMPLE_RATE), segments=segments)

    def _open(self, path: Path, grid: Grid) -> AbstractContextManager[Media]:
        return open_media(path, grid, resize=self.staging.resize, for_jpeg=self.staging.frame_codec == "jpeg")


def staging_of(cache: FeatureCache) -> ExtractConfig:
    """Returns the config that the cache's clips were staged with.

    Raises:
        StaleError: this version of avel cannot stage in that way.
    """
    staging = cache.made.staging
    with suppress(StoreError):
        config = read_config(ExtractConfig, "extract", staging.settings, cache.path)
        if digest(config) == staging.digest:
            return config
    raise StaleError(
        f"{cache.path}: its clips were staged as {staging.digest}, which this avel cannot repeat",
        hint="stage the clips again with avel extract, then make cache and head anew",
    )


def _work(cache: FeatureCache, encoder: Path | None, weights: dict[str, Path]) -> Work:
    """Describes the cache's networks for PartEncoder.

    Raises:
        MissingPathError, StaleError: encoder or weights are gone, or are not those of the cache.
    """
    made = cache.made
    identity, dtype = made.encoder, made.preprocessing.dtype
    kind = made.encoder_identity(cache.path).kind
    if kind == "run":
        path = find_encoder(cache, encoder)
        return Work("", path, CacheConfig(dtype=dtype), cache.provenance, Parts(Path()))
    chosen = {
        name: identity[name] | {"weights": _backbone_weights(cache, name, weights.get(name))}
        for name in ("visual", "audio")
    }
    chosen |= {"dtype": dtype, "untrained": kind == "untrained", "seed": identity.get("seed", 0)}
    config = read_config(CacheConfig, "cache-features", chosen, cache.path)
    return Work("", None, config, cache.provenance, Parts(Path()))


def find_encoder(cache: FeatureCache, encoder: Path | None = None) -> Path:
    """Returns the encoder run that a cache was made with, its digest compared.

    Raises:
        MissingPathError: it is not there.
        StaleError: it holds other weights than the cache was made with.
    """
    made = cache.made
    wanted = made.encoder_identity(cache.path).digest
    path = encoder or Path(made.run or "")
    if not path.exists():
        raise MissingPathError(
            f"{path}: the encoder that {cache.path} was made with is not there",
            hint="--encoder RUN says where it is",
        )
    found = encoder_file_digest(path)[1]
    if found != wanted:
        raise StaleError(
            f"{path}: encoder {found}, {cache.path} was made with {wanted}",
            hint="--encoder with the right run",
        )
    return path


def _check_cnns(cache: FeatureCache, found: str) -> None:
    """Compares the CNNs by digest, since a published name or a seed may stand for other weights now.

    Raises:
        StaleError: they differ from those of the cache.
    """
    made_with = cache.made.cnn
    if found != made_with:
        raise StaleError(
            f"{cache.path}: made with CNNs of weights {made_with}, the same names and seed now give {found}",
            hint=f"{cache.command('--overwrite')} makes the cache anew; then train the head on it again",
        )


def _backbone_weights(cache: FeatureCache, kind: str, given: Path | None) -> str:
    """Returns the weights of a CNN as CacheConfig takes them: the published name, or the file of the hash."""
    wanted = cache.made.weights(cache.path, kind)
    if len(wanted) != 64:
        return wanted
    if given is None:
        raise MissingPathError(
            f"{cache.path}: made with {kind} weights of hash {wanted[:16]}", hint=f"--{kind}-weights FILE"
        )
    found = sha256_file(given)
    if found != wanted:
        raise StaleError(f"{given}: hash {found[:16]}, {cache.path} was made with {wanted[:16]}")
    return str(given)
