"""Staged clips through an encoder, batch by batch, the next one read while this one is computed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avel.ahead import read_ahead, reading_threads
from avel.device import hardware_of, pinned
from avel.errors import StaleError, StoreError
from avel.nn import mask_of, put_inside
from avel.pipeline.caching.key import frames_of_clip
from avel.pipeline.caching.parts import Arrays, Parts
from avel.pipeline.config import CacheConfig
from avel.pipeline.encoders.backbones import PUBLISHED
from avel.pipeline.encoders.build import build_encoder
from avel.pipeline.encoders.encoder import Encoder
from avel.pipeline.encoders.kept import cnn_digest, load_encoder
from avel.pipeline.encoders.waveform import windows
from avel.pipeline.pretraining.augment import centre_crop
from avel.stores.clips import ClipStore
from avel.stores.features import FeatureCache

AHEAD = 2
"""Batches that are read while one is computed."""


@dataclass(frozen=True)
class Work:
    """Inputs that all parts have in common; pickles, so that a part can be computed in any process.

    `cnn_from` is a cache whose CNN vectors are taken instead of computing them again.
    """

    store: str
    encoder: Path | None
    config: CacheConfig
    recipe: dict[str, Any]
    parts: Parts
    cnn_from: Path | None = None


@dataclass(frozen=True)
class Clips:
    """A batch: names, frames uint8 (B, T * N, 3, H, W) segment by segment, and what the audio CNN reads.

    That is log-mel (B, T, 96, 64), or the waveform int16 (B, samples). Where clips have `lengths` of their
    own, frames and log-mel of these many segments of each lie one after the other, as one clip.
    """

    part: int
    video_ids: tuple[str, ...]
    frames: Tensor
    audio: Tensor
    failures: dict[str, str]
    lengths: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Encoded:
    """A part: names, arrays (n, T, ...) by name, why others failed, the CNNs' digest, the device."""

    video_ids: tuple[str, ...]
    arrays: Arrays
    failures: dict[str, str]
    cnn: str
    hardware: str


def chosen_encoder(work: Work) -> Encoder:
    """Returns the encoder of a run, or one built on backbones, in eval mode without gradients."""
    if work.encoder is not None:
        given = {"visual": work.config.visual.weights, "audio": work.config.audio.weights}
        moved = {kind: Path(weights) for kind, weights in given.items() if weights != PUBLISHED}
        return load_encoder(work.encoder, folders=moved)
    return build_encoder(work.config.pretraining()).eval().requires_grad_(False)


