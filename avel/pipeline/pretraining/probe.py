"""A linear probe of the encoders while they train: ridge regression on train labels, scored on val."""

import numpy as np
import torch
from torch import Tensor

from avel.errors import DatasetError, TrainingError
from avel.nn import Standard, mask_of
from avel.pipeline.encoders.encoder import Encoder
from avel.pipeline.pretraining.vectors import compute_vectors
from avel.stores.clips import ClipStore
from avel.stores.datasets.labels import PADDED

RIDGE = 10.0
"""Penalty on standardised features; fixed, so that scores of different epochs compare."""
PROBED_AT_ONCE = 64
"""Clips whose vectors are on the device together: with AGVA a clip has 49 of each frame."""


class Probe:
    """Segment accuracy on val of a linear classifier on [f_a, f_v]; with frozen CNNs they are run once.

    Raises:
        TrainingError: no train or no val sample, or one with several labels in a segment.
    """

    def __init__(self, store: ClipStore, *, frozen: bool, workers: int) -> None:
        dataset, staged = store.dataset, set(store.staged)
        self._store, self._frozen, self._classes = store, frozen, dataset.background + 1
        self._workers = workers
        samples = [
            sample
            for sample in dataset.samples
            if sample.split in ("train", "val") and sample.video_id in staged and sample.events is not None
        ]
        if {sample.split for sample in samples} != {"train", "val"}:
            raise TrainingError(
                "a probe needs staged samples of known events in train and val",
                hint="leave out --probe-every",
            )
        self._video_ids = list(dict.fromkeys(sample.video_id for sample in samples))
        place = {video_id: number for number, video_id in enumerate(self._video_ids)}
        self._videos = torch.tensor([place[sample.video_id] for sample in samples])
        own = store.lengths
        lengths = None if own is None else np.array([own[sample.video_id] for sample in samples])
        try:
            self._labels = torch.from_numpy(dataset.labels(store.grid, samples, lengths))
        except DatasetError as error:
            raise TrainingError(error.message, hint="leave out --probe-every") from None
        self._lengths = None if own is None else torch.tensor([own[name] for name in self._video_ids])
        self._train = torch.tensor([sample.split == "train" for sample in samples])
        self._kept: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def score(self, encoder: Encoder) -> float:
        """Returns the fraction of val segments that are right; leaves the encoder in the mode it was in."""
        training = encoder.training
        encoder.eval()
        vectors = self._kept or compute_vectors(
            encoder, self._store, self._video_ids, 1, workers=self._workers
        )
        if self._frozen:
            self._kept = vectors
        features = features_of(encoder, *vectors, self._lengths)[self._videos]
        encoder.train(training)
        inside = self._labels != PADDED
        train, val = (inside & chosen.unsqueeze(1) for chosen in (self._train, ~self._train))
        predicted = ridge_classes(features[train], self._labels[train], features[val], self._classes)
        return (predicted == self._labels[val]).double().mean().item()


def features_of(encoder: Encoder, cnn_a: Tensor, cnn_v: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Returns [f_a, f_v] of the first frame: (V, T, Da), (V, T, k, Dv) -> (V, T, 2 D).

    `lengths` (V,) are the segments of each video where these have lengths of their own.
    """
    device = next(encoder.parameters()).device
    parts = []
    for first in range(0, len(cnn_a), PROBED_AT_ONCE):
        clips = slice(first, first + PROBED_AT_ONCE)
        mask = None if lengths is None else mask_of(lengths[clips].to(device), cnn_a.shape[1])
        audio, visual = cnn_a[clips].to(device).float(), cnn_v[clips, :, 0].to(device).float()
        parts.append(encoder.temporal(audio, visual, mask))
    return torch.cat([torch.cat(both, 2).double().cpu() for both in parts])


def ridge_classes(train: Tensor, labels: Tensor, test: Tensor, classes: int) -> Tensor:
    """Classifies test vectors by ridge regression on one-hot labels: (n, D), (n,), (m, D) -> (m,)."""
    standard = Standard(train.shape[1]).to(train)
    standard.fit(train)
    x, y = standard(train), torch.nn.functional.one_hot(labels, classes).to(train)
    prior = y.mean(0)
    weights = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1]).to(x), x.T @ (y - prior))
    scores: Tensor = standard(test) @ weights + prior
    return scores.argmax(1)
