"""Feature caches with a known answer: class prototypes plus noise, events of random length."""

from pathlib import Path
from typing import Any

import numpy as np

from avel.config import resolve
from avel.heads.config import TrainConfig
from avel.stores.features import Rows, write_features

WIDTHS = {"f_a": (12,), "f_v": (12,), "cnn_a": (10,), "cnn_v": (14,), "maps": (2, 2, 14)}


def train_config(**options: Any) -> TrainConfig:
    """How a head is trained: settings by name, of the head and of the training."""
    return resolve(TrainConfig, "train-head", options=options)


def write_cache(
    path: Path,
    *,
    rows: int = 60,
    segments: int = 6,
    events: int = 3,
    noise: float = 0.7,
    arrays: tuple[str, ...] = ("f_a", "f_v"),
    splits: tuple[float, float] = (0.6, 0.8),
    seed: int = 0,
    **changes: np.ndarray,
) -> Path:
    """One video a row, but the last two rows share one; `changes` replace arrays or columns of the rows."""
    random = np.random.default_rng(seed)
    category = random.integers(0, events, rows)
    label = np.full((rows, segments), events)
    for row in range(rows):
        onset = random.integers(0, segments - 1)
        label[row, onset : random.integers(onset + 1, segments + 1)] = category[row]
    video = np.minimum(np.arange(rows), rows - 2)
    share = np.arange(rows) / rows
    split = np.where(share < splits[0], "train", np.where(share < splits[1], "val", "test"))
    columns = {
        "row": np.arange(rows) + 100,
        "video": video,
        "label": label,
        "category": category,
        "split": split.astype(object),
        "leaked": np.arange(rows) == rows - 1,
    }
    prototypes = {name: random.normal(size=(events + 1, *WIDTHS[name])) for name in arrays}
    made = {
        name: prototypes[name][label[: rows - 1]]
        + noise * random.normal(size=(rows - 1, segments, *WIDTHS[name]))
        for name in arrays
    }
    made |= {name: values for name, values in changes.items() if name in WIDTHS}
    columns |= {name: values for name, values in changes.items() if name not in WIDTHS}
    write_features(
        path,
        video_ids=tuple(f"-video{number}" for number in range(rows - 1)),
        categories=tuple(f"event {number}" for number in range(events)),
        rows=Rows(**columns),
        arrays=made,
        provenance={"made by": "the tests"},
    )
    return path
