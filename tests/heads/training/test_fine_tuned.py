"""Heads whose Bi-LSTMs are fine-tuned, from where AV-BT left them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from avel.errors import ConfigError, StoreError, TrainingError
from avel.heads.train import sweep, train_head
from avel.heads.training.data import read_data
from avel.heads.training.fit import make_model
from avel.heads.training.records import load_head, read_trials
from avel.heads.training.trials import Trial
from avel.nn import mask_of
from avel.stores.feature_adding import add_features
from avel.stores.features import FeatureCache
from avel.stores.named_features import NewFeatures
from avel.stores.runs import Run
from avel.temporal import Temporal, TemporalSizes
from tests.heads.synthetic import train_config, write_cache

SIZES = TemporalSizes(audio=10, visual=14, audio_narrow=10, visual_narrow=8, hidden=6)
VIDEOS = 59


def write_encoded(path: Path, *, lengths: np.ndarray | None = None, keeps: bool = True) -> Path:
    """A cache whose f_a and f_v are what Bi-LSTMs, which it keeps, make of its CNN vectors."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        temporal = Temporal(SIZES)
    temporal.audio_standard.set(torch.full((10,), 0.2), torch.full((10,), 2.0))
    write_cache(path, arrays=("f_a", "f_v", "cnn_a", "cnn_v"), lengths=lengths)
    cnn_a, cnn_v = (torch.from_numpy(FeatureCache.open(path).read(name)) for name in ("cnn_a", "cnn_v"))
    mask = None if lengths is None else mask_of(torch.from_numpy(lengths), cnn_a.shape[1])
    with torch.no_grad():
        encoded = [values.numpy() for values in temporal(cnn_a, cnn_v, mask)]
    state = {name: value.numpy() for name, value in temporal.state_dict().items()}
    write_cache(
        path,
        arrays=("f_a", "f_v", "cnn_a", "cnn_v"),
        lengths=lengths,
        f_a=encoded[0],
        f_v=encoded[1],
        temporal=state if keeps else None,
    )
    return path


def scores(cache: Path, **options: Any) -> torch.Tensor:
    """What a model says of all videos before it has learned anything."""
    config = train_config(**options)
    data = read_data(FeatureCache.open(cache), config, torch.device("cpu"))
    model = make_model(Trial("", config), data).eval()
    videos = torch.arange(VIDEOS)
    with torch.no_grad():
        return model(*data.features.of(videos), data.features.lengths_of(videos)).logits


@pytest.mark.parametrize("own_lengths", [False, True])
@pytest.mark.parametrize("head", ["tacma", "mlp"])
def test_at_the_start_it_is_the_head_on_the_encoders_features(
    tmp_path: Path, head: str, own_lengths: bool
) -> None:
    lengths = np.arange(VIDEOS) % 4 + 3 if own_lengths else None
    cache = write_encoded(tmp_path / "c.h5", lengths=lengths)
    options = {"head": head, "standardise": True}
    tuned = scores(cache, inputs="fine_tuned", **options)
    torch.testing.assert_close(tuned, scores(cache, inputs="encoded", **options), atol=1e-5, rtol=1e-4)


def test_bi_lstms_learn_with_the_head_and_are_kept(tmp_path: Path) -> None:
    cache = write_encoded(tmp_path / "c.h5")
    before = FeatureCache.open(cache).read_temporal()
    options: dict[str, Any] = {"inputs": "fine_tuned", "epochs": 3, "lr": 1e-2, "together": "always"}
    sweep(cache, tmp_path / "run", {"theta": [0.0, 1.0]}, head="tacma", **options)
    model = load_head(tmp_path / "run")
    assert model.temporal is not None
    after = model.temporal.state_dict()
    for name, values in before.items():
        moved = not np.allclose(after[name].numpy(), values)
        assert moved != ("_standard." in name), name
    best, other = sorted(read_trials(Run.open(tmp_path / "run")), key=lambda trial: -trial.val_score)
    assert best.inputs == other.inputs == "fine_tuned"
    opened = FeatureCache.open(cache)
    test = opened.samples.take(np.flatnonzero(opened.samples.split == "test"))
    with torch.no_grad():
        logits = model(
            *(torch.from_numpy(opened.read(name, test.video)) for name in ("cnn_a", "cnn_v"))
        ).logits
    assert (logits.argmax(-1).numpy() == opened.labels(test)).mean() == pytest.approx(best.test_score)


def test_a_trial_goes_on_from_another_ones_bi_lstms(tmp_path: Path) -> None:
    cache = write_encoded(tmp_path / "c.h5")
    options: dict[str, Any] = {"head": "mlp", "inputs": "fine_tuned", "epochs": 2}
    train_head(cache, tmp_path / "first", **options)
    (weights,) = (tmp_path / "first" / "trials").glob("*.safetensors")
    started = scores(cache, init=str(weights), **options)
    first = load_head(tmp_path / "first")
    arrays = [torch.from_numpy(FeatureCache.open(cache).read(name)) for name in ("cnn_a", "cnn_v")]
    with torch.no_grad():
        torch.testing.assert_close(started, first(*arrays).logits)


def test_added_features_leave_the_bi_lstms(tmp_path: Path) -> None:
    cache = write_encoded(tmp_path / "c.h5")
    before = FeatureCache.open(cache).read_temporal()
    add_features(cache, {"clap": NewFeatures("audio", np.ones((VIDEOS, 6, 5), np.float32), {})})
    after = FeatureCache.open(cache).read_temporal()
    assert {*after} == {*before} == {*Temporal(SIZES).state_dict()}
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)


def test_damaged_bi_lstms_are_found(tmp_path: Path) -> None:
    cache = write_encoded(tmp_path / "c.h5")
    weights = FeatureCache.open(cache).read_temporal()["audio_lstm.weight_ih_l0"].tobytes()
    content = cache.read_bytes()
    place = content.index(weights)
    cache.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(StoreError, match=r"row 0 of temporal.audio_lstm.weight_ih_l0 is damaged"):
        FeatureCache.open(cache).read_temporal()
    (fault,) = FeatureCache.open(cache).faults()
    assert "row 0 of temporal.audio_lstm.weight_ih_l0" in fault


def test_a_cache_without_one_of_its_weights_is_refused(tmp_path: Path) -> None:
    cache = write_encoded(tmp_path / "c.h5")
    with h5py.File(cache, "r+") as file:
        del file["temporal.visual_linear.weight"]
    with pytest.raises(StoreError, match="its content does not match its digest"):
        FeatureCache.open(cache)


def test_what_cannot_be_fine_tuned_is_refused(tmp_path: Path) -> None:
    kept, bare = write_encoded(tmp_path / "kept.h5"), write_encoded(tmp_path / "bare.h5", keeps=False)
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"bare.h5: keeps no Bi-LSTMs to fine-tune"):
        train_head(bare, run, head="mlp", inputs="fine_tuned")
    with pytest.raises(TrainingError, match="head 'bilstm' reads no f_a and f_v"):
        train_head(kept, run, head="bilstm", inputs="fine_tuned")
    with pytest.raises(ConfigError, match="inputs='fine_tuned' and features 'cnn_a' together"):
        train_head(kept, run, head="mlp", inputs="fine_tuned", audio="cnn_a")
    with pytest.raises(ConfigError, match="inputs='cnn' and features 'f_a' and 'f_v' together"):
        train_head(kept, run, head="mlp", inputs="cnn", audio="f_a", visual="f_v")
    assert not run.exists()
