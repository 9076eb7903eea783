"""`avel reproduce`: all that one table of the paper needs, and the paper's figures beside ours."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from avel.config import resolve, to_toml
from avel.errors import ConfigError, UnknownNameError
from avel.heads.config import TrainConfig
from avel.heads.evaluation.results import GroupEvaluation, Spread
from avel.heads.models.head import head_class
from avel.heads.train import train_head
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.config import CacheConfig, PretrainConfig
from avel.pipeline.pretraining.pretrain import pretrain
from avel.progress import note
from avel.recipes.reproducing.measured import Measured, Reproduced, reversed_order
from avel.recipes.reproducing.picture import draw
from avel.recipes.reproducing.tables import BACKBONES, ENCODERS, TABLES, TITLES, Row
from avel.stores.files import check_own, write_json, write_text
from avel.text import as_plain

WITHOUT_MAPS = ", without AGVA"
"""Ends the name of a row whose head attends over visual maps that were not cached."""
MAPS_NOTE = (
    "without AGVA: on the CNNs' vectors; --set cache-features.keep_maps=true into another folder keeps maps"
)


def reproduce(
    table: str,
    store: Path | str,
    out: Path | str,
    *,
    seeds: int = 3,
    pretraining: PretrainConfig | None = None,
    caching: CacheConfig | None = None,
    heads: Mapping[str, Any] | None = None,
) -> Reproduced:
    """Trains what a table of the paper compares, on the clips of `store`; gives the paper's figures beside.

    Each seed repeats everything: encoders, features, head. Encoders and features stay below `out`, where all
    tables use them; the same call goes on where an interrupted one stopped.

    Args:
        table: table2, table3, table4, table5 or figure6.
        seeds: repetitions, with consecutive seeds from those of the configs.
        pretraining: settings of AV-BT; the rows of Tables 4 and 5 change theirs on top.
        caching: settings of the features; backbones and their weights come from `pretraining`.
        heads: settings of all the table's heads, name to value; each row chooses the head.

    Raises:
        UnknownNameError: no such table.
        ConfigError: a setting that one of the heads does not know, or that this function decides; Table 5
            with frozen CNNs that see no augmentation; `out` holds another's file of the name of one of ours.
        AvelError: what the stages raise.
    """
    began = time.monotonic()
    if table not in TABLES:
        raise UnknownNameError("table", table, TABLES)
    pretraining, caching, heads = pretraining or PretrainConfig(), caching or CacheConfig(), dict(heads or {})
    for name, hint in (
        ("head", "leave it out; each row has its own"),
        ("seeds", "--seeds of avel reproduce"),
    ):
        if name in heads:
            raise ConfigError(f"{name}={heads[name]!r} of the heads has no effect here", hint=hint)
    if table == "table5" and pretraining.freeze_backbone and not pretraining.frozen.augment:
        raise ConfigError(
            "table5 compares augmentations, which frozen CNNs are not given",
            hint="--set pretrain.frozen_augment=true (or pretrain.freeze_backbone=false)",
        )
    for row in TABLES[table]:
        if row.head is not None:
            row_config(row, heads)
    check_own(Path(out), table, (f"{table}.{ending}" for ending in ("png", "toml", "json")))
    out = Path(out)
    stages = _Stages(str(store), out, table, pretraining, caching, heads)
    found = {
        row.name: [stages.judge(row, seed) for seed in range(seeds)]
        for row in TABLES[table]
        if row.head is not None
    }
    rows = tuple(_measured(row, found.get(row.name, [])) for row in TABLES[table])
    picture = draw(rows, stages.trivial_baselines_percent, TITLES[table], out / f"{table}.png")
    reproduced = Reproduced(
        table,
        seeds,
        rows,
        stages.trivial_baselines_percent,
        reversed_order(rows),
        (MAPS_NOTE,) if any(row.name.endswith(WITHOUT_MAPS) for row in rows) else (),
        round(time.monotonic() - began, 1),
        str(picture),
    )
    documents = [to_toml(pretraining, "pretrain"), to_toml(caching, "cache-features")]
    if heads:
        documents.append(tomli_w.dumps({"train-head": heads}))
    write_text(out / f"{table}.toml", "\n".join(documents))
    write_json(out / f"{table}.json", as_plain(reproduced))
    return reproduced


def row_config(row: Row, heads: Mapping[str, Any], seed: int = 0) -> TrainConfig:
    """Returns how a row's head is trained: `heads` for all, then the row's own settings.

    Raises:
        ConfigError: a setting that the row's head does not know.
    """
    config = resolve(TrainConfig, "train-head", options={**heads, **(row.head or {})})
    head_class(config)
    return dataclasses.replace(config, seed=config.seed + seed)


class _Stages:
    """The folder in which everything is trained once: encoders/, features/, and heads of each table."""

    def __init__(
        self,
        store: str,
        out: Path,
        table: str,
        pretraining: PretrainConfig,
        caching: CacheConfig,
        heads: Mapping[str, Any],
    ) -> None:
        self.store, self.out, self.table = store, out, table
        self.pretraining, self.caching, self.heads = pretraining, caching, heads
        self.trivial_baselines_percent: dict[str, float] = {}
        self._features: dict[tuple[str, int], Path] = {}

    def judge(self, row: Row, seed: int) -> GroupEvaluation:
        """Trains and judges one row's head with one seed."""
        assert row.head is not None
        note(f"\n== {row.name}, seed {seed}")
        cache = self.features(row.features, 0 if row.features == BACKBONES else seed)
        config = row_config(row, self.heads, seed)
        name = re.sub(r"[^\w.]+", "-", row.name)
        result = train_head(cache, self.out / self.table / f"{name}-seed{seed}", config)
        self.trivial_baselines_percent = result.trivial_baselines_percent
        return result.groups[config.head.name]

    def features(self, name: str, seed: int) -> Path:
        """Makes the cache of one kind of features, or checks it, once a call; the CNNs' own have no seed."""
        if (name, seed) not in self._features:
            self._features[name, seed] = self._make_features(name, seed)
        return self._features[name, seed]

    def _make_features(self, name: str, seed: int) -> Path:
        if name == BACKBONES:
            visual, audio = self.pretraining.visual, self.pretraining.audio
            crop = self.caching.crop_size or self.pretraining.augmentation.crop_size
            config = dataclasses.replace(
                self.caching, visual=visual, audio=audio, crop_size=crop, keep_cnn=True
            )
            path = self.out / "features" / f"{name}.h5"
            cache_features(self.store, path, config)
            return path
        encoder = self.encoder(name, seed)
        path = self.out / "features" / f"{encoder.name}.h5"
        config = dataclasses.replace(self.caching, keep_maps=False, keep_cnn=False)
        frozen = self.pretraining.freeze_backbone and not ENCODERS[name].get(
            "agva", self.pretraining.encoder.agva
        )
        vectors = self.features(BACKBONES, 0) if frozen else None
        cache_features(self.store, path, config, encoder=encoder, cnn_from=vectors)
        return path

    def encoder(self, name: str, seed: int) -> Path:
        """Pretrains the encoder of one kind of features with one seed, and returns its run."""
        changes = {**ENCODERS[name], "seed": self.pretraining.seed + seed}
        config = resolve(PretrainConfig, "pretrain", base=self.pretraining, options=changes)
        if config.freeze_backbone:
            vectors = config.frozen.vectors or str(self.out / "frozen-vectors")
            differs = "-agva" * config.encoder.agva + f"-{name}" * config.frozen.augment
            frozen = dataclasses.replace(config.frozen, vectors=vectors + differs)
            config = dataclasses.replace(config, frozen=frozen)
        run = self.out / "encoders" / f"{name}-seed{seed}"
        pretrain(self.store, run, config)
        return run


def _measured(row: Row, groups: list[GroupEvaluation]) -> Measured:
    if row.head is None:
        return Measured(row.name, row.paper_percent)
    without_maps = head_class(row_config(row, {})).sources[0] == "maps" != groups[0].inputs
    return Measured(
        row.name + WITHOUT_MAPS * without_maps,
        row.paper_percent,
        _over_seeds(group.accuracy_percent for group in groups),
        _over_seeds(group.accuracy_holding_background_percent for group in groups),
        _over_seeds(group.validation_accuracy_percent for group in groups),
        _over_seeds(group.accuracy_at_best_test_epoch_percent for group in groups),
    )


def _over_seeds(repetitions: Iterable[Spread]) -> Spread:
    """Returns the spread over repetitions of one seed each, without those in which nothing was counted."""
    return Spread.of([one.mean for one in repetitions if one.mean is not None])
