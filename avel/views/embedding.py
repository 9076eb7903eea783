"""Computes t-SNE of f_a, f_v and the fused vectors, of the same segments (Figure 7)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avel.errors import import_extra
from avel.stores.datasets.labels import in_clip
from avel.text import plural
from avel.views.inside import look_inside, videos_of
from avel.views.reading import HeadRun

POINTS = 1500
"""Most segments in a panel; more take minutes and show no more."""
PERPLEXITY, COMPONENTS, SEED = 30.0, 50, 0
FEWEST_POINTS = 4
"""Distinct points that t-SNE needs: the perplexity is then at least 1."""
ROUNDING = 1e-6
"""Fraction of its largest value below which a feature's std counts as 0: float32 rounds at 1e-7."""


@dataclass(frozen=True)
class Embedding:
    """n segments in the plane.

    Attributes:
        place: (n,) index of the sample in the run's arrays.
        segment: (n,) number in the clip.
        classes: (n,) class, the first where a segment has several; background is last.
        points: title of a panel -> (n, 2), each axis within [0, 1].
        left_out: title of a panel that cannot be drawn -> why.
    """

    place: NDArray[np.int64]
    segment: NDArray[np.int64]
    classes: NDArray[np.int64]
    points: dict[str, NDArray[np.float64]]
    left_out: dict[str, str]


def embed(run: HeadRun, split: str, *, points: int = POINTS, cached: bool = True) -> Embedding:
    """Computes t-SNE (van der Maaten and Hinton, 2008) of `points` labelled segments of a split.

    Args:
        points: number of segments at most.
        cached: whether f_a and f_v are shown beside the fused vectors.

    Raises:
        ConfigError: scikit-learn is not installed.
        StoreError: no such split, none of its labels is known, or the features are gone.
    """
    places = run.known_places_of(split)
    inside = np.argwhere(in_clip(run.label[places]))
    order = np.random.default_rng(SEED).permutation(len(inside))[:points]
    chosen, segment = inside[np.sort(order)].T
    drawn, row = np.unique(chosen, return_inverse=True)
    vectors = {title: every[row, segment] for title, every in _vectors(run, places[drawn], cached).items()}
    left_out = {title: why for title, values in vectors.items() if (why := obstacle(values))}
    placed = {title: tsne(values) for title, values in vectors.items() if title not in left_out}
    classes = run.task.shown_classes(run.label[places])[chosen, segment]
    return Embedding(places[chosen], segment, classes, placed, left_out)


def obstacle(vectors: NDArray[np.float32]) -> str:
    """Says why vectors (n, D) cannot be embedded, "" where they can.

    Call it before `tsne`: on equal points scikit-learn's compiled code ends the process.
    """
    count, width = vectors.shape
    broken = int((~np.isfinite(vectors).all(1)).sum())
    if broken:
        return f"{broken} of its {plural(count, 'vector')} hold NaN or infinity"
    if width < 2:
        return "its vectors hold one number each, and t-SNE needs two"
    distinct = len(np.unique(_scaled(vectors), axis=0))
    if distinct < FEWEST_POINTS:
        return f"{plural(distinct, 'distinct vector')} among its {count}, and t-SNE needs {FEWEST_POINTS}"
    return ""


def _vectors(run: HeadRun, places: NDArray[np.int64], cached: bool) -> dict[str, NDArray[np.float32]]:
    """Returns the vectors of each panel, the fused ones of the first trial: title -> (R, T, D)."""
    videos = videos_of(run, places)
    names = {"audio, f_a": "f_a", "visual, f_v": "f_v"} if cached else {}
    own = {title: run.cache.read(name, videos) for title, name in names.items() if name in run.cache.shapes}
    return own | {f"fused, {run.name}": look_inside(run, 0, places).fused}


def tsne(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Maps vectors to the plane: (n, D) -> (n, 2), each axis scaled to [0, 1].

    The steps are features of mean 0 and std 1, at most 50 principal components, t-SNE.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    modules = ("sklearn.decomposition", "sklearn.manifold", "threadpoolctl")
    decomposition, manifold, threads = (import_extra(name, "plots") for name in modules)
    scaled = _scaled(vectors)
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    # With more threads the order of sums, and so the points, would depend on their number.
    with threads.threadpool_limits(1):
        reduced = decomposition.PCA(min(COMPONENTS, *scaled.shape), random_state=SEED).fit_transform(scaled)
        model = manifold.TSNE(2, perplexity=perplexity, init="pca", random_state=SEED, n_jobs=1)
        points = model.fit_transform(reduced)
    low, high = points.min(0), points.max(0)
    return np.asarray((points - low) / np.maximum(high - low, 1e-9), np.float64)


def _scaled(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales each feature to mean 0 and std 1, or to 0 if it does not vary: (n, D) -> (n, D)."""
    values = vectors.astype(np.float64)  # in float32 squares of large or tiny values are infinite or 0
    std = values.std(0)
    varies = std > ROUNDING * np.abs(values).max(0)
    scaled = np.where(varies, (values - values.mean(0)) / np.where(varies, std, 1), 0)
    return scaled.astype(np.float32)
