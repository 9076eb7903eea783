"""`avel leaderboard`: trains all heads with their own defaults on one cache, and compares them."""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch

from avel.config import resolve
from avel.errors import ConfigError, TrainingError, UnknownNameError
from avel.heads.config import HEADS, TrainConfig
from avel.heads.evaluation.compare import GroupPredictions, read_group
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.evaluation.paired import differences
from avel.heads.models.head import build_model, head_class
from avel.heads.train import LoadedCache, train_head
from avel.heads.training.forecast import note_long_training
from avel.heads.training.plan import plan
from avel.heads.training.records import mean_val_score
from avel.heads.training.trials import Trial
from avel.progress import note
from avel.recipes.leaderboard.board import HeadLine, Leaderboard, SkippedHead
from avel.recipes.leaderboard.page import page
from avel.stores.files import check_own, write_json, write_text
from avel.text import as_plain, plural

NAME = "leaderboard"
OWN = ("head", "seeds", "supervision")
"""Settings that `leaderboard` decides itself."""


def leaderboard(
    cache: Path | str,
    out: Path | str,
    *,
    heads: str | Sequence[str] = "all",
    seeds: int = 5,
    supervision: Literal["full", "weak"] = "full",
    against: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Leaderboard:
    """Trains heads on a cache, each with its own defaults, and compares all with one of them.

    Each head is a run in a folder of its name below `out`. The same call resumes an interrupted one. A head
    that does not fit the cache is left out, with the reason.

    >>> leaderboard("ave.h5", "board", heads=("tacma", "mlp"), seeds=5).level  # doctest: +SKIP
    ('mlp',)

    Args:
        heads: names, or "all".
        against: the head to compare with; by default the best on validation.
        settings: settings of all heads on top of their defaults; "NAME.KEY" is that of one head.

    Raises:
        UnknownNameError: no such head.
        ConfigError: no heads; a setting that one of them does not know; `out` holds a foreign file that would
            be overwritten.
        TrainingError: no head can be trained on the cache, or the one to compare with cannot.
        StoreError: `out` holds runs of other settings or of another cache.
    """
    began = time.monotonic()
    configs = plan_heads(heads, seeds, supervision, settings or {})
    if against is not None and against not in configs:
        raise UnknownNameError("head", against, configs, where="--against")
    folder = Path(out)
    check_own(folder, f"{NAME}.json", (f"{NAME}.{ending}" for ending in ("json", "csv", "html")))
    loaded = LoadedCache.open(cache, next(iter(configs.values())).device)
    _note_long(loaded, configs, folder)
    skipped: list[SkippedHead] = []
    groups: dict[str, GroupPredictions] = {}
    order = sorted(configs, key=lambda name: name != against)  # without `against` nothing can be compared
    for number, name in enumerate(order, 1):
        note(f"\n== head {number} of {len(configs)}: {name}, {plural(seeds, 'seed')}")
        try:
            train_head(loaded, folder / name, configs[name])
        except (ConfigError, TrainingError) as error:
            if name == against:
                raise TrainingError(f"--against {name}: {error.message}") from None
            note(f"{name} is left out: {error.message}")
            skipped.append(SkippedHead(name, error.message))
            continue
        groups[name] = read_group(folder / name, "test")
    if not groups:
        raise TrainingError(f"no head can be trained here; {skipped[0].head}: {skipped[0].reason}")
    chosen = against or max(groups, key=lambda name: mean_val_score(groups[name].trials))
    lines = sorted(
        (_line(group, groups[chosen], supervision) for group in groups.values()),
        key=lambda line: -(line.score_percent.mean or 0),
    )
    judged = evaluate(folder / chosen)
    board = Leaderboard(
        cache=str(loaded.cache.path),
        cache_digest=loaded.cache.digest,
        supervision=supervision,
        against=chosen,
        samples=judged.samples,
        trivial_baselines_percent=judged.trivial_baselines_percent,
        heads=tuple(lines),
        measure=judged.measure,
        level=tuple(line.head for line in lines if (told := line.difference) is not None and told.level),
        skipped=tuple(skipped),
        seconds=round(time.monotonic() - began, 1),
        page=str(folder / f"{NAME}.html"),
    )
    write_json(folder / f"{NAME}.json", as_plain(board))
    write_text(folder / f"{NAME}.csv", as_csv(board))
    write_text(folder / f"{NAME}.html", page(board))
    return board


def _note_long(loaded: LoadedCache, configs: Mapping[str, TrainConfig], folder: Path) -> None:
    """Says how long training the heads takes that the cache fits and that are not trained yet."""
    groups: list[list[Trial]] = []
    for name, config in configs.items():
        with suppress(ConfigError, TrainingError):  # said where the head is left out
            if not (folder / name).exists():
                loaded.trainable(config)
                groups += [[item.trial] for item in plan(config, {}, {})]
    if groups:
        note_long_training(groups, loaded.data, loaded.device)


def plan_heads(
    heads: str | Sequence[str], seeds: int, supervision: str, settings: Mapping[str, Any]
) -> dict[str, TrainConfig]:
    """Returns head -> config of its training.

    Raises:
        UnknownNameError: no such head.
        ConfigError: no names; a setting that one of the heads does not know, or that the leaderboard decides.
    """
    for key in OWN:
        if key in settings:
            raise ConfigError(
                f"{key}={settings[key]!r} among the settings of all heads", hint=f"give --{key}"
            )
    given = list(HEADS) if heads == "all" else [heads] if isinstance(heads, str) else list(heads)
    names = list(map(HEADS.named, given))
    if not names:
        raise ConfigError("--heads names no head", hint="--heads all, or names separated by commas")
    for name in names:
        if name not in HEADS:
            raise UnknownNameError(HEADS.kind, name, HEADS, where="--heads")
    ours = {"seeds": seeds, "supervision": supervision}
    return {
        name: resolve(TrainConfig, "train-head", options={**settings, **ours, "head": name}) for name in names
    }


def _line(group: GroupPredictions, against: GroupPredictions, supervision: str) -> HeadLine:
    judged = evaluate(group.run.path).groups[group.name]
    first = group.trials[0]
    head = head_class(first.config)
    with torch.device("meta"):
        model = build_model(first.config, first.widths, 0)
    epochs = sum(trial.epochs for trial in group.trials)
    seconds = sum(trial.train_seconds for trial in group.trials)
    return HeadLine(
        head=judged.head,
        source=head.source,
        inputs=judged.inputs,
        weak_labels=judged.weak_labels,
        selected_by=judged.selected_by,
        run=str(group.run.path),
        seeds=judged.seeds,
        accuracy_percent=judged.accuracy_percent,
        interval_percent=judged.interval_percent,
        holding_background_percent=judged.accuracy_holding_background_percent,
        segment_f1_percent=judged.segment_f1_percent,
        event_f1_percent=judged.events.f1_percent,
        validation_percent=judged.validation_score_percent,
        best_test_epoch_percent=judged.score_at_best_test_epoch_percent,
        published=next((each for each in head.published if each.supervision == supervision), None),
        parameters=sum(weight.numel() for weight in model.parameters()),
        epoch_seconds=seconds / epochs if seconds else None,
        differences={} if group is against else differences(group.items, against.items, group.task),
    )


def as_csv(board: Leaderboard) -> str:
    """Returns one line a head, nested values as columns "accuracy_percent.mean"."""
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
            result |= {"published_percent": item and item.percent, "published_source": item and item.source}
        elif isinstance(item, Mapping):
            result |= _flat(item, f"{prefix}{key}.")
        elif isinstance(item, tuple):
            result[prefix + key] = " ".join(map(str, item))
        else:
            result[prefix + key] = item
    return result
