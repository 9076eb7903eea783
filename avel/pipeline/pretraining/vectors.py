"""Vectors of frozen CNNs: computed once for every training clip, kept in files, and drawn as frames are."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from avel.ahead import read_ahead
from avel.config import as_dict
from avel.device import hardware_of, pinned
from avel.digests import digest_of
from avel.errors import TrainingError
from avel.grid import evenly_spaced
from avel.pipeline.config import AugmentConfig
from avel.pipeline.encoders.encoder import Encoder
from avel.pipeline.encoders.saved import cnn_digest
from avel.pipeline.encoders.vectors import first_not_finite
from avel.pipeline.pretraining.augment import augment_clips, centre_crop
from avel.pipeline.pretraining.loader import Batch, Batches, batches_of, lengths_of, random_choices
from avel.pipeline.pretraining.parallel import barrier, rank, world_size
from avel.progress import Progress
from avel.stores.clips import ClipStore
from avel.stores.feature_parts import PART_VIDEOS, Gathered, Parts

CNN_ARRAYS = ("cnn_a", "cnn_v")
FRAMES_AT_ONCE = {"cpu": 160, "cuda": 1280}
"""Frames that go through the CNN together, which bounds their memory."""
AUGMENT_SEED = 0
"""Seed of all augmentations of frozen frames, so that runs with other seeds share their vectors."""


class FrozenVectors(Batches):
    """cnn_v (V, T, k, Dv) of k frames a segment and cnn_a (V, T, Da), in batches like a `ClipLoader`'s.

    Kept in float16, whose rounding is far below the difference between frames. `together` draws one of the k
    for all segments of a clip, so that they have the same augmentation. They lie on the GPU if it has room;
    if not, a thread gathers each batch for it while the one before is used. `lengths` (V,) are the segments
    of each video where these have lengths of their own.
    """

    def __init__(
        self,
        cnn_a: Tensor,
        cnn_v: Tensor,
        *,
        batch_size: int,
        seed: int = 0,
        together: bool = False,
        device: torch.device | None = None,
        lengths: Tensor | None = None,
    ) -> None:
        self.lengths = lengths
        self.device = device or torch.device("cpu")
        if fits((cnn_a, cnn_v), self.device):
            cnn_a, cnn_v = cnn_a.to(self.device), cnn_v.to(self.device)
        self.cnn_a, self.cnn_v, self.batch_size, self.seed = cnn_a, cnn_v, batch_size, seed
        self.together, self.clips = together, len(cnn_a)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yields the batches of epoch `number`: of each segment, the vector of one of its k frames."""
        segments, frames = self.cnn_v.shape[1:3]
        parts = batches_of(self.clips, self.batch_size, self.seed, number)
        draws, times = (1, segments) if self.together else (segments, 1)
        sizes = [len(part) for part in parts]
        clips = [clip for part in parts for clip in part]
        chosen = [random_choices(self.seed, number, clip, draws, frames) * times for clip in clips]
        lie_on = self.cnn_v.device
        place, frame = (
            pinned(torch.tensor(values), lie_on).to(lie_on, non_blocking=True) for values in (clips, chosen)
        )
        segment = torch.arange(segments, device=lie_on)

        def take(batch: tuple[list[int], Tensor, Tensor]) -> Batch:
            part, place, frame = batch
            visual = self.cnn_v[place[:, None], segment, frame].float()
            audio = self.cnn_a[place].float()
            if self.device != lie_on:
                visual, audio = pinned(visual, self.device), pinned(audio, self.device)
            return Batch(part, visual, audio, lengths_of(self.lengths, part))

        batches = zip(parts, torch.split(place, sizes), torch.split(frame, sizes), strict=True)
        return map(take, batches) if self.device == lie_on else read_ahead(take, batches, ahead=2)


