"""Features computed on a stand-in for a GPU: everything lies there, and is sent once."""

from pathlib import Path
from typing import Any

import pytest
import torch

from avel.pipeline.caching import encode
from avel.pipeline.caching.encode import Clips, PartEncoder, Work
from avel.pipeline.config import CacheConfig
from avel.pipeline.encoders.build import build_encoder
from avel.stores.feature_parts import Parts
from tests.fake_cuda import CUDA, Watch, fake_cuda
from tests.pipeline.configs import pretrain_config

TINY = {"visual_backbone": "tiny", "audio_backbone": "tiny", "visual_weights": "random"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("agva", [False, True])
def test_features_are_computed_on_the_gpu(dtype: str, agva: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pretrain_config(**TINY, audio_weights="random", agva=agva, crop_size=28)
    encoder = build_encoder(config).eval().requires_grad_(False)
    monkeypatch.setattr(encode, "chosen_encoder", lambda work: encoder)
    monkeypatch.setattr(encode, "cnn_digest", lambda encoder: "")
    recipe: dict[str, Any] = {
        "encoder": {"kind": "run"},
        "arrays": ["f_a", "f_v", "cnn_a", "cnn_v", "maps"],
        "preprocessing": {"frames": [1, 3], "crop_size": 28, "dtype": dtype, "own_lengths": False},
    }
    with fake_cuda():
        part = PartEncoder(Work("", None, CacheConfig(), recipe, Parts(Path())), "cuda:0")
        frames = torch.empty(2, 20, 3, 28, 28, dtype=torch.uint8)
        inputs = {"visual": frames, "audio": torch.empty(2, 10, 96, 64)}
        clips = Clips(0, ("a", "b"), inputs, {})
        part.encode(clips)  # folds the batch norms
        with Watch() as watch:
            found = part.encode(clips)
    assert {name: (values.device, len(values)) for name, values in found.items()} == dict.fromkeys(
        recipe["arrays"], (CUDA, 2)
    )
    assert not watch.reads
    assert sum(watch.sends.values()) == 2, f"frames and patches: {watch.sends}"
    assert 0 < watch.launches < 200