class PartEncoder:
    """Computes features of a list of videos; open once for many parts.

    Attributes:
        frames: numbers of the frames of a segment that the CNN sees.
        crop_size: height and width of a frame, in pixels, as the CNN sees it.

    >>> next(PartEncoder(work).parts([("a", "b")])).arrays["f_a"].shape  # doctest: +SKIP
    (2, 10, 256)
    """

    def __init__(self, work: Work, device: str = "cpu") -> None:
        self.work = work
        self.device = torch.device(device)
        self.encoder = chosen_encoder(work).to(self.device)
        self.encoder.is_fixed = True
        self.cnn_digest = cnn_digest(self.encoder)
        self._raw = work.recipe["encoder"]["kind"] == "backbones"
        self._arrays: list[str] = work.recipe["arrays"]
        self.frames: list[int] = work.recipe["preprocessing"]["frames"]
        self._own_lengths = bool(work.recipe["preprocessing"].get("own_lengths"))
        self.crop_size: int = work.recipe["preprocessing"]["crop_size"]
        self._together = self.encoder.visual.reads(self.encoder.visual.config).frames > 1
        self._waveform = self.encoder.audio.reads(self.encoder.audio.config)
        if self._waveform is not None:
            settings = work.recipe["staging"]["settings"]
            self._sample_rate: int = settings["sample_rate"]
            self._segment_seconds: float = settings["segment_seconds"]

    @property
    def reads_waveform(self) -> bool:
        """Returns whether the audio CNN reads the waveform, not log-mel patches."""
        return self._waveform is not None

    @cached_property
    def clips(self) -> ClipStore:
        """Opens the store of the work when a clip of it is asked for."""
        return ClipStore.open(self.work.store)

    def parts(
        self, parts: Sequence[Sequence[str]], advance: Callable[[int, int], None] = lambda done, failed: None
    ) -> Iterator[Encoded]:
        """Yields the features of each list of videos in turn; reading goes on across the lists."""
        size = self.work.config.batch_size
        batches = [
            (number, tuple(videos[start : start + size]))
            for number, videos in enumerate(parts)
            for start in range(0, len(videos), size)
        ]
        ready = read_ahead(self.read, batches, threads=reading_threads(self.work.config.workers), ahead=AHEAD)
        for _, group in groupby(ready, key=lambda clips: clips.part):
            arrays_of: dict[str, list[NDArray[Any]]] = {name: [] for name in self._arrays}
            names: list[str] = []
            failures: dict[str, str] = {}
            for clips in group:
                failures |= clips.failures
                names += clips.video_ids
                for name, values in self.encode(clips).items() if clips.video_ids else ():
                    dtype = torch.float16 if name == "maps" else torch.float32
                    arrays_of[name].append(values.to("cpu", dtype).numpy())
                advance(len(clips.video_ids) + len(clips.failures), len(clips.failures))
            arrays = {name: np.concatenate(values) for name, values in arrays_of.items() if values}
            yield Encoded(tuple(names), arrays, failures, self.cnn_digest, hardware_of(self.device))

    def read(self, batch: tuple[int, tuple[str, ...]]) -> Clips:
        """Reads and decodes one batch of a part; damaged clips are left out by name."""
        part, video_ids = batch
        wanted = frames_of_clip(self.clips.grid, self.frames)
        frames, audio, failures = {}, [], {}
        own = self.clips.lengths if self._own_lengths else None
        for video_id in video_ids:
            length = self.clips.grid.segments if own is None else own[video_id]
            try:
                read = self.clips.waveform if self.reads_waveform else self.clips.log_mel
                values: NDArray[Any] = read(video_id)
                inside = wanted[: length * len(self.frames)]
                frames[video_id] = self.cropped(self.clips.frames(video_id, inside))
                audio.append(values if own is None else self._until(values, length))
            except StoreError as error:
                failures[video_id] = f"damaged in the store: {error.message}"
        if not frames:
            return Clips(part, (), torch.empty(0), torch.empty(0), failures)
        lengths = None if own is None else tuple(own[video_id] for video_id in frames)
        joined = np.stack if lengths is None else lambda clips: np.concatenate(clips)[None]  # as one clip
        images = self._tensor(joined(list(frames.values()))).permute(0, 1, 4, 2, 3)
        sound = self._tensor((np.stack if self.reads_waveform else joined)(audio))
        return Clips(part, tuple(frames), images, sound, failures, lengths)

    def _until(self, values: NDArray[Any], length: int) -> NDArray[Any]:
        """Returns the audio of a clip up to its end: patches, or a waveform that is silent after it."""
        if not self.reads_waveform:
            return values[:length]
        silent = values.copy()
        silent[length * len(values) // self.clips.grid.segments :] = 0
        return silent

    def cropped(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Crops the centre where that needs no resizing (224 of 256 pixels): (n, S, S, 3) -> (n, s, s, 3)."""
        margin, odd = divmod(frames.shape[1] - self.crop_size, 2)
        if odd or frames.shape[1] * 7 != self.crop_size * 8:
            return frames
        return frames[:, margin : margin + self.crop_size, margin : margin + self.crop_size]

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return pinned(torch.from_numpy(values), self.device)

    def encode(self, clips: Clips) -> dict[str, Tensor]:
        """Returns the arrays of one batch that the cache keeps: (B, T, ...) by name."""
        vectors = self.vectors(clips)
        lengths = None if clips.lengths is None else torch.tensor(clips.lengths, device=self.device)
        every = vectors | self.temporal(vectors, lengths)
        return {name: every[name] for name in self._arrays}

    def vectors(self, clips: Clips) -> dict[str, Tensor]:
        """Runs the CNNs on one batch, and puts 0 after the end of shorter clips: (B, T, ...) by name."""
        if clips.lengths is None:
            return self.cnn(clips.frames, clips.audio)
        lengths = torch.tensor(clips.lengths, device=self.device)
        values_of = self.cnn(clips.frames, clips.audio, lengths=lengths)
        mask = mask_of(lengths, self.clips.grid.segments)
        return {name: put_inside(values[0], mask) for name, values in values_of.items()}

    @torch.inference_mode()
    def cnn(
        self, frames: Tensor, audio: Tensor, first: int = 0, lengths: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Runs the CNNs: cnn_a and cnn_v (B, T, D), and maps where anything needs them.

        Where audio is a waveform, it is that of the whole clip, and frames may begin at its segment `first`;
        or it is that of several clips, of whose `lengths` the frames lie one after the other.
        """
        images, audio = self.inputs(frames, audio, first, lengths)
        half = self.work.recipe["preprocessing"]["dtype"] == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            visual, maps = self._visual(images, len(audio))
            cnn_a = self.encoder.cnn_audio(audio)
        return {"cnn_a": cnn_a, "cnn_v": visual} | ({} if maps is None else {"maps": maps})

    @torch.inference_mode()
    def inputs(
        self, frames: Tensor, audio: Tensor, first: int = 0, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns what the CNNs are given, on the device: images, and patches or windows (B, T, ...).

        Images are uint8 (B * T * N, 3, H, W); for a CNN that sees N together (B * T, N, 3, H, W).
        """
        frames = frames.to(self.device, non_blocking=True)
        audio = audio.to(self.device, non_blocking=True)
        if self._waveform is not None:
            count = frames.shape[1] // len(self.frames) if lengths is None else self.clips.grid.segments
            segments = range(first, first + count)
            audio = windows(audio, self._sample_rate, self._segment_seconds, segments, self._waveform)
            audio = audio if lengths is None else audio[mask_of(lengths, count)][None]
        if frames.shape[-1] != self.crop_size:
            frames = centre_crop(frames, self.crop_size)
        images = frames.flatten(0, 1)
        if self._together:
            return images.reshape(-1, len(self.frames), *images.shape[1:]), audio
        return images.contiguous(memory_format=torch.channels_last), audio

    @torch.inference_mode()
    def temporal(self, vectors: Mapping[str, Tensor], lengths: Tensor | None = None) -> dict[str, Tensor]:
        """Runs the Bi-LSTMs on what `cnn` gave, each clip to its own end: f_a and f_v (B, T, D).

        `lengths` (B,) are the segments of each clip where they differ; after them features are 0.
        """
        audio, visual = vectors["cnn_a"], vectors["cnn_v"]
        if self._raw:
            return {"f_a": audio, "f_v": visual}
        if self.encoder.attention is not None:
            visual = vectors["maps"].flatten(2, 3)
        mask = None if lengths is None else mask_of(lengths, audio.shape[1])
        f_a, f_v = self.encoder.temporal(audio.float(), visual.float(), mask)
        return {"f_a": f_a, "f_v": f_v}

    def _visual(self, images: Tensor, clips: int) -> tuple[Tensor, Tensor | None]:
        """Returns vectors and maps of B clips, averaged over N frames: (B, T, D), (B, T, H', W', D)."""
        wants_maps = "maps" in self._arrays or self.encoder.attention is not None
        if not wants_maps:
            return self._over_frames(self.encoder.run("visual", images), clips), None
        vectors, maps = self.encoder.run("visual", images, "vectors_and_maps")
        return self._over_frames(vectors, clips), self._over_frames(maps.permute(0, 2, 3, 1), clips)

    def _over_frames(self, values: Tensor, clips: int) -> Tensor:
        """Averages over N frames, unless seen together: (B * T * N, ...) or (B * T, ...) -> (B, T, ...)."""
        count = 1 if self._together else len(self.frames)
        by_segment = values.reshape(clips, -1, count, *values.shape[1:])
        return by_segment[:, :, 0] if count == 1 else by_segment.float().mean(2)


class TemporalEncoder(PartEncoder):
    """Computes the same features from CNN vectors that another cache holds; only the Bi-LSTMs run.

    Raises:
        StaleError: that cache's vectors come from other CNNs.
    """

    def __init__(self, work: Work, device: str = "cpu") -> None:
        super().__init__(work, device)
        assert work.cnn_from is not None
        self._vectors = FeatureCache.open(work.cnn_from)
        self._place = {name: place for place, name in enumerate(self._vectors.video_ids)}
        theirs = self._vectors.provenance.get("cnn")
        if theirs != self.cnn_digest:
            raise StaleError(
                f"{work.cnn_from}: its vectors are of other CNNs ({theirs}) than this encoder's "
                f"({self.cnn_digest})",
                hint="leave out --cnn-from: CNNs that were trained on have vectors of their own",
            )

    def read(self, batch: tuple[int, tuple[str, ...]]) -> Clips:
        """Reads CNN vectors in the place of frames and patches: (B, T, Dv), (B, T, Da)."""
        part, video_ids = batch
        places = np.array([self._place[name] for name in video_ids])
        visual, audio = (self._tensor(self._vectors.read(name, places)) for name in ("cnn_v", "cnn_a"))
        lengths = tuple(self._vectors.lengths[places].tolist()) if self._own_lengths else None
        return Clips(part, video_ids, visual, audio, {}, lengths)

    def vectors(self, clips: Clips) -> dict[str, Tensor]:
        """Returns the vectors as they were read."""
        return {"cnn_a": clips.audio.to(self.device), "cnn_v": clips.frames.to(self.device)}


def part_encoder(work: Work, device: str = "cpu") -> PartEncoder:
    """Returns what computes the parts of this work."""
    return (PartEncoder if work.cnn_from is None else TemporalEncoder)(work, device)
