"""Features of clips that have lengths of their own: nothing after a clip's end is read or has influence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avel.errors import StaleError, StoreError
from avel.pipeline.caching.cache import cache_features
from avel.pipeline.config import AUDIO_BACKBONES
from avel.pipeline.encoders.saved import load_encoder
from avel.stores.clips import ClipStore
from avel.stores.datasets.labels import PADDED
from avel.stores.export import export_features
from avel.stores.feature_adding import add_features
from avel.stores.features import FeatureCache
from avel.stores.inspection import inspect
from avel.stores.named_features import NewFeatures
from avel.stores.tensors import save_tensors
from tests.pipeline.caching.small_stores import NAMES, RANDOM_TINY, write_store

SECONDS = {name: (3.2, 1.6, 0.3)[number % 3] for number, name in enumerate(NAMES)}
LENGTHS = {name: (3, 2, 1)[number % 3] for number, name in enumerate(NAMES)}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_store(tmp_path / "own.zarr", NAMES, seconds=SECONDS)


def test_features_are_those_of_each_clip_by_itself(own: Path, run: Path, tmp_path: Path) -> None:
    assert ClipStore.open(own).lengths == LENGTHS
    padded = write_store(tmp_path / "padded.zarr", NAMES)
    cache_features(padded, tmp_path / "padded.h5", encoder=run, keep_cnn=True)
    cache_features(own, tmp_path / "own.h5", encoder=run, keep_cnn=True, batch_size=4)
    whole, found = (FeatureCache.open(tmp_path / f"{name}.h5") for name in ("padded", "own"))
    assert found.video_ids == NAMES
    assert found.lengths.tolist() == list(LENGTHS.values())
    assert (whole.differing_lengths, found.differing_lengths) == (False, True)
    encoder = load_encoder(run).eval()
    for place, length in enumerate(found.lengths.tolist()):
        vectors = [
            torch.from_numpy(whole.read(name)[place : place + 1, :length]) for name in ("cnn_a", "cnn_v")
        ]
        with torch.inference_mode():
            wanted = encoder.temporal(*vectors)
        for name, values in zip(("cnn_a", "cnn_v", "f_a", "f_v"), (*vectors, *wanted), strict=True):
            np.testing.assert_allclose(found.read(name)[place, :length], values[0], atol=1e-5)
            assert not found.read(name)[place, length:].any()
    assert ((found.labels() == PADDED) == (np.arange(3) >= found.lengths[found.samples.video][:, None])).all()


def test_no_frame_after_the_end_of_a_clip_is_read(
    own: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: dict[str, int] = {}
    frames = ClipStore.frames

    def counted(self: ClipStore, video_id: str, wanted: Any) -> Any:
        read[video_id] = len(wanted)
        return frames(self, video_id, wanted)

    monkeypatch.setattr(ClipStore, "frames", counted)
    cache_features(own, tmp_path / "own.h5", encoder=run, frames_per_segment=2, workers=1)
    assert read == {name: 2 * length for name, length in LENGTHS.items()}


def test_cnn_vectors_of_another_cache_give_the_same(own: Path, run: Path, tmp_path: Path) -> None:
    cache_features(own, tmp_path / "vectors.h5", encoder=run, keep_cnn=True)
    cache_features(tmp_path / "vectors.h5", tmp_path / "quick.h5", encoder=run)
    one, other = (FeatureCache.open(tmp_path / f"{name}.h5") for name in ("vectors", "quick"))
    np.testing.assert_allclose(one.f_a, other.f_a, atol=1e-6)
    np.testing.assert_allclose(one.f_v, other.f_v, atol=1e-6)
    assert one.lengths.tolist() == other.lengths.tolist()


def test_files_of_one_length_are_not_written_from_clips_of_several(
    own: Path, run: Path, tmp_path: Path
) -> None:
    cache_features(own, tmp_path / "c.h5", encoder=run)
    facts = [inspect(path).facts for path in (own, tmp_path / "c.h5")]
    assert (facts[0]["own_lengths"], facts[1]["segments"], facts[1]["fewest_segments"]) == (True, 3, 1)
    with pytest.raises(StoreError, match="its clips have lengths of their own"):
        export_features(tmp_path / "c.h5", tmp_path / "files")
    assert not (tmp_path / "files").exists()


def test_features_that_are_added_leave_the_lengths(own: Path, run: Path, tmp_path: Path) -> None:
    cache_features(own, tmp_path / "c.h5", encoder=run)
    new = NewFeatures("audio", np.ones((len(NAMES), 3, 5), np.float32), {})
    added = add_features(tmp_path / "c.h5", {"ones": new})
    assert added.lengths.tolist() == list(LENGTHS.values())
    assert added.read("ones").shape == (len(NAMES), 3, 5)


def test_named_features_end_with_their_clips(own: Path, store: Path, tmp_path: Path) -> None:
    tiny: dict[str, Any] = {**RANDOM_TINY, "crop_size": 32}
    weights = tmp_path / "tiny.safetensors"
    save_tensors(weights, AUDIO_BACKBONES["tiny"](AUDIO_BACKBONES["tiny"].Config()).state_dict())
    tiny["audio_weights"] = str(weights)
    cache_features(own, tmp_path / "c.h5", **tiny)
    cache_features(own, tmp_path / "c.h5", audio_name="sound", visual_name="look", batch_size=4, **tiny)
    cache = FeatureCache.open(tmp_path / "c.h5")
    np.testing.assert_allclose(cache.read("sound"), cache.f_a, atol=1e-5)
    np.testing.assert_allclose(cache.read("look"), cache.f_v, atol=1e-5)
    assert {each.made["preprocessing"]["own_lengths"] for each in cache.named.values()} == {True}
    cache_features(store, tmp_path / "padded.h5", **tiny)
    write_store(store, [name for name in NAMES if name != "-v4"], seconds=SECONDS)
    with pytest.raises(StaleError, match=r"6 of 10 videos .* fewer segments there; .* '-v1'"):
        cache_features(store, tmp_path / "padded.h5", audio_name="sound", **tiny)


def test_a_cache_of_padded_clips_is_not_taken_for_one_of_their_own_lengths(
    store: Path, run: Path, tmp_path: Path
) -> None:
    cache_features(store, tmp_path / "c.h5", encoder=run)
    write_store(store, NAMES, seconds=SECONDS)
    with pytest.raises(StaleError, match=r"preprocessing\.own_lengths was false, is now true"):
        cache_features(store, tmp_path / "c.h5", encoder=run)
