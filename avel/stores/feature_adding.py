"""Adds features to an existing cache, under the name of their encoder, beside those that it holds."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from avel.errors import AvelError, ConfigError, MissingPathError, StoreError
from avel.progress import note
from avel.stores.feature_parts import Gathered, Row
from avel.stores.features import FeatureCache, write_features
from avel.stores.named_features import (
    GROUP,
    OWN_ARRAYS,
    NewFeatures,
    check_name,
    place_in_file,
    which_drops,
)


def add_features(path: Path, new: Mapping[str, NewFeatures], *, overwrite: bool = False) -> FeatureCache:
    """Adds features to a cache, and returns it; the file is written again, whole or not at all.

    Its own features and its digest stay, so that heads which were trained on these stay valid.

    Args:
        overwrite: replace features of the same name.

    Raises:
        ConfigError: a name that features cannot have.
        StoreError: features of that name are there, or the new ones do not fit the cache's videos and grid.
    """
    cache = open_target(path, new, overwrite)
    rows = [Row(path, place) for place in range(len(cache))]
    hint = cache.how_to_remake()
    return write_features(
        path,
        video_ids=cache.video_ids,
        categories=cache.categories,
        samples=cache.samples,
        arrays={name: Gathered(name, rows, hint) for name in cache.shapes if name in OWN_ARRAYS},
        segment_seconds=cache.segment_seconds,
        missing=cache.missing,
        provenance={key: value for key, value in cache.provenance.items() if key != GROUP},
        named=stored_features(cache, rows) | dict(new),
        lengths=cache.lengths,
        sources=cache.sources,
        temporal=cache.read_temporal(),
    )


def open_target(path: Path, names: Collection[str], overwrite: bool) -> FeatureCache:
    """Opens a cache, and checks that features can be added to it under these names.

    Raises:
        ConfigError: a name that features cannot have, or one for both modalities.
        MissingPathError: there is no cache.
        StoreError: features of that name are there, and `overwrite` is not given.
    """
    first = next(iter(names))
    if len(set(names)) < len(names):
        raise ConfigError(
            f"audio and visual features both named {first!r}",
            hint="give --audio-name and --visual-name different names",
        )
    if not path.exists():
        raise MissingPathError(
            f"{path}: no feature cache to which {first!r} could be added",
            hint="leave out --audio-name and --visual-name to make one",
        )
    cache = FeatureCache.open(path)
    for name in names:
        check_name(name)
        if name in cache.named and not overwrite:
            raise StoreError(
                f"{cache.path}: holds features named {name!r}", hint="choose another name, or add --overwrite"
            )
    return cache


def note_dropped(cache: Path) -> None:
    """Says which named features a cache loses when it is made again; called before that begins."""
    if not cache.exists():
        return
    with suppress(AvelError):  # a cache that cannot be read is made again, too
        if names := FeatureCache.open(cache).named:
            note(f"{cache} is made again{which_drops(names)}")


def stored_features(cache: FeatureCache, rows: Sequence[Row]) -> dict[str, NewFeatures]:
    """Returns some rows of a cache's named features, to be written again."""
    hint = cache.how_to_remake()
    return {
        name: NewFeatures(about.modality, Gathered(place_in_file(name), rows, hint), about.made)
        for name, about in cache.named.items()
    }
