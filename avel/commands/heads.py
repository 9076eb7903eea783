"""Commands that train heads: one, many settings, many heads, a table of the paper."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click

import avel
from avel.commands.group import CACHE, NEW_RUN, PATH, STORE, after_training, command
from avel.config import settings_of
from avel.console import DONE, PathTo, path_of, show
from avel.errors import ConfigError
from avel.heads.config import TrainConfig
from avel.heads.presets import PRESETS as HEAD_PRESETS
from avel.options import json_option, loose_settings, settings, stage_settings
from avel.pipeline.config import CacheConfig, PretrainConfig
from avel.pipeline.pretraining.presets import PRESETS
from avel.recipes.reproducing.tables import TABLES
from avel.text import plural
from avel.values import Range

HELP = {setting.name: setting.help for setting in settings_of(TrainConfig)}
"""Name of a setting of `train-head` -> its help."""


@command("avel train-head ave.h5 runs/tacma --head tacma --seeds 5", name="train-head")
@click.argument("cache", type=CACHE)
@click.argument("run", type=NEW_RUN)
@click.option("--overwrite", is_flag=True, help="Train again, in the place of the run that is there.")
@settings(TrainConfig, "train-head", HEAD_PRESETS)
@json_option
def train_head(cache: Path, run: Path, as_json: bool, **options: Any) -> int:
    """Train a fusion head, once for each seed.

    Learns from the features in CACHE; RUN holds each trial at its best validation epoch.
    """
    config: TrainConfig = options.pop("config")
    config = replace(config, negatives=_negatives(config.negatives, cache))
    show(avel.train_head(cache, run, config, **options), as_json, next=after_training(run))
    return DONE


def _negatives(source: str, cache: Path) -> str:
    """Returns the cache of clips without events; makes it first if `source` is a folder or a store."""
    return str(avel.background_cache(source, cache)) if source else ""


@command("avel heads", "avel heads psp")
@click.argument("name", required=False)
@json_option
def heads(name: str | None, as_json: bool) -> int:
    """List the fusion heads, or the settings of one.

    With NAME it prints that head's settings with their types and defaults.
    """
    from avel.heads.catalog import describe_head, head_lines, list_heads, setting_lines

    if name is None:
        found = list_heads()
        show(found, as_json, head_lines, headline=plural(len(found), "head"), next="avel heads NAME")
    else:
        described = describe_head(name)
        last = f"{described.head.name}: {plural(len(described.settings), 'setting')}"
        then = f"avel train-head CACHE runs/{described.head.name} --head {path_of(name)} --set KEY=VALUE"
        show(described, as_json, setting_lines, headline=last, next=then)
    return DONE


@command(
    "avel sweep ave.h5 runs/theta --set theta=0,0.01,0.03,0.06 --seeds 5",
    "avel sweep ave.h5 runs/search --set lr=log:1e-4..1e-2 --set d_e=128,256 --trials 40 --seeds 5",
    "avel sweep ave.h5 runs/folds --set weight_decay=0,1e-4,1e-3 --folds 5 --seeds 3",
)
@click.argument("cache", type=CACHE)
@click.argument("run", type=PathTo("run", "runs", made=True))
@click.option("--overwrite", is_flag=True, help="Train again, in the place of the run that is there.")
@click.option(
    "--trials",
    type=click.IntRange(1),
    help="Search with this number of trials; the best on validation is trained with all seeds. Needs optuna."
    "  [default: no search]",
)
@click.option(
    "--folds",
    type=click.IntRange(3),
    help="Cross-validate over train and val with this number of folds; the best is trained with all seeds."
    "  [default: no cross-validation]",
)
@click.option(
    "--groups",
    type=PATH,
    help="With --folds: CSV of video_id,group; a group stays in one fold.  [default: each video by itself]",
)
@settings(TrainConfig, "train-head", HEAD_PRESETS, vary=True)
@json_option
def sweep(
    cache: Path,
    run: Path,
    trials: int | None,
    folds: int | None,
    groups: Path | None,
    several: dict[str, list[str] | Range],
    single: dict[str, Any],
    check: Callable[..., Any],
    as_json: bool,
    **options: Any,
) -> int:
    """Train a head with many settings, or search them.

    Trains every combination: --set takes several values of a setting, separated by commas. With --trials it
    also takes ranges: LOW..HIGH, or log:LOW..HIGH on a logarithmic scale.
    """
    from avel.heads.training.plan import find_settings, first_values

    find_settings(None, single, several)  # refuses what cannot be varied
    heads = [{"head": head} for head in cast("list[str]", several.get("head", []))]
    check(*(first_values(several) | head for head in heads or [{}]))
    if trials is not None and folds is not None:
        raise ConfigError("cannot take --trials and --folds together", hint="give one of them")
    if groups is not None and folds is None:
        raise ConfigError("--groups needs --folds", hint="--folds 5")
    # Removes `overwrite`, an option that `search` and `cross_validate` lack
    if (trials is not None or folds is not None) and options.pop("overwrite"):
        raise ConfigError("--overwrite does not work with --trials or --folds", hint="name another folder")
    if "negatives" in single:
        single["negatives"] = _negatives(single["negatives"], cache)
    options |= single
    if trials is not None:
        searched = avel.search(cache, run, settings=several, trials=trials, **options)
        show(searched, as_json, next=after_training(searched.run))
        return DONE
    for name, values in several.items():
        if isinstance(values, Range):
            raise ConfigError(f"--set {name}={values} is a range", hint="--trials N searches it")
    if folds is not None:
        validated = avel.cross_validate(cache, run, settings=several, folds=folds, groups=groups, **options)
        show(validated, as_json, next=after_training(validated.run))
        return DONE
    then = after_training(run)
    if swept := next(iter(several), "").rpartition(".")[2]:
        then = f"avel plot {path_of(run)} sweep --setting {swept} --out sweep.pdf"
    show(avel.sweep(cache, run, settings=several, **options), as_json, next=then)
    return DONE


@command(
    "avel leaderboard ave.h5 board/ --heads all --seeds 5",
    "avel leaderboard ave.h5 weak/ --heads psp,cmbs --supervision weak --against psp",
)
@click.argument("cache", type=CACHE)
@click.argument("out", type=PathTo("runs", made=True))
@click.option("--heads", default="all", help="all, or names separated by commas.")
@click.option("--seeds", type=click.IntRange(1), default=5, help="Trials of each head.")
@click.option("--supervision", type=click.Choice(["full", "weak"]), default="full", help=HELP["supervision"])
@click.option("--against", help="Head to compare all with.  [default: the best on validation]")
@click.option("--negatives", default="", show_default=False, help=f"{HELP['negatives']}  [default: none]")
@loose_settings("train-head", HEAD_PRESETS)
@json_option
def leaderboard(
    cache: Path,
    out: Path,
    heads: str,
    negatives: str,
    as_json: bool,
    settings: dict[str, Any],
    **options: Any,
) -> int:
    """Train many heads on one cache and compare them.

    Each head is trained with its own defaults. Prints a table; table and page are written to OUT after every
    head. --set gives a setting to all heads, --set NAME.KEY=VALUE to one. Heads that CACHE does not fit are
    left out, with the reason. The same command resumes an interrupted one.
    """
    names = heads if heads == "all" else [name.strip() for name in heads.split(",") if name.strip()]
    if negatives:
        settings = settings | {"negatives": _negatives(negatives, cache)}
    found = avel.leaderboard(cache, out, heads=names, settings=settings, **options)
    show(found, as_json, next=f"open {path_of(found.page)} in a browser")
    return DONE


@command(
    "avel reproduce table2 ave.zarr reproduced/ --seeds 3",
    "avel reproduce table4 small.zarr reproduced/ --preset small --set train-head.lr=1e-3",
)
@click.argument("table", type=click.Choice(list(TABLES)))
@click.argument("store", type=STORE)
@click.argument("out", type=PathTo("runs", made=True))
@click.option(
    "--seeds", type=click.IntRange(1), default=3, help="Repetitions of everything, encoders included."
)
@stage_settings(
    {
        "pretraining": ("pretrain", PretrainConfig),
        "caching": ("cache-features", CacheConfig),
        "heads": ("train-head", None),
    },
    {"pretrain": PRESETS, "train-head": HEAD_PRESETS},
)
@json_option
def reproduce(table: str, store: str, out: Path, as_json: bool, **options: Any) -> int:
    """Measure a table of the paper on your clips.

    The paper is Ran et al. 2022. Trains all that TABLE compares on the clips of STORE, and prints its figures
    beside the paper's. All files go to OUT; encoders and features there serve every table. The same command
    resumes an interrupted one.
    """
    found = avel.reproduce(table, store, out, **options)
    rest = " ".join(name for name in TABLES if name != table)
    show(found, as_json, next=f"avel reproduce TABLE {path_of(store)} {path_of(out)}, with one of {rest}")
    return DONE