def fits(tensors: Iterable[Tensor], device: torch.device) -> bool:
    """Returns whether tensors take no more than half of a GPU's free memory."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    return sum(tensor.nbytes for tensor in tensors) <= free / 2


def frozen_vectors(
    encoder: Encoder,
    store: ClipStore,
    video_ids: Sequence[str],
    frames: int,
    folder: Path,
    augmentation: AugmentConfig | None = None,
    dtype: str = "float32",
    workers: int = 2,
) -> tuple[Tensor, Tensor]:
    """Returns cnn_a (V, T, Da) and cnn_v (V, T, k, Dv), float16, from `folder`, or computes them into it.

    Kept in parts of 64 videos, like those of a feature cache that is being made, so that an interrupted run
    goes on where it stopped. Vectors of other CNNs, staging, frames, augmentation or `dtype` (which the CNNs
    run in) lie in other folders inside `folder`. The processes of a run share the videos that are missing.

    Raises:
        StoreError: a part is damaged.
    """
    cnn, sources = cnn_digest(encoder), source_of_each(store, video_ids)
    made_of = [cnn, encoder.spec.encoder.agva, encoder.spec.crop_size, store.digest, frames, dtype]
    if augmentation is not None:
        augmentation = replace(augmentation, crop_size=encoder.spec.crop_size)
        made_of.append(as_dict(augmentation))
    parts = Parts(folder / digest_of(made_of))
    there = parts.finished(sources)
    barrier()  # no process writes before all have removed what is damaged
    # Divide all videos, not the missing ones: processes may disagree on those while another run writes
    starts = range(0, len(video_ids), PART_VIDEOS)[rank() :: world_size()]
    chunks = (video_ids[start : start + PART_VIDEOS] for start in starts)
    own = [some for chunk in chunks if (some := [each for each in chunk if each not in there])]
    hardware = hardware_of(next(encoder.parameters()).device)
    with Progress(sum(map(len, own)), "clips", of="CNN vectors") as progress:
        for some in own:
            vectors = compute_vectors(encoder, store, some, frames, progress, augmentation, dtype, workers)
            arrays = {name: each.numpy() for name, each in zip(CNN_ARRAYS, vectors, strict=True)}
            some_sources = {video_id: sources[video_id] for video_id in some}
            parts.write(some_sources, arrays, cnn=cnn, hardware=hardware)
    barrier()
    places = parts.finished(sources)
    rows = [places[video_id] for video_id in video_ids]
    cnn_a, cnn_v = (torch.from_numpy(Gathered(name, rows)[:]) for name in CNN_ARRAYS)
    return cnn_a, cnn_v


@torch.inference_mode()
def compute_vectors(
    encoder: Encoder,
    store: ClipStore,
    video_ids: Sequence[str],
    frames: int,
    progress: Progress | None = None,
    augmentation: AugmentConfig | None = None,
    dtype: str = "float32",
    workers: int = 2,
) -> tuple[Tensor, Tensor]:
    """Computes cnn_a (V, T, Da) and cnn_v (V, T, k, Dv), float16 on the CPU, in eval mode.

    Of centre crops, or of frames under `augmentation`: a clip's id, and the place of a frame among the k of
    its segment, decide the draw. Threads read the next clips meanwhile.

    Raises:
        TrainingError: a vector is not finite in float16.
    """
    encoder.eval()
    device = next(encoder.parameters()).device
    limit = FRAMES_AT_ONCE[device.type]
    at_once = max(1, limit // (store.grid.segments * min(frames, store.grid.frames_per_segment)))
    batches = [video_ids[start : start + at_once] for start in range(0, len(video_ids), at_once)]

    def read(some: Sequence[str]) -> tuple[Sequence[str], Tensor, Tensor]:
        images, log_mel = zip(*(read_segments(store, video_id, frames) for video_id in some), strict=True)
        return some, pinned(torch.stack(images), device), pinned(torch.stack(log_mel), device)

    audio, visual = [], []
    for some, images, log_mel in read_ahead(read, batches, threads=workers):
        groups = images.to(device, non_blocking=True).transpose(1, 2).flatten(0, 1)  # a clip's n-th frames
        if augmentation is None:
            cropped = centre_crop(groups, encoder.spec.crop_size)
        else:
            numbers = [int(digest_of(video_id), 16) for video_id in some]
            drawn = [(AUGMENT_SEED, inside, clip) for clip in numbers for inside in range(images.shape[2])]
            cropped = augment_clips(groups, augmentation, drawn)
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            cnn_a = encoder.cnn_audio(log_mel.to(device, non_blocking=True))
            of_groups = encoder.cnn_visual(cropped)
            cnn_v = of_groups.view(len(some), -1, *of_groups.shape[1:]).transpose(1, 2)
        audio.append(cnn_a.half().cpu())
        visual.append(cnn_v.half().cpu())
        for kind, values in ("audio", audio[-1]), ("visual", visual[-1]):
            if (broken := first_not_finite(values)) is not None:
                raise TrainingError(
                    f"clip {some[broken]!r}: vectors of the {kind} CNN are not finite in float16, which ends "
                    "at 65504",
                    hint=f"other --{kind}-weights, or another --{kind}-backbone",
                )
        if progress is not None:
            progress.advance(len(some))
    return torch.cat(audio), torch.cat(visual)


def source_of_each(store: ClipStore, video_ids: Sequence[str]) -> dict[str, str]:
    """Returns the SHA-256 of the file that each clip was staged from, by the clip's id."""
    source_of = store.staged_entries.by_id("source_sha256")
    return {video_id: source_of[video_id] for video_id in video_ids}


def read_segments(store: ClipStore, video_id: str, frames: int) -> tuple[Tensor, Tensor]:
    """Reads k evenly spaced frames of each segment, and its patch: (T, k, 3, H, W) uint8, (T, 96, 64)."""
    inside = evenly_spaced(store.grid.frames_per_segment, frames)
    pictures = torch.from_numpy(store.frames(video_id, store.grid.frames_at(inside))).permute(0, 3, 1, 2)
    images = pictures.reshape(store.grid.segments, len(inside), *pictures.shape[1:])
    return images, torch.from_numpy(store.log_mel(video_id))
