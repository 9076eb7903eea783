"""Makes the feature cache of clips without events that `--negatives` needs, as another cache was made."""

from pathlib import Path

from avel.pipeline.caching.cache import cache_features
from avel.pipeline.caching.request import parse_options
from avel.pipeline.staging.extract import extract
from avel.recipes.predicting.networks import find_encoder, staging_config
from avel.stores.ave_files import BACKGROUND_AUDIO
from avel.stores.exchange import import_background
from avel.stores.features import FeatureCache
from avel.stores.kinds import kind_of, not_a


def background_cache(source: Path | str, cache: Path | str) -> Path:
    """Returns a cache of clips that hold no event, for `train_head(negatives=...)`.

    A cache is returned as it is. A folder of videos is staged, and a clip store encoded, as the clips of
    `cache` were; the published files of AVE's background clips are imported. What is made lies beside
    `cache`, and a second call brings it up to date.

    >>> background_cache("silent_videos/", "ave.h5")  # doctest: +SKIP
    PosixPath('ave-silent_videos.h5')

    Raises:
        MissingPathError: nothing is there.
        StoreError: `source` is no folder, clip store or cache; or `cache` was not made from clips, so that no
            other clips can be encoded like it.
    """
    kind, other = kind_of(source), Path(cache)
    if kind == "cache":
        return Path(source)
    if kind not in ("store", "dataset"):
        raise not_a("folder of videos, clip store or feature cache", source, "clips that hold no event")
    target = other.with_name(f"{other.stem}-{Path(source).resolve().stem}.h5")
    if (Path(source) / BACKGROUND_AUDIO).is_file():
        import_background(source, target)
        return target
    like = FeatureCache.open(other)
    if kind == "dataset":
        store = target.with_suffix(".zarr")
        extract(source, store, staging_config(like.typed_provenance.staging, str(other)))
        source = store
    encoder = find_encoder(like) if like.typed_provenance.run is not None else None
    cache_features(source, target, encoder=encoder, **parse_options(like.typed_provenance.options))
    return target
