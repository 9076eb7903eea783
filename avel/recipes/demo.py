"""`demo`: runs every stage on synthetic clips, and compares heads on them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from avel.heads.evaluation.evaluation import GroupEvaluation
from avel.heads.tasks.results import interval_text
from avel.heads.train import train_head
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.pretraining.pretrain import pretrain
from avel.pipeline.staging.extract import extract
from avel.progress import note
from avel.recipes.composing.compose import compose
from avel.stores.files import check_can_write, check_own
from avel.text import duration, table
from avel.views.plots.plot import demo_picture

T = TypeVar("T")

FILES = {
    "clips": "clips",
    "store": "clips.zarr",
    "encoder": "avbt",
    "cache": "features.h5",
    "untrained": "untrained.h5",
    "picture": "demo.png",
}
"""Result of the demo -> its name in the demo's folder."""

READING = (
    "An event is where its object is both visible and audible, so audio or visual alone cannot find it.",
    "In the row mlp untrained the encoder has random weights; in the others AV-BT has trained it.",
    "The label of a second depends on that second alone. So TACMA, which also attends to other seconds, can"
    " hardly do better than mlp both here.",
)
"""Text that explains the table."""

NEXT = (
    "next, on your own clips (AVE's folder, or any folder of videos with a CSV of events):",
    "  avel extract DATASET clips.zarr",
    "  avel pretrain clips.zarr runs/avbt",
    "  avel cache-features clips.zarr features.h5 --encoder runs/avbt",
    "  avel train-head features.h5 runs/tacma --head tacma --seeds 5",
)

STAGED_PX = 128
TINY_CNNS: dict[str, Any] = {
    "visual_backbone": "tiny",
    "audio_backbone": "tiny",
    "visual_weights": "random",
    "audio_weights": "random",
}
PRETRAINING: dict[str, Any] = {
    **TINY_CNNS,
    "projector": "256-512-512",
    "optimizer": "adamw",
    "batch_size": 16,
    "epochs": 18,
    "crop_size": 64,
    "crop_scale": (0.5, 1.0),
}
"""Settings with which AV-BT learns from 144 clips on two cores in about a minute."""
NO_PRETRAINING: dict[str, Any] = {**TINY_CNNS, "untrained": True, "crop_size": PRETRAINING["crop_size"]}
"""Settings of the same encoder with random weights, which AV-BT has to beat."""

DEMO_HEADS: dict[str, dict[str, Any]] = {
    "mlp audio": {"head": "mlp", "modality": "audio"},
    "mlp visual": {"head": "mlp", "modality": "visual"},
    "mlp untrained": {"head": "mlp", "modality": "both"},
    "mlp both": {"head": "mlp", "modality": "both"},
    "tacma": {"head": "tacma", "theta": 1.0},
}
"""Row of the table -> settings of the head; the untrained one reads the features of an untrained encoder.

Theta and all epochs were chosen with --seed 101 and 102, whose clips the demo does not show.
"""

HEAD_SETTINGS: dict[str, Any] = {"seeds": 3, "epochs": 40, "lr": 1e-3, "batch_size": 32, "standardise": True}
"""Settings of every head. The lr is above AVE's 1e-4, since so few clips give few steps."""


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo.

    Attributes:
        heads: row of the table -> results on test.
        trivial_baselines_percent: rule without a model -> its accuracy on test.
        seconds: stage -> wall time.
        paths: what the demo made -> where it is.
    """

    heads: dict[str, GroupEvaluation]
    trivial_baselines_percent: dict[str, float]
    seconds: dict[str, float]
    paths: dict[str, str]

    def lines(self) -> list[str]:
        """Returns the table of results with the trivial baselines, the paths, and what to run next."""
        rows: list[tuple[Any, ...]] = [
            (
                name,
                group.accuracy_percent,
                interval_text(group.interval_percent),
                group.events.f1_percent,
                group.score_at_best_test_epoch_percent,
            )
            for name, group in self.heads.items()
        ]
        baselines = [
            (f"trivial baseline: {name}", f"{value:.1f}", "", "", "")
            for name, value in self.trivial_baselines_percent.items()
        ]
        shown = table(
            ("test accuracy, %", "best validation epoch", "95 % interval", "event F1", "best test epoch"),
            [*rows, *baselines],
        )
        paths = [f"  {name:<9} {path}" for name, path in self.paths.items()]
        return [*shown, "", *READING, "", *paths, "", *NEXT, ""]

    def headline(self) -> str:
        """Returns the result in one line."""
        best = max(self.heads, key=lambda name: self.heads[name].validation_score_percent.mean or 0.0)
        took = duration(sum(self.seconds.values()))
        return f"best on validation: {best}, test accuracy {self.heads[best].accuracy_percent} %; took {took}"


def demo(folder: Path | str, *, clips: int = 240, seed: int = 0) -> DemoResult:
    """Runs all stages on `clips` synthetic clips, in `folder`; a second call resumes, or reports again.

    Raises:
        AvelError: a stage fails, or `folder` holds a foreign file that would be overwritten.
    """
    folder = Path(folder)
    check_can_write(folder, folder=True)
    check_own(folder, "heads", (FILES["picture"],))
    seconds: dict[str, float] = {}

    def stage(name: str, work: Callable[[], T]) -> T:
        note(f"\n== {name}")
        began = time.monotonic()
        result = work()
        seconds[name] = round(time.monotonic() - began, 1)
        return result

    paths = {name: folder / file for name, file in FILES.items()}
    store, cache = paths["store"], paths["cache"]
    runs = {name: folder / "heads" / name.replace(" ", "-") for name in DEMO_HEADS}
    stage("compose", lambda: compose(paths["clips"], clips=clips, seed=seed))
    stage("extract", lambda: extract(paths["clips"], store, size=STAGED_PX))
    stage("pretrain", lambda: pretrain(store, paths["encoder"], seed=seed, **PRETRAINING))
    stage("cache-features", lambda: cache_features(store, cache, encoder=paths["encoder"]))
    stage("cache-untrained", lambda: cache_features(store, paths["untrained"], **NO_PRETRAINING, seed=seed))
    caches = {name: paths["untrained"] if name == "mlp untrained" else cache for name in DEMO_HEADS}
    heads = {name: {**DEMO_HEADS[name], **HEAD_SETTINGS} for name in DEMO_HEADS}
    evaluations = {
        name: stage(f"train-head: {name}", partial(train_head, caches[name], runs[name], **heads[name]))
        for name in DEMO_HEADS
    }
    stage("picture", lambda: demo_picture(runs, paths["picture"], shown=("mlp both", "tacma")))
    return DemoResult(
        heads={name: result.groups[DEMO_HEADS[name]["head"]] for name, result in evaluations.items()},
        trivial_baselines_percent=evaluations["tacma"].trivial_baselines_percent,
        seconds=seconds,
        paths={name: str(path) for name, path in {**paths, "heads": folder / "heads"}.items()},
    )
