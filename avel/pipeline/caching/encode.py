"""Runs staged clips through an encoder, batch by batch, and reads the next one meanwhile."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avel.ahead import read_ahead, reading_threads
from avel.device import hardware_of, pinned
from avel.errors import StoreError
from avel.nn import mask_of, put_inside
from avel.pipeline.caching.key import has_agva
from avel.pipeline.config import BACKBONES, CacheConfig
from avel.pipeline.encoders.build import build_cnn, build_encoder, model_folders
from avel.pipeline.encoders.encoder import CNNs, Encoder, check_crop
from avel.pipeline.encoders.saved import cnn_digest, load_encoder
from avel.pipeline.encoders.waveform import windows
from avel.pipeline.pretraining.augment import centre_crop
from avel.progress import Progress
from avel.stores.clips import ClipStore
from avel.stores.feature_parts import Arrays, Parts

AHEAD = 2
"""Batches that are read while one is computed; each thread after the first reads one more."""


@dataclass(frozen=True)
class Work:
    """Inputs that all parts have in common; pickles, so that a part can be computed in any process.

    Two are equal if they are of one call, which the `token` says: the store may change before the next one.
    """

    store: str = field(compare=False)
    encoder: Path | None = field(compare=False)
    config: CacheConfig = field(compare=False)
    recipe: dict[str, Any] = field(compare=False)
    parts: Parts = field(compare=False)
    token: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True)
class Clips:
    """A batch of clips of part number `part`: names, and what was read for the CNN of each modality.

    For "visual" these are frames, uint8 (B, T * N, 3, H, W) segment by segment; for "audio" log-mel
    (B, T, 96, 64), or the waveform, int16 (B, samples). Where clips have `lengths` of their own, frames and
    log-mel end there, and those of all clips follow one another as if they were one clip.
    """

    part: int
    video_ids: tuple[str, ...]
    inputs: dict[str, Tensor]
    failures: dict[str, str]
    lengths: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Encoded:
    """Features of a part: videos, arrays (n, T, ...) by name, why others failed, the CNNs' digest, device."""

    video_ids: tuple[str, ...]
    arrays: Arrays
    failures: dict[str, str]
    cnn: str
    hardware: str


def chosen_encoder(work: Work) -> CNNs:
    """Returns the encoder of a run, one built on backbones, or one CNN alone; in eval mode."""
    if work.encoder is not None:
        return load_encoder(work.encoder, folders=model_folders(work.config))
    config, wanted = work.config.pretraining(), [kind for kind in BACKBONES if kind in work.recipe["encoder"]]
    built = build_encoder(config) if len(wanted) == 2 else build_cnn(config, *wanted)
    return built.eval().requires_grad_(False)


