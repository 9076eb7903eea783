"""`avel leaderboard`: trains all heads with their own defaults on one cache, and compares them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from avel.config import resolve
from avel.errors import ConfigError, TrainingError, UnknownNameError
from avel.heads.config import HEADS, TrainConfig
from avel.heads.train import LoadedCache, train_head
from avel.heads.training.forecast import note_long_training
from avel.heads.training.plan import plan
from avel.heads.training.trials import Trial
from avel.progress import note
from avel.recipes.leaderboard.board import Leaderboard, SkippedHead
from avel.recipes.leaderboard.writing import STEM, BoardWriter
from avel.stores.files import check_own
from avel.stores.runs import RESULTS
from avel.text import plural

OPTION_OF = {"head": "--heads", "seeds": "--seeds", "supervision": "--supervision"}
"""Setting that `leaderboard` decides itself -> the option that it takes instead."""


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

    Each head is a run in a folder of its name below `out`. Table and page are written after every head, and
    the same call resumes an interrupted one. A head that does not fit the cache is left out, with the reason.

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
        TrainingError: no head can be trained on the cache, or the one to compare with cannot; no test sample
            has known events.
        StoreError: `out` holds runs of other settings or of another cache.
    """
    configs = plan_heads(heads, seeds, supervision, settings or {})
    if against is not None and against not in configs:
        raise UnknownNameError("head", against, configs, where="--against")
    folder = Path(out)
    check_own(folder, f"{STEM}.json", (f"{STEM}.{ending}" for ending in ("json", "csv", "html")))
    loaded = LoadedCache.open(cache, next(iter(configs.values())).device)
    samples = loaded.cache.samples
    test = samples.split == "test"
    if not (test & samples.known).any():
        lacks = "no test sample has known events" if test.any() else "there is no test sample"
        raise TrainingError(
            f"{loaded.cache.path}: {lacks}, by which heads are compared",
            hint=f"avel sweep CACHE RUN --set head={','.join(configs)} compares them on validation",
        )
    _note_long(loaded, configs, folder)
    trained = {name for name in configs if (folder / name / RESULTS).is_file()}
    # First the head that all are compared with, then the trained ones, which belong on every board.
    order = sorted(configs, key=lambda name: (name != against, name not in trained))
    writer = BoardWriter(folder, loaded.cache, supervision, against)
    for number, name in enumerate(order, 1):
        note(f"\n== head {number} of {len(configs)}: {name}, {plural(seeds, 'seed')}")
        try:
            train_head(loaded, folder / name, configs[name])
        except (ConfigError, TrainingError) as error:
            if name == against:
                raise TrainingError(f"--against {name}: {error.message}", hint=error.hint) from None
            reason = error.message.removeprefix(f"{loaded.cache.path}: ")
            note(f"{name} is left out: {reason}")
            writer.skipped.append(SkippedHead(name, reason))
        else:
            writer.add(name)
        waiting = order[number:]
        # Written before each head that has to train, so that there is a board if that is interrupted
        if writer.heads and waiting and waiting[0] not in trained:
            note(f"{writer.write(waiting).page}: {writer.heads} of {plural(len(order), 'head')} so far")
    if not writer.heads:
        first = writer.skipped[0]
        raise TrainingError(
            f"no head can be trained here; {first.head}: {first.reason}",
            hint="avel heads says what each head reads, avel inspect CACHE what the cache holds",
        )
    return writer.write()


def _note_long(loaded: LoadedCache, configs: Mapping[str, TrainConfig], folder: Path) -> None:
    """Says how long it takes to train the heads that fit the cache and have no run yet."""
    groups: list[list[Trial]] = []
    for name, config in configs.items():
        with suppress(ConfigError, TrainingError):  # the reason is printed when its turn comes
            if not (folder / name).exists():
                loaded.data_and_model(config)
                groups += [[trial] for trial in plan(config, {}, {})]
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
    for key, option in OPTION_OF.items():
        if key in settings:
            raise ConfigError(
                f"{key}={settings[key]!r} cannot be a setting of all heads", hint=f"give {option}"
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
