"""What a cache is asked for: its key, and its options as text, and back."""

from pathlib import Path

import pytest

from avel.config import resolve
from avel.pipeline.caching.key import recipe
from avel.pipeline.caching.request import options_of, parse_options
from avel.pipeline.config import CacheConfig
from avel.stores.clips import ClipStore


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dtype": "bfloat16", "keep_maps": True, "crop_size": 28},
        {"visual_backbone": "timm", "visual_weights": "a file's name.pt"},
        {"audio_backbone": "cnn14", "audio_window_seconds": 2.5},
    ],
)
def test_the_options_that_a_cache_notes_give_the_config_back(settings: dict[str, object]) -> None:
    config = resolve(CacheConfig, "cache-features", options=settings)
    again = resolve(CacheConfig, "cache-features", options=parse_options(options_of(config)))
    assert again == config


def test_published_weights_and_their_name_are_one_key(store: Path) -> None:
    keys = [
        recipe(ClipStore.open(store), None, resolve(CacheConfig, "cache-features", options=settings))
        for settings in ({}, {"visual_weights": "IMAGENET1K_V1", "audio_weights": "audioset"})
    ]
    assert keys[0] == keys[1]
    assert keys[0]["encoder"]["visual"]["weights"] == "IMAGENET1K_V1"
