"""Vectors of frozen CNNs: computed once for every training clip, kept in a file, drawn from like frames."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from avel.errors import StaleError
from avel.pipeline.augment import centre_crop
from avel.pipeline.encoder import Encoder, cnn_digest
from avel.pipeline.loader import Batch, ClipSource, batches_of, random_choices, steps_per_epoch
from avel.progress import Progress
from avel.stores.files import atomic_path


def even_frames(frames_per_segment: int, chosen: int) -> list[int]:
    """`chosen` evenly spaced frames of a segment's N: the middle one for 1, all of them for N."""
    chosen = min(chosen, frames_per_segment)
    return [(2 * place + 1) * frames_per_segment // (2 * chosen) for place in range(chosen)]


class FrozenVectors:
    """cnn_v (V, T, k, Dv) of k frames a segment and cnn_a (V, T, Da), in batches like a `ClipLoader`'s.

    Kept in float16: its rounding is far below what one frame differs from the next.
    """

    def __init__(
        self, cnn_a: Tensor, cnn_v: Tensor, *, batch: int, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.cnn_a, self.cnn_v, self.batch, self.seed = cnn_a, cnn_v, batch, seed
        self.rank, self.world = rank, world

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return steps_per_epoch(len(self.cnn_a), self.batch)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`: of each segment, the vector of one of its k frames."""
        segments, frames = self.cnn_v.shape[1:3]
        for clips in batches_of(len(self.cnn_a), self.batch, self.seed, number, self.rank, self.world):
            chosen = [random_choices(self.seed, number, clip, segments, frames) for clip in clips]
            places = torch.tensor(clips)[:, None], torch.arange(segments), torch.tensor(chosen)
            yield Batch(clips, self.cnn_v[places].float(), self.cnn_a[clips].float())


def frozen_vectors(
    encoder: Encoder, store: ClipSource, video_ids: Sequence[str], frames: int, path: Path, key: str
) -> tuple[Tensor, Tensor]:
    """cnn_a (V, T, Da) and cnn_v (V, T, k, Dv), float16: from `path`, or computed and kept there.

    Raises:
        StaleError: `path` holds vectors of other CNNs, clips or frames.
    """
    wanted = hashlib.sha256(
        json.dumps([cnn_digest(encoder), key, list(video_ids), frames]).encode()
    ).hexdigest()
    if path.is_file():
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("key") != wanted:
                raise StaleError(
                    f"{path}: vectors of other CNNs, clips or frames", hint=f"remove it: rm {path}"
                )
            return file.get_tensor("cnn_a"), file.get_tensor("cnn_v")
    cnn_a, cnn_v = compute_vectors(encoder, store, video_ids, frames)
    with atomic_path(path) as partial:
        save_file({"cnn_a": cnn_a, "cnn_v": cnn_v}, partial, metadata={"key": wanted})
    return cnn_a, cnn_v


@torch.inference_mode()
def compute_vectors(
    encoder: Encoder, store: ClipSource, video_ids: Sequence[str], frames: int
) -> tuple[Tensor, Tensor]:
    """cnn_a (V, T, Da) and cnn_v (V, T, k, Dv), float16 on the CPU, of centre crops."""
    encoder.eval()
    device = next(encoder.parameters()).device
    every = range(0, store.grid.frames, store.grid.frames_per_segment)
    chosen = even_frames(store.grid.frames_per_segment, frames)
    heard, seen = [], []
    with Progress(len(video_ids), "clips") as progress:
        for video_id in video_ids:
            pictures = np.asarray(store.frames(video_id, [first + k for first in every for k in chosen]))
            images = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(device)
            images = images.reshape(len(every), -1, *images.shape[1:])
            log_mel = torch.from_numpy(store.log_mel(video_id))[None].to(device)
            cropped = centre_crop(images, encoder.spec.crop_size).transpose(0, 1)
            cnn_a, cnn_v = encoder.cnn_audio(log_mel), encoder.cnn_visual(cropped)
            heard.append(cnn_a[0].half().cpu())
            seen.append(cnn_v.transpose(0, 1).half().cpu())
            progress.advance(note="frozen CNNs")
    return torch.stack(heard), torch.stack(seen)
