"""A small dataset with awkward names, staged and cached, and two short head runs on it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from avel.heads.train import train_head
from avel.pipeline.staging.extract import extract
from avel.recipes.composing.mp4 import write_mp4
from avel.stores.clips import ClipStore
from avel.stores.features import write_features
from tests.samples import cached_samples

T, D = 4, 16
HOSTILE = '<img src=x onerror="window.hacked=1">'
CATEGORIES = ("Bell", HOSTILE, "</script><script>window.hacked=1</script>", "Dog & \"cat\", 'bird'")
IDS = ("-clip one", "b#half?x=1&y", "c%20plain", "düne")


@dataclass(frozen=True)
class Made:
    """Where everything lies."""

    folder: Path
    cache: Path
    store: Path
    runs: tuple[Path, ...]


def video(path: Path, seconds: int, hue: int) -> None:
    """A clip whose red grows with the second, with a tone of 500 Hz in its even seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = (np.full((48, 64, 3), (40 * (n // 8) % 256, hue, 80), np.uint8) for n in range(8 * seconds))
    time = np.arange(16000 * seconds) / 16000
    tone = np.sin(2 * np.pi * 500 * time) * (time.astype(int) % 2 == 0)
    write_mp4(path, frames, Fraction(8), (0.3 * tone[None]).astype(np.float32), 16000)


def make(folder: Path, *, clips: int = 12, store: bool = True) -> Made:
    """A dataset of few videos with awkward names, many samples, a cache, and two runs of two trials."""
    dataset, staged = folder / "data set", folder / "clips.zarr"
    for number, name in enumerate(IDS):
        video(dataset / f"{name}.mp4", T, 60 * number)
    if store:
        extract(dataset, staged, segments=T, size=48, workers=1)
        ids = ClipStore.open(staged).video_ids
    else:
        ids = tuple(sorted(IDS))
    cache = folder / "features.h5"
    write_cache(cache, ids, clips, {"store": str(staged)} if store else {})
    return Made(folder, cache, staged, write_runs(cache, folder))


def write_cache(
    path: Path,
    ids: tuple[str, ...],
    clips: int,
    provenance: dict[str, str],
    *,
    silent: bool = False,
    unknown: tuple[int, ...] = (),
) -> None:
    """R samples of V videos, each an event of one category in segments 1 and 2.

    Every other sample is tagged "seen", the others HOSTILE. If `silent`, f_a is zero; the events of `unknown`
    samples are not known.
    """
    random = np.random.default_rng(0)
    category = np.arange(clips) % len(CATEGORIES)
    label = np.full((clips, T), len(CATEGORIES))
    label[:, 1:3] = category[:, None]
    label[list(unknown)] = -1
    video = np.arange(clips) % len(ids)
    splits = np.array([("train", "test", "val")[clip % 3] for clip in range(clips)], object)
    tags = [("seen", HOSTILE)[clip % 2] for clip in range(clips)]
    samples = cached_samples(label, len(CATEGORIES), video=video, split=splits, tag=tags)
    arrays = {name: random.normal(size=(len(ids), T, D)).astype(np.float32) for name in ("f_a", "f_v")}
    if silent:
        arrays["f_a"][:] = 0
    write_features(
        path, video_ids=ids, categories=CATEGORIES, samples=samples, arrays=arrays, provenance=provenance
    )


def write_runs(cache: Path, folder: Path) -> tuple[Path, ...]:
    """An MLP and a TACMA, two trials each, trained for three epochs."""
    runs = (folder / "mlp", folder / "tacma")
    for path in runs:
        train_head(cache, path, head=path.name, seeds=2, epochs=3, batch_size=4, device="cpu")
    return runs
