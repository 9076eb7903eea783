"""Folders with models of other libraries, moved after features were made by them: named again, checked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avel.cli import cli
from avel.console import DONE, run
from avel.errors import AvelError, ConfigError, MissingPathError, StaleError
from avel.heads.train import train_head
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.encoders.saved import load_encoder
from avel.pipeline.pretraining.pretrain import pretrain
from avel.pipeline.staging.extract import extract
from avel.recipes.predicting.predict import predict
from avel.stores.features import FeatureCache
from tests.recipes.predicting.hued_clips import write_clips

T = 3
HEAD: dict[str, Any] = {"head": "mlp", "merge": "concatenate", "epochs": 1, "device": "cpu"}
SOUND: dict[str, Any] = {"audio_backbone": "tiny", "audio_weights": "random", "device": "cpu"}


def write_model(folder: Path, seed: int = 0) -> Path:
    """A folder with a tiny vision tower of CLIP, random by `seed`."""
    hf = pytest.importorskip("transformers", reason="pip install 'avel[hf]'")
    torch.manual_seed(seed)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    hf.CLIPVisionModel(hf.CLIPVisionConfig(**size, image_size=32, patch_size=8)).save_pretrained(folder)
    pixels = {"height": 32, "width": 32}
    hf.CLIPImageProcessor(crop_size=pixels, size={"shortest_edge": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips, staged."""
    folder = tmp_path_factory.mktemp("moved")
    annotations = write_clips(folder, 6, T)
    extract(folder / "clips", folder / "s.zarr", annotations=annotations, segments=T, size=48, workers=1)
    return folder / "s.zarr"


def with_other_pixels(folder: Path) -> Path:
    """Changes the preprocessing of a model, not its weights."""
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}))
    return folder


def found(path: Path, video: Path, **options: Any) -> tuple[tuple[str, float], ...]:
    return predict(path, [video], device="cpu", **options).found[0].segments


def test_a_moved_model_is_named_to_predict(store: Path, tmp_path: Path) -> None:
    model, cache, head = write_model(tmp_path / "clip"), tmp_path / "c.h5", tmp_path / "head"
    video = store.parent / "clips" / "4.mp4"
    cache_features(store, cache, visual_backbone=f"hf:{model}", **SOUND)
    train_head(cache, head, **HEAD)
    before = found(head, video)
    assert before == found(head, video, visual_weights=model), "may be named where nothing was moved"
    moved = model.rename(tmp_path / "moved")
    with pytest.raises(MissingPathError, match=f"weights of hash folder-.* that were in {model}") as caught:
        found(head, video)
    assert caught.value.hint == "--visual-weights FOLDER"
    with pytest.raises(MissingPathError, match=f"that were in {model}"):
        found(head, video, visual_weights=moved / "model.safetensors")
    for other in (
        write_model(tmp_path / "other", seed=1),
        with_other_pixels(write_model(tmp_path / "pixels")),
    ):
        with pytest.raises(StaleError, match=f"{other.name}: has hash folder-"):
            found(head, video, visual_weights=other)
    assert found(head, video, visual_weights=[tmp_path / "other", moved]) == before
    words = ["--quiet", "predict", str(head), str(video), "--visual-weights", str(moved), "--device", "cpu"]
    assert run(cli, words) == DONE
    write_model(model, seed=1)  # another model where the first one was
    assert found(head, video, visual_weights=moved) == before
    with pytest.raises(MissingPathError, match="weights of hash folder-"):
        found(head, video)


def test_a_cache_of_a_moved_model_stays_what_it_is(store: Path, tmp_path: Path) -> None:
    model, cache = write_model(tmp_path / "clip"), tmp_path / "c.h5"
    cache_features(store, cache, visual_backbone=f"hf:{model}", **SOUND)
    moved = model.rename(tmp_path / "moved")
    assert cache_features(store, cache, visual_backbone=f"hf:{moved}", **SOUND).encoded == 0
    with pytest.raises(StaleError, match=r'encoder\.visual\.weights was "folder-'):
        cache_features(store, cache, visual_backbone=f"hf:{with_other_pixels(moved)}", **SOUND)


def test_a_folder_whose_weights_are_not_read_may_move_too(store: Path, tmp_path: Path) -> None:
    model, cache, head = write_model(tmp_path / "clip"), tmp_path / "c.h5", tmp_path / "head"
    video = store.parent / "clips" / "4.mp4"
    options = SOUND | {"visual_weights": "random"}
    cache_features(store, cache, visual_backbone=f"hf:{model}", **options)
    train_head(cache, head, **HEAD)
    before = found(head, video)
    moved = model.rename(tmp_path / "moved")
    assert cache_features(store, cache, visual_backbone=f"hf:{moved}", **options).encoded == 0
    assert found(head, video, visual_weights=moved) == before
    with pytest.raises(StaleError, match=r'encoder\.visual\.hf\.revision was "folder-'):
        cache_features(store, cache, visual_backbone=f"hf:{with_other_pixels(moved)}", **options)


