"""`evaluate`: what a run's predictions are worth, over its seeds, beside the floors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from avel.errors import ConfigError
from avel.heads.evaluation.decoders import DECODERS, Decoder
from avel.heads.evaluation.metrics import (
    bootstrap_interval,
    confusion,
    event_scores,
    floors,
    recall_by_class,
    segment_accuracy,
)
from avel.heads.evaluation.predictions import Predictions, read_predictions
from avel.heads.models.head import Model
from avel.heads.training.data import Data, chunks_of
from avel.heads.training.fit import CLIPS_AT_ONCE, arithmetic
from avel.heads.training.kept import Kept, kept_members
from avel.stores.runs import Run

Measured = dict[str, Any]


def evaluate(
    run: Path | str,
    split: Literal["val", "test"] = "test",
    *,
    decoder: Decoder = "argmax",
    onset_tolerance: float = 1,
    offset_tolerance: float = 1,
) -> Measured:
    """Judges a run's members at their best validation epoch; accuracies in percent, tolerances in segments.

    >>> evaluate("runs/tacma")["groups"]["tacma"]["accuracy_percent"]  # doctest: +SKIP
    {'mean': 80.6, 'std': 1.1}

    Raises:
        MissingPathError: no such run.
        StoreError: the run has no predictions of this split.
        ConfigError: no such decoder.
    """
    if decoder not in DECODERS:
        raise ConfigError(f"no decoder named {decoder!r}", hint=f"choose from {', '.join(DECODERS)}")
    opened = Run.open(run, "heads")
    members = {member.name: member for member in kept_members(opened)}
    predictions = list(read_predictions(opened.path / "predictions.parquet", split))
    categories: list[str] = opened.inputs["categories"]
    groups: dict[str, list[Predictions]] = {}
    for item in predictions:
        groups.setdefault(group_name(members[item.member]), []).append(item)
    first = predictions[0]
    floor = floors(first.label, first.category, len(categories))
    judge = _Judge(split, decoder, onset_tolerance, offset_tolerance, categories)
    return {
        "run": str(opened.path),
        "split": split,
        "decoder": decoder,
        "rows": len(first.row),
        "leaked_rows": int(first.leaked.sum()),
        "floors_percent": {
            "always_background": 100 * floor.always_background,
            "right_class_never_background": 100 * floor.right_class_never_background,
        },
        "groups": {
            name: judge.group(items, [members[item.member] for item in items])
            for name, items in groups.items()
        },
        "failed_members": {name: member.failure for name, member in members.items() if member.failure},
    }


def group_name(member: Kept) -> str:
    """Members that differ in the seed alone share a name: the head, or the settings of a sweep."""
    settings = ",".join(f"{key}={value}" for key, value in member.settings.items())
    return settings or member.config.head.name


def predict_split(model: Model, member: Kept, data: Data, name: str) -> Predictions:
    """One member's class probabilities on one split."""
    split = data.splits[name]
    parts = []
    chunks = [split.videos[chunk] for chunk in chunks_of(torch.arange(len(split)), CLIPS_AT_ONCE)]
    for audio, visual in data.features.batches(chunks):
        with torch.no_grad(), arithmetic(member.config, data.features.device):
            parts.append(torch.softmax(model(audio, visual).logits.float(), -1).cpu())
    return Predictions(
        member.name,
        name,
        split.row,
        split.video_id,
        split.leaked,
        split.categories.cpu().numpy(),
        split.labels.cpu().numpy(),
        torch.cat(parts).numpy(),
    )


class _Judge:
    """Measures of members that differ in the seed alone."""

    def __init__(
        self, split: str, decoder: Decoder, onset: float, offset: float, categories: list[str]
    ) -> None:
        self.split, self.decoder, self.onset, self.offset = split, decoder, onset, offset
        self.categories, self.background = categories, len(categories)

    def group(self, items: Sequence[Predictions], members: Sequence[Kept]) -> Measured:
        decoded = [DECODERS[self.decoder](item.probabilities) for item in items]
        label, clean = items[0].label, ~items[0].leaked
        holding = (label == self.background).any(1)
        right = np.mean([predicted == label for predicted in decoded], 0).mean(1)
        low, high = bootstrap_interval(right, items[0].video_id)
        counts = sum(confusion(predicted, label, self.background + 1) for predicted in decoded)
        return {
            "head": members[0].config.head.name,
            "inputs": members[0].source,
            "seeds": [member.seed for member in members],
            "best_epochs": [member.best_epoch for member in members],
            "accuracy_percent": spread([segment_accuracy(predicted, label) for predicted in decoded]),
            "interval_percent": [100 * low, 100 * high],
            "accuracy_without_leaked_percent": spread(
                [segment_accuracy(predicted[clean], label[clean]) for predicted in decoded]
            ),
            "accuracy_holding_background_percent": spread(
                [segment_accuracy(predicted[holding], label[holding]) for predicted in decoded]
            ),
            "validation_accuracy_percent": spread([member.val_accuracy for member in members]),
            **self._beside(items, members),
            **self._recalls(np.asarray(counts)),
            "events_percent": self._events(decoded, label),
        }

    def _beside(self, items: Sequence[Predictions], members: Sequence[Kept]) -> Measured:
        """The other decoder; what picking the epoch by test would have claimed, which arg-max alone knows."""
        by_decoder = {
            f"accuracy_{name}_decoder_percent": spread(
                [segment_accuracy(decode(item.probabilities), item.label) for item in items]
            )
            for name, decode in DECODERS.items()
            if name != self.decoder
        }
        if self.split == "test" and self.decoder == "argmax":
            claimed = spread([member.best_test_accuracy for member in members])
            by_decoder["accuracy_at_best_test_epoch_percent"] = claimed
        return by_decoder

    def _recalls(self, counts: NDArray[np.int64]) -> Measured:
        recalls = [None if math.isnan(value) else 100 * value for value in recall_by_class(counts).tolist()]
        return {
            "recall_percent": dict(zip(self.categories, recalls, strict=False)),
            "background_recall_percent": recalls[-1],
        }

    def _events(self, decoded: Sequence[NDArray[np.int64]], label: NDArray[np.int64]) -> Measured:
        scores = [
            event_scores(
                predicted,
                label,
                self.background,
                onset_tolerance=self.onset,
                offset_tolerance=self.offset,
            )
            for predicted in decoded
        ]
        return {
            "onset_tolerance_segments": self.onset,
            "offset_tolerance_segments": self.offset,
            "f1": spread([score.f1 for score in scores]),
            "precision": spread([score.precision for score in scores]),
            "recall": spread([score.recall for score in scores]),
        }


def spread(shares: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation (n - 1) over seeds, in percent; no deviation from one seed.

    Both are None where nothing could be counted, as without leaked rows when all are, or over no seed at all.
    """
    values = 100 * np.asarray(shares, np.float64)
    if not len(values) or not np.isfinite(values).all():
        return {"mean": None, "std": None}
    return {"mean": float(values.mean()), "std": float(values.std(ddof=1)) if len(values) > 1 else None}
