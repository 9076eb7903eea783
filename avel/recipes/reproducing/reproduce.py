"""`avel reproduce`: trains everything that one table of the paper compares."""

import dataclasses
import re
import shlex
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from avel.config import resolve, to_toml
from avel.errors import ConfigError, DatasetError, UnknownNameError
from avel.heads.config import TrainConfig
from avel.heads.evaluation.compare import GroupPredictions, read_group
from avel.heads.evaluation.evaluation import GroupEvaluation
from avel.heads.evaluation.paired import differences
from avel.heads.models.head import head_class
from avel.heads.tasks.results import Spread
from avel.heads.train import train_head
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.config import AudioConfig, CacheConfig, PretrainConfig, VisualConfig
from avel.pipeline.pretraining.pretrain import pretrain
from avel.progress import note
from avel.recipes.reproducing.measured import Measured, Reproduced, reversed_order
from avel.recipes.reproducing.picture import draw_table
from avel.recipes.reproducing.tables import AGAINST, CNNS_ALONE, ENCODERS, TABLES, TITLES, PaperRow
from avel.stores.clips import ClipStore
from avel.stores.files import check_can_write, check_own, write_json, write_text
from avel.text import as_plain

WITHOUT_MAPS = ", without AGVA"
"""Suffix of a row whose head would attend over visual maps, which are not cached."""
MAPS_NOTE = (
    "without AGVA: the head reads the CNNs' vectors; for maps, reproduce the table into another folder with"
    " --set cache-features.keep_maps=true"
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
    """Trains what a table of the paper compares, on the clips of `store`, and compares with its figures.

    Each seed repeats everything: encoders, features, head. Encoders and features stay in `out` for the other
    tables; the same call resumes an interrupted one.

    Args:
        table: table2, table3, table4, table5 or figure6.
        seeds: number of repetitions, with consecutive seeds from those of the configs on.
        pretraining: settings of AV-BT; rows of Tables 4 and 5 override some.
        caching: settings of the features; backbones and their weights come from `pretraining`.
        heads: name -> value, settings of every head in the table; each row chooses the head.

    Raises:
        UnknownNameError: no such table.
        ConfigError: a setting that one of the heads does not know, or that this function decides; Table 5
            with frozen CNNs and without augmentation; `out` holds a foreign file that would be overwritten.
        DatasetError: no test sample of the store has known events.
        AvelError: a stage fails.
    """
    began = time.monotonic()
    if table not in TABLES:
        raise UnknownNameError("table", table, TABLES)
    pretraining, caching, heads = pretraining or PretrainConfig(), caching or CacheConfig(), dict(heads or {})
    own = {"head": "leave it out; each row has its own", "seeds": "--seeds of avel reproduce"}
    for name, hint in own.items():
        if name in heads:
            raise ConfigError(f"{name}={heads[name]!r} of the heads has no effect here", hint=hint)
    if table == "table5" and pretraining.freeze_backbone and not pretraining.frozen.augment:
        raise ConfigError(
            "table5 compares augmentations, but frozen CNNs read frames without any",
            hint="--set pretrain.frozen_augment=true (or pretrain.freeze_backbone=false)",
        )
    out = Path(out)
    check_can_write(out, folder=True)
    for row in TABLES[table]:
        row_config(row, heads)  # fails now, not after hours
    check_own(out, table, (f"{table}.{ending}" for ending in ("png", "toml", "json")))
    samples = ClipStore.open(store).dataset.samples
    test = samples.is_one_of("split", ["test"])
    if not (test & samples.column("events_known")).any():
        lacks = "no test sample has known events" if test.any() else "there is no test sample"
        raise DatasetError(
            f"{store}: {lacks}, which {table} needs",
            hint=f"annotate some, then avel extract DATASET {shlex.quote(str(store))} with these annotations",
        )
    stages = _Stages(str(store), out, table, pretraining, caching, heads)
    repetitions = {row.name: [stages.evaluate(row, seed) for seed in range(seeds)] for row in TABLES[table]}
    against = repetitions[AGAINST[table]]
    rows = tuple(_measured(row, repetitions[row.name], against) for row in TABLES[table])
    picture = draw_table(rows, stages.trivial_baselines_percent, TITLES[table], out / f"{table}.png")
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


def row_config(row: PaperRow, heads: Mapping[str, Any], seed: int = 0) -> TrainConfig:
    """Returns the config of a row's head: `heads` first, then the row's own settings.

    Raises:
        ConfigError: a setting that the row's head does not know.
    """
    config = resolve(TrainConfig, "train-head", options={**heads, **row.head})
    head_class(config)
    return dataclasses.replace(config, seed=config.seed + seed)


class _Stages:
    """Makes each encoder, cache and head once, in the folders encoders/, features/ and that of the table."""

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

    def evaluate(self, row: PaperRow, seed: int) -> tuple[GroupEvaluation, GroupPredictions]:
        """Trains and evaluates one row's head with one seed; returns its figures and its test predictions."""
        note(f"\n== {row.name}, seed {seed}")
        cache = self.features(row.features, 0 if row.features == CNNS_ALONE else seed)
        config = row_config(row, self.heads, seed)
        name = re.sub(r"[^\w.]+", "-", row.name)
        run = self.out / self.table / f"{name}-seed{seed}"
        result = train_head(cache, run, config)
        self.trivial_baselines_percent = result.trivial_baselines_percent
        return result.groups[config.head.name], read_group(run, "test")

    def features(self, name: str, seed: int) -> Path:
        """Returns the cache of features of one kind and seed; makes or checks it at first use."""
        if (name, seed) not in self._features:
            self._features[name, seed] = self._make_features(name, seed)
        return self._features[name, seed]

    def _make_features(self, name: str, seed: int) -> Path:
        if name == CNNS_ALONE:
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
        agva = ENCODERS[name].get("agva", self.pretraining.encoder.agva)
        own_crop = self.caching.crop_size in (None, self.pretraining.augmentation.crop_size)
        if self.pretraining.freeze_backbone and not agva and own_crop and not path.exists():
            # Read the cached vectors of the frozen CNNs instead of running these again. For new caches only:
            # the other branch updates any cache, whichever branch made it.
            config = CacheConfig(batch_size=self.caching.batch_size, device=self.caching.device)
            cache_features(self.features(CNNS_ALONE, 0), path, config, encoder=encoder)
        else:
            # The CNNs are the encoder's: settings of others would be refused
            unset: dict[str, Any] = {"visual": VisualConfig(), "audio": AudioConfig()}
            config = dataclasses.replace(self.caching, keep_maps=False, keep_cnn=False, **unset)
            cache_features(self.store, path, config, encoder=encoder)
        return path

    def encoder(self, name: str, seed: int) -> Path:
        """Pretrains the encoder of one kind of features with one seed, and returns its run."""
        changes = {**ENCODERS[name], "seed": self.pretraining.seed + seed}
        config = resolve(PretrainConfig, "pretrain", base=self.pretraining, options=changes)
        if config.freeze_backbone:
            vectors = config.frozen.vectors or str(self.out / "frozen-vectors")
            frozen = dataclasses.replace(config.frozen, vectors=vectors)
            config = dataclasses.replace(config, frozen=frozen)
        run = self.out / "encoders" / f"{name}-seed{seed}"
        pretrain(self.store, run, config)
        return run


Repetitions = list[tuple[GroupEvaluation, GroupPredictions]]
"""Results and test predictions of a row's head, one for each seed."""


def _measured(row: PaperRow, repetitions: Repetitions, against: Repetitions) -> Measured:
    figures = [each for each, _ in repetitions]
    own, others = ([item for _, group in each for item in group.items] for each in (repetitions, against))
    usual_inputs = head_class(row_config(row, {})).inputs[0]
    without_maps = usual_inputs == "maps" and figures[0].inputs != "maps"
    return Measured(
        row.name + (WITHOUT_MAPS if without_maps else ""),
        row.paper_percent,
        _over_seeds(each.accuracy_percent for each in figures),
        _over_seeds(each.accuracy_holding_background_percent for each in figures),
        _over_seeds(each.events.f1_percent for each in figures),
        _over_seeds(each.validation_score_percent for each in figures),
        _over_seeds(each.score_at_best_test_epoch_percent for each in figures),
        {} if repetitions is against else differences(own, others, repetitions[0][1].task),
    )


def _over_seeds(repetitions: Iterable[Spread]) -> Spread:
    """Returns mean and std over repetitions of one seed each, without those that have no figure."""
    return Spread.of([one.mean for one in repetitions if one.mean is not None])
