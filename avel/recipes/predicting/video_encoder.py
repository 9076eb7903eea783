"""Encodes videos of any length by the staging and the encoders that a feature cache was made with."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avel.grid import Grid
from avel.pipeline.config import ExtractConfig
from avel.pipeline.media.audio import as_int16
from avel.pipeline.media.info import MediaInfo
from avel.pipeline.media.log_mel import MEL_SAMPLE_RATE, log_mel
from avel.pipeline.media.reading import Media, open_media
from avel.recipes.predicting.networks import Networks, Origin, StagedNetworks, Windows, values_of
from avel.stores.features import FeatureCache
from avel.stores.jpeg import Colours, decode_jpeg, encode_jpeg

LONGEST_SECONDS = 86400
"""Most seconds that are read of a video: a day."""


@dataclass(frozen=True)
class VideoFeatures:
    """Vectors and maps that each of the networks gives of one video, name -> (L, ...).

    L is the number of segments, at least T unless the clips of the cache have lengths of their own.
    """

    vectors: tuple[dict[str, Tensor], ...]
    valid_seconds: float
    damage: str

    def __len__(self) -> int:
        """Returns L."""
        return len(next(iter(self.vectors[0].values())))

    def segments(self, segment_seconds: float) -> int:
        """Counts the segments that the video covers by half or more, 1 at least."""
        return max(1, int(self.valid_seconds / segment_seconds + 0.5))


class VideoEncoder:
    """Stages and encodes videos in the way in which the clips of a cache were.

    Args:
        cache: the cache whose staging and networks are taken.
        names: features that are wanted, the cache's own or named ones.
        encoder: where its run of `pretrain` lies now, if not where the cache says.
        weights: "visual" and "audio" -> files of backbones that the cache knows by their hash only, and
            folders of models that were moved.

    Raises:
        StoreError: features that avel's networks did not make.
        StaleError: the encoder, weights or staging differ from the cache's.
    """

    def __init__(
        self,
        cache: FeatureCache,
        names: Sequence[str] = ("f_a", "f_v"),
        *,
        encoder: Path | None = None,
        weights: Mapping[str, Sequence[Path]] | None = None,
        device: str = "cpu",
    ) -> None:
        self.segments, self.segment_seconds = cache.grid_segments, cache.segment_seconds
        self._fewest = 1 if cache.differing_lengths else self.segments
        networks, origin = Networks(encoder, weights, device), Origin.of(cache)
        self._arrays = networks.find(origin, names)
        networks.check_encoder(origin)
        self.networks = networks.staged

    def features(self, windows: Windows, lengths: Tensor | None) -> dict[str, Tensor]:
        """Computes the wanted features of W windows, name -> (W, T, ...).

        `windows` are cut from `VideoFeatures.vectors`; `lengths` (W,) where they are shorter than T.
        """
        return values_of(self._arrays, windows, lengths)

    def encode(self, path: Path) -> VideoFeatures:
        """Computes the CNN vectors of every segment of a video, in bounded memory.

        Only a waveform that an audio CNN reads is held whole: an hour at 16 kHz takes 0.1 GB. Networks whose
        clips were staged alike share one pass over the video.

        Raises:
            ClipRefused: the video cannot be read.
        """
        vectors: list[dict[str, Tensor]] = [{} for _ in self.networks]
        segments = self._segments_of(path)
        for staging in dict.fromkeys(each.staging for each in self.networks):
            alike = [each for each in self.networks if each.staging == staging]
            info = self._encode(path, staging, alike, segments, vectors)
        return VideoFeatures(tuple(vectors), info.valid_seconds, info.damage)

    def _encode(
        self,
        path: Path,
        staging: ExtractConfig,
        networks: Sequence[StagedNetworks],
        segments: int,
        vectors: list[dict[str, Tensor]],
    ) -> MediaInfo:
        """Runs networks whose clips were staged alike, and puts their vectors into `vectors`, by place."""
        grid, first = _grid_of(staging, segments), 0
        reads_waveform = any(each.encoder.waveform is not None for each in networks)
        waveform = self._waveform(path, staging, segments) if reads_waveform else torch.empty(0)
        parts: list[dict[str, list[Tensor]]] = [{} for _ in networks]
        with _open(path, staging, grid) as media:
            for frames, samples in zip(media.frames(), media.samples(), strict=True):
                patches = log_mel(samples.reshape(-1, grid.samples_per_segment))
                log_mels = torch.from_numpy(patches)[None]
                read = range(first, first + len(patches))
                for each, parts_of in zip(networks, parts, strict=True):
                    inputs = {}
                    if "visual" in each.encoder.modalities:
                        inputs["visual"] = _pictures(each, frames, media.colours)
                    if "audio" in each.encoder.modalities:
                        inputs["audio"] = log_mels if each.encoder.waveform is None else waveform
                    for name, values in each.encoder.cnn(inputs, read).items():
                        parts_of.setdefault(name, []).append(values[0].cpu())
                first = read.stop
            info = media.info
        for each, parts_of in zip(networks, parts, strict=True):
            vectors[each.place] = {name: torch.cat(values) for name, values in parts_of.items()}
        return info

    def _segments_of(self, path: Path) -> int:
        """Counts the segments that a video has, but no fewer than are needed."""
        staging = self.networks[0].staging
        longest = int(LONGEST_SECONDS / self.segment_seconds)
        with _open(path, staging, _grid_of(staging, longest)) as media:
            covered = int(media.info.valid_seconds / self.segment_seconds + 0.5)
        return max(self._fewest, covered)

    def _waveform(self, path: Path, staging: ExtractConfig, segments: int) -> Tensor:
        """Returns the audio as a store holds it, at its sample rate, on the device: int16 (1, n)."""
        with _open(path, staging, replace(staging.grid(), segments=segments)) as media:
            chunks = [as_int16(chunk) for chunk in media.samples()]
        return torch.from_numpy(np.concatenate(chunks))[None].to(self.networks[0].encoder.device)


def _pictures(networks: StagedNetworks, frames: NDArray[np.uint8], colours: Colours) -> Tensor:
    """Returns those frames of n segments that the CNN sees: (1, n * N, 3, H, W)."""
    staging, shape = networks.staging, frames.shape[1:]
    chosen = frames.reshape(-1, staging.grid().frames_per_segment, *shape)[:, networks.encoder.frames]
    images = networks.encoder.cropped(_through_jpeg(staging, chosen.reshape(-1, *shape), colours))
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)[None]


def _through_jpeg(staging: ExtractConfig, frames: NDArray[np.uint8], colours: Colours) -> NDArray[np.uint8]:
    """Encodes frames as the store's JPEG and decodes them, since the encoders were trained on such frames."""
    if staging.frame_codec == "raw":
        return frames
    return np.stack([decode_jpeg(encode_jpeg(frame, staging.jpeg_quality, colours)) for frame in frames])