class PartEncoder:
    """Computes features of lists of videos, with networks that it loads once for all of them.

    Attributes:
        modalities: those of its CNNs, both or one.
        frames: numbers of the frames of a segment that the CNN sees.
        crop_size: height and width of a frame, in pixels, as the CNN sees it.
        waveform: what the audio CNN reads of the waveform; None where it reads log-mel patches.

    >>> next(PartEncoder(work).parts([("a", "b")])).arrays["f_a"].shape  # doctest: +SKIP
    (2, 10, 256)
    """

    def __init__(self, work: Work, device: str = "cpu") -> None:
        self.work = work
        self.device = torch.device(device)
        self.encoder = chosen_encoder(work)
        visual, audio = self.encoder.visual, self.encoder.audio
        self.modalities = [kind for kind in BACKBONES if getattr(self.encoder, kind) is not None]
        self._arrays: list[str] = work.recipe["arrays"]
        preprocessing = work.recipe["preprocessing"]
        self._own_lengths: bool = preprocessing["own_lengths"]
        self.frames: list[int] = preprocessing.get("frames", [])
        self.crop_size: int = preprocessing.get("crop_size", 0)
        if visual is not None:
            check_crop(visual, self.crop_size)
        self.encoder.to(self.device)
        self.encoder.is_fixed = True
        self.cnn_digest = cnn_digest(self.encoder)
        self._together = visual is not None and visual.reads(visual.config).frames > 1
        self.waveform = None if audio is None else audio.reads(audio.config)

    @cached_property
    def store(self) -> ClipStore:
        """Opens the store of the work when a clip of it is asked for."""
        return ClipStore.open(self.work.store)

    def parts(self, parts: Sequence[Sequence[str]], progress: Progress | None = None) -> Iterator[Encoded]:
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
                if progress is not None:
                    failed = len(clips.failures)
                    progress.advance(len(clips.video_ids) + failed, failed=failed)
            arrays = {name: np.concatenate(values) for name, values in arrays_of.items() if values}
            yield Encoded(tuple(names), arrays, failures, self.cnn_digest, hardware_of(self.device))

    def read(self, batch: tuple[int, tuple[str, ...]]) -> Clips:
        """Reads and decodes one batch of a part; damaged clips are left out and named in `failures`."""
        part, video_ids = batch
        read_of = {"visual": self._frames, "audio": self._audio}
        own = self.store.lengths if self._own_lengths else None
        clips: dict[str, dict[str, NDArray[Any]]] = {}
        failures: dict[str, str] = {}
        for video_id in video_ids:
            length = self.store.grid.segments if own is None else own[video_id]
            try:
                clips[video_id] = {name: read_of[name](video_id, length) for name in self.modalities}
            except StoreError as error:
                failures[video_id] = f"damaged in the store: {error.message}"
        lengths = None if own is None else tuple(own[video_id] for video_id in clips)
        inputs: dict[str, Tensor] = {}
        for name in self.modalities if clips else ():
            values = [each[name] for each in clips.values()]
            is_whole = lengths is None or (name == "audio" and self.waveform is not None)
            joined = np.stack(values) if is_whole else np.concatenate(values)[None]  # as one clip
            inputs[name] = pinned(torch.from_numpy(joined), self.device)
        if "visual" in inputs:
            inputs["visual"] = inputs["visual"].permute(0, 1, 4, 2, 3)
        return Clips(part, tuple(clips), inputs, failures, lengths)

    def _frames(self, video_id: str, length: int) -> NDArray[np.uint8]:
        """Reads those frames of a clip's first segments that the CNN sees: (length * N, H, W, 3)."""
        wanted = self.store.grid.frames_at(self.frames)[: length * len(self.frames)]
        return self.cropped(self.store.frames(video_id, wanted))

    def _audio(self, video_id: str, length: int) -> NDArray[Any]:
        """Reads the patches of a clip's first segments, or its waveform, silent after them."""
        if self.waveform is None:
            return self.store.log_mel(video_id)[:length]
        waveform = self.store.waveform(video_id)
        if length == self.store.grid.segments:
            return waveform
        silent = waveform.copy()
        silent[length * len(waveform) // self.store.grid.segments :] = 0
        return silent

    def cropped(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Crops the centre where that needs no resizing (224 of 256 pixels): (n, S, S, 3) -> (n, s, s, 3)."""
        margin, odd = divmod(frames.shape[1] - self.crop_size, 2)
        if odd or frames.shape[1] * 7 != self.crop_size * 8:
            return frames
        return frames[:, margin : margin + self.crop_size, margin : margin + self.crop_size]

    def encode(self, clips: Clips) -> dict[str, Tensor]:
        """Returns the arrays of one batch that the cache keeps: (B, T, ...) by name."""
        lengths = None if clips.lengths is None else torch.tensor(clips.lengths, device=self.device)
        vectors = self.cnn(clips.inputs, lengths=lengths)
        if lengths is not None:
            mask = mask_of(lengths, self.store.grid.segments)
            vectors = {name: put_inside(values[0], mask) for name, values in vectors.items()}
        every = vectors | self.temporal(vectors, lengths)
        return {name: every[name] for name in self._arrays}

    @torch.inference_mode()
    def cnn(
        self, inputs: Mapping[str, Tensor], segments: range | None = None, lengths: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Runs the CNNs on `Clips.inputs`: cnn_a and cnn_v (B, T, D), and maps where anything needs them.

        Waveforms are those of whole clips. Frames and patches may be those of some `segments` only; or, with
        `lengths`, those of several clips, one after the other as if they were one clip.
        """
        given = self.prepared(inputs, segments, lengths)
        half = self.work.recipe["preprocessing"]["dtype"] == "bfloat16"
        vectors = {}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            if "audio" in given:
                vectors["cnn_a"] = self.encoder.cnn_audio(given["audio"])
            if "visual" in given:
                vectors |= self._visual(given["visual"], len(inputs["visual"]))
        return vectors

    @torch.inference_mode()
    def prepared(
        self, inputs: Mapping[str, Tensor], segments: range | None = None, lengths: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Returns what the CNNs are given, on the device: images, and patches or windows (B, T, ...).

        Images are uint8 (B * T * N, 3, H, W); for a CNN that sees N together (B * T, N, 3, H, W).
        """
        given = {kind: values.to(self.device, non_blocking=True) for kind, values in inputs.items()}
        if self.waveform is not None:
            staged = self.work.recipe["staging"]["settings"]
            rate, seconds = staged["sample_rate"], staged["segment_seconds"]
            wanted = segments or range(self.store.grid.segments)
            audio = windows(given["audio"], rate, seconds, wanted, self.waveform)
            given["audio"] = audio if lengths is None else audio[mask_of(lengths, len(wanted))][None]
        if "visual" in given:
            frames = given["visual"]
            if frames.shape[-1] != self.crop_size:
                frames = centre_crop(frames, self.crop_size)
            images = frames.flatten(0, 1)
            if self._together:
                given["visual"] = images.reshape(-1, len(self.frames), *images.shape[1:])
            else:
                given["visual"] = images.contiguous(memory_format=torch.channels_last)
        return given

    @torch.inference_mode()
    def temporal(self, vectors: Mapping[str, Tensor], lengths: Tensor | None = None) -> dict[str, Tensor]:
        """Runs the Bi-LSTMs, if any, on what `cnn` gave, each clip to its own end: f_a and f_v (B, T, D).

        `lengths` (B,) are the segments of each clip where they differ; after them features are 0.
        """
        if self.work.recipe["encoder"]["kind"] == "backbones":
            own = {"f_a": "cnn_a", "f_v": "cnn_v"}
            return {name: vectors[cnn] for name, cnn in own.items() if cnn in vectors}
        assert isinstance(self.encoder, Encoder)
        audio, visual = vectors["cnn_a"], vectors["cnn_v"]
        if self.encoder.temporal.attention is not None:
            visual = vectors["maps"].flatten(2, 3)
        mask = None if lengths is None else mask_of(lengths, audio.shape[1])
        f_a, f_v = self.encoder.temporal(audio.float(), visual.float(), mask)
        return {"f_a": f_a, "f_v": f_v}

    def _visual(self, images: Tensor, clips: int) -> dict[str, Tensor]:
        """Computes cnn_v (B, T, D), and maps (B, T, H', W', D) where anything needs them, over N frames."""
        if "maps" not in self._arrays and not has_agva(self.work.recipe["encoder"]):
            return {"cnn_v": self._over_frames(self.encoder.run("visual", images), clips)}
        vectors, maps = self.encoder.run("visual", images, "vectors_and_maps")
        maps = maps.permute(0, 2, 3, 1)
        return {"cnn_v": self._over_frames(vectors, clips), "maps": self._over_frames(maps, clips)}

    def _over_frames(self, values: Tensor, clips: int) -> Tensor:
        """Averages over N frames, unless seen together: (B * T * N, ...) or (B * T, ...) -> (B, T, ...)."""
        count = 1 if self._together else len(self.frames)
        by_segment = values.reshape(clips, -1, count, *values.shape[1:])
        return by_segment[:, :, 0] if count == 1 else by_segment.float().mean(2)
