"""Writes the board of the heads that are trained so far: as JSON, as CSV, and as a page."""

import csv
import dataclasses
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from avel.heads.evaluation.compare import GroupPredictions, read_group
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.evaluation.paired import differences
from avel.heads.models.head import build_model, head_class
from avel.heads.training.records import mean_val_score
from avel.recipes.leaderboard.board import HeadLine, Leaderboard, SkippedHead
from avel.recipes.leaderboard.page import page
from avel.stores.features import FeatureCache
from avel.stores.files import write_json, write_text
from avel.text import as_plain

STEM = "leaderboard"


class BoardWriter:
    """Collects the heads of a leaderboard, and writes the board of those that it has.

    Attributes:
        against: the head that all are compared with; None for the best on validation.
        skipped: the heads that were left out.
    """

    def __init__(self, folder: Path, cache: FeatureCache, supervision: str, against: str | None) -> None:
        self.folder, self.cache, self.supervision, self.against = folder, cache, supervision, against
        self.skipped: list[SkippedHead] = []
        self._began = time.monotonic()
        self._groups: dict[str, GroupPredictions] = {}
        self._lines: dict[tuple[str, str], HeadLine] = {}

    def add(self, head: str) -> None:
        """Reads the run of a trained head."""
        self._groups[head] = read_group(self.folder / head, "test")

    @property
    def heads(self) -> int:
        """Counts the trained heads."""
        return len(self._groups)

    def write(self, waiting: Sequence[str] = ()) -> Leaderboard:
        """Writes the board, in which `waiting` are named as not trained yet; there must be a trained head."""
        groups = self._groups
        chosen = self.against or max(groups, key=lambda name: mean_val_score(groups[name].trials))
        for name, group in groups.items():
            if (name, chosen) not in self._lines:
                self._lines[name, chosen] = _line(group, groups[chosen], self.supervision)
        lines = sorted(
            (self._lines[name, chosen] for name in groups),
            key=lambda line: -(line.score_percent.mean or 0),
        )
        evaluation = evaluate(self.folder / chosen)
        board = Leaderboard(
            cache=str(self.cache.path),
            cache_digest=self.cache.digest,
            supervision=self.supervision,
            against=chosen,
            samples=evaluation.samples,
            trivial_baselines_percent=evaluation.trivial_baselines_percent,
            heads=tuple(lines),
            measure=evaluation.measure,
            level=tuple(line.head for line in lines if (told := line.difference) is not None and told.level),
            skipped=tuple(self.skipped),
            waiting=tuple(waiting),
            seconds=round(time.monotonic() - self._began, 1),
            page=str(self.folder / f"{STEM}.html"),
        )
        write_json(self.folder / f"{STEM}.json", as_plain(board))
        write_text(self.folder / f"{STEM}.csv", _as_csv(board))
        write_text(self.folder / f"{STEM}.html", page(board))
        return board


def _line(group: GroupPredictions, against: GroupPredictions, supervision: str) -> HeadLine:
    figures = evaluate(group.run.path).groups[group.name]
    first = group.trials[0]
    head = head_class(first.config)
    with torch.device("meta"):
        model = build_model(first.config, first.widths, 0)
    epochs = sum(trial.epochs for trial in group.trials)
    seconds = sum(trial.train_seconds for trial in group.trials)
    return HeadLine(
        head=figures.head,
        source=head.source,
        inputs=figures.inputs,
        weak_labels=figures.weak_labels,
        selected_by=figures.selected_by,
        run=str(group.run.path),
        seeds=figures.seeds,
        accuracy_percent=figures.accuracy_percent,
        interval_percent=figures.interval_percent,
        holding_background_percent=figures.accuracy_holding_background_percent,
        segment_f1_percent=figures.segment_f1_percent,
        event_f1_percent=figures.events.f1_percent,
        validation_percent=figures.validation_score_percent,
        best_test_epoch_percent=figures.score_at_best_test_epoch_percent,
        published=next((each for each in head.published if each.supervision == supervision), None),
        parameters=sum(weight.numel() for weight in model.parameters()),
        epoch_seconds=seconds / epochs if seconds else None,
        differences={} if group is against else differences(group.items, against.items, group.task),
    )


def _as_csv(board: Leaderboard) -> str:
    """Returns one line for each head; a nested value has a column such as "accuracy_percent.mean"."""
    rows = [_flat(dataclasses.asdict(line)) for line in board.heads]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in value.items():
        if key == "published":
            result |= {
                "published_percent": item and item["percent"],
                "published_source": item and item["source"],
            }
        elif isinstance(item, Mapping):
            result |= _flat(item, f"{prefix}{key}.")
        elif isinstance(item, tuple):
            result[prefix + key] = " ".join(map(str, item))
        else:
            result[prefix + key] = item
    return result
