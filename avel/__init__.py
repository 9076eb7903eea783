"""avel: audio-visual event localization, from raw clips to fusion heads.

Most of its functions do what the commands of the same names do; `open`, `as_table`, `as_torch` and
`load_head` read what commands have written. Each is imported on first use, so that `import avel` does not
import torch or dask.
"""

import os
from importlib import import_module
from typing import Any

# OpenMP reads this once, when torch is imported. By default a thread that waits for another one spins, and on
# a busy machine takes the core that the other needs: small matrix products then take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_FUNCTIONS = {
    "extract": "avel.pipeline.staging.extract",
    "pretrain": "avel.pipeline.pretraining.pretrain",
    "cache_features": "avel.pipeline.caching.cache",
    "import_features": "avel.stores.exchange",
    "export_features": "avel.stores.export",
    "export_annotations": "avel.stores.annotation_export",
    "diff": "avel.stores.diff",
    "train_head": "avel.heads.train",
    "sweep": "avel.heads.train",
    "search": "avel.heads.search",
    "cross_validate": "avel.heads.folds",
    "list_runs": "avel.heads.evaluation.runs",
    "background_cache": "avel.recipes.negatives",
    "leaderboard": "avel.recipes.leaderboard.leaderboard",
    "reproduce": "avel.recipes.reproducing.reproduce",
    "evaluate": "avel.heads.evaluation.evaluate",
    "evaluate_checkpoint": "avel.heads.checkpoint",
    "compare": "avel.heads.evaluation.compare",
    "score": "avel.heads.evaluation.score",
    "open": "avel.stores.opening",
    "as_table": "avel.stores.feature_table",
    "as_torch": "avel.stores.torch_data",
    "load_head": "avel.heads.training.records",
    "inspect": "avel.stores.inspection",
    "pack": "avel.stores.packing",
    "preview": "avel.views.plots.preview",
    "report": "avel.views.report.page",
    "plot": "avel.views.plots.plot",
    "predict": "avel.recipes.predicting.predict",
    "doctor": "avel.recipes.doctor",
    "demo": "avel.recipes.demo",
}
"""Function -> the module that holds it."""

__all__ = ["__version__", *_FUNCTIONS]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("avel")  # this import takes 50 ms
    if name not in _FUNCTIONS:
        raise AttributeError(f"module 'avel' has no attribute {name!r}")
    return getattr(import_module(_FUNCTIONS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
