"""Figure 7: t-SNE of f_a, f_v and the fused vectors, the same segments in each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from avel.errors import ConfigError
from avel.views.inside import look_inside, videos_of
from avel.views.reading import HeadRun

POINTS = 1500
"""Segments shown: more take minutes and show no more."""
PERPLEXITY, COMPONENTS = 30.0, 50


@dataclass(frozen=True)
class Embedding:
    """n segments in the plane.

    Attributes:
        place: (n,) row of each in the run's arrays.
        segment: (n,) its number in the clip.
        classes: (n,) its label.
        points: title of a panel -> (n, 2), each axis within [0, 1].
    """

    place: NDArray[np.int64]
    segment: NDArray[np.int64]
    classes: NDArray[np.int64]
    points: dict[str, NDArray[np.float64]]


def embed(run: HeadRun, split: str, *, points: int = POINTS, seed: int = 0, cached: bool = True) -> Embedding:
    """t-SNE (van der Maaten and Hinton, 2008) of a split's segments, of all or of `points` drawn by `seed`.

    Args:
        cached: whether f_a and f_v are shown beside the fused vectors.

    Raises:
        ConfigError: scikit-learn is not installed.
        StoreError: no such split, or the features are gone.
    """
    rows = run.rows_of(split)
    segments = run.label.shape[1]
    order = np.random.default_rng(seed).permutation(len(rows) * segments)[:points]
    chosen, segment = np.sort(order) // segments, np.sort(order) % segments
    vectors = _vectors(run, rows, cached)
    placed = {title: _tsne(values[chosen, segment], seed) for title, values in vectors.items()}
    return Embedding(rows[chosen], segment, run.label[rows[chosen], segment], placed)


def _vectors(run: HeadRun, rows: NDArray[np.int64], cached: bool) -> dict[str, NDArray[np.float32]]:
    """What the panels show: title -> (R, T, D)."""
    videos = videos_of(run, rows)
    names = {"audio, f_a": "f_a", "visual, f_v": "f_v"} if cached else {}
    found = {title: run.cache.read(name, videos) for title, name in names.items() if name in run.cache.shapes}
    return found | {f"fused, {run.name}": look_inside(run, 0, rows).fused}


def _tsne(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """(n, D) -> (n, 2), stretched to [0, 1]; before, deviations are set to 1 and 50 components kept."""
    try:
        decomposition, manifold = (import_module(f"sklearn.{name}") for name in ("decomposition", "manifold"))
        threads = import_module("threadpoolctl")
    except ModuleNotFoundError:
        raise ConfigError("t-SNE needs scikit-learn", hint="pip install 'avel[plots]'") from None
    scaled = (vectors - vectors.mean(0)) / np.maximum(vectors.std(0), 1e-6)
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    with threads.threadpool_limits(1):  # sums in one order: the same points on every machine
        reduced = decomposition.PCA(min(COMPONENTS, *scaled.shape), random_state=seed).fit_transform(scaled)
        tsne = manifold.TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
        points = tsne.fit_transform(reduced)
    low, high = points.min(0), points.max(0)
    return np.asarray((points - low) / np.maximum(high - low, 1e-9), np.float64)
