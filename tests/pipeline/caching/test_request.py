"""The options of a cache as text, and back."""

import pytest

from avel.config import resolve
from avel.pipeline.caching.request import options_of, parse_options
from avel.pipeline.config import CacheConfig


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