def test_an_encoder_on_a_moved_model_is_told_where_it_is(store: Path, tmp_path: Path) -> None:
    model, video = write_model(tmp_path / "clip"), store.parent / "clips" / "4.mp4"
    avbt, cache, head = tmp_path / "avbt", tmp_path / "c.h5", tmp_path / "head"
    small = {"projector": "8-8", "hidden": 4, "crop_size": 32, "epochs": 1}
    pretrain(store, avbt, visual_backbone=f"hf:{model}", **SOUND, **small)
    cache_features(store, cache, encoder=avbt, device="cpu")
    train_head(cache, head, **HEAD)
    before, features = found(head, video), FeatureCache.open(cache).f_v
    moved = model.rename(tmp_path / "moved")
    for call in (
        lambda: cache_features(store, tmp_path / "new.h5", encoder=avbt, device="cpu"),
        lambda: load_encoder(avbt),
        lambda: found(head, video),
    ):
        with pytest.raises(MissingPathError, match=str(model)) as caught:
            call()
        assert caught.value.hint.startswith("--visual-weights FOLDER")
    words = ["--quiet", "cache-features", str(store), str(tmp_path / "new.h5"), "--encoder", str(avbt)]
    assert run(cli, [*words, "--visual-weights", str(moved), "--device", "cpu"]) == DONE
    np.testing.assert_array_equal(FeatureCache.open(tmp_path / "new.h5").f_v, features)
    assert cache_features(store, cache, encoder=avbt, visual_weights=str(moved), device="cpu").encoded == 0
    assert found(head, video, visual_weights=moved) == before
    other = with_other_pixels(write_model(tmp_path / "pixels"))
    with pytest.raises(StaleError, match=r"preprocessor_config.json have digest folder-\w+, not folder-"):
        cache_features(store, cache, encoder=avbt, visual_weights=str(other), overwrite=True, device="cpu")
    with pytest.raises(StaleError, match="pixels: has hash folder-"):
        found(head, video, visual_weights=other)


def test_training_goes_on_from_an_encoder_on_a_moved_model(store: Path, tmp_path: Path) -> None:
    model, avbt = write_model(tmp_path / "clip"), tmp_path / "avbt"
    options = SOUND | {"projector": "8-8", "hidden": 4, "crop_size": 32, "epochs": 1}
    pretrain(store, avbt, visual_backbone=f"hf:{model}", **options)
    tuned = options | {"start_from": str(avbt), "seed": 1}
    pretrain(store, tmp_path / "before", visual_backbone=f"hf:{model}", **tuned)
    before = load_encoder(tmp_path / "before").state_dict()
    moved = model.rename(tmp_path / "moved")
    pretrain(store, tmp_path / "after", visual_backbone=f"hf:{moved}", **tuned)
    after = load_encoder(tmp_path / "after")
    for name, value in after.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert getattr(after.spec.visual.backbone, "model", "") == str(moved)
    other = with_other_pixels(write_model(tmp_path / "pixels"))
    with pytest.raises(StaleError, match="pixels"):
        pretrain(store, tmp_path / "other", visual_backbone=f"hf:{other}", **tuned)


@pytest.mark.parametrize(
    ("options", "error"), [({"audio_weights": "."}, ConfigError), ({"visual_weights": "."}, ConfigError)]
)
def test_an_encoder_without_such_a_model_takes_no_folder(
    store: Path, tmp_path: Path, options: dict[str, Any], error: type[AvelError]
) -> None:
    small = {"projector": "8-8", "hidden": 4, "crop_size": 32, "epochs": 1}
    pretrain(store, tmp_path / "avbt", visual_backbone="tiny", visual_weights="random", **SOUND, **small)
    with pytest.raises(error, match="beside an encoder"):
        cache_features(store, tmp_path / "c.h5", encoder=tmp_path / "avbt", **options)


def test_weights_that_are_not_there_are_named(store: Path, tmp_path: Path) -> None:
    random = {"visual_backbone": "tiny", "visual_weights": "random"}
    cache_features(store, tmp_path / "c.h5", **random, **SOUND)
    train_head(tmp_path / "c.h5", tmp_path / "head", **HEAD)
    with pytest.raises(MissingPathError, match="gone: no such file or folder"):
        found(tmp_path / "head", store.parent / "clips" / "4.mp4", visual_weights=tmp_path / "gone")