def _grid_of(staging: ExtractConfig, segments: int) -> Grid:
    return replace(staging.grid().at(MEL_SAMPLE_RATE), segments=segments)


def _open(path: Path, staging: ExtractConfig, grid: Grid) -> AbstractContextManager[Media]:
    return open_media(path, grid, resize=staging.resize, for_jpeg=staging.frame_codec == "jpeg")


def window_starts(segments: int, width: int) -> list[int]:
    """Lists the first segment of each window of `width`; a video no longer than that is one window.

    Windows begin every `width` / 2 segments (rounded up), the last one ends with the video.

    >>> window_starts(10, 10), window_starts(24, 10)
    ([0], [0, 5, 10, 14])
    """
    if segments <= width:
        return [0]
    hop = -(-width // 2)
    return [*range(0, segments - width, hop), segments - width]


def merge_windows(probabilities: NDArray[np.float64], starts: list[int]) -> NDArray[np.float64]:
    """Averages probabilities over the windows that hold a segment: (W, T, K) -> (L, K).

    The weight is the segment's distance to the nearer end of the window, counted from 1, because Bi-LSTMs and
    attention have least context at the ends.
    """
    width = probabilities.shape[1]
    place = np.arange(width)
    weight = np.minimum(place + 1, width - place).astype(np.float64)
    total = np.zeros((starts[-1] + width, probabilities.shape[2]))
    weights = np.zeros(len(total))
    for start, window in zip(starts, probabilities, strict=True):
        total[start : start + width] += weight[:, None] * window
        weights[start : start + width] += weight
    return total / weights[:, None]
