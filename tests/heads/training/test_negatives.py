"""Clips without any event, added to those that a head learns from; and what weak supervision is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avel.errors import ConfigError, StoreError, TrainingError
from avel.heads.config import TrainConfig
from avel.heads.models.tacma import TACMA
from avel.heads.train import LoadedCache, sweep, train_head
from avel.heads.training.data import Data
from avel.heads.training.fit import can_replay, make_model
from avel.heads.training.records import HeadInputs, load_head
from avel.heads.training.trials import Stacked, Trial
from avel.stores.exchange import import_features
from avel.stores.feature_align import GivenFeatures
from avel.stores.features import FeatureCache
from avel.stores.runs import Run
from tests.heads.synthetic import NEGATIVES, train_config, write_cache
from tests.heads.synthetic import write_negatives as negatives
from tests.samples import cached_samples

T, EVENTS = 6, 3
QUICK: dict[str, Any] = {"epochs": 2, "device": "cpu", "head": "mlp"}


def data_of(cache: Path, config: TrainConfig) -> Data:
    loaded = LoadedCache.open(cache, "cpu")
    loaded.check([config])
    return loaded.data(config)


@pytest.mark.parametrize("memory_gb", [None, 0])
def test_train_holds_them_as_background_after_its_own(tmp_path: Path, memory_gb: float | None) -> None:
    cache, more = write_cache(tmp_path / "c.h5"), negatives(tmp_path / "n.h5")
    config = train_config(
        head="mlp", supervision="weak", negatives=str(more), device="cpu", memory_gb=memory_gb
    )
    data = data_of(cache, config)
    train, targets = data.training(config)
    own, none_ = 36, torch.full((NEGATIVES,), EVENTS)
    assert len(train) == own + NEGATIVES
    assert targets[own:].tolist() == none_.tolist()
    assert (train.labels[own:] == EVENTS).all()
    assert train.video_id[own:].tolist() == [f"negative{number}" for number in range(NEGATIVES)]
    mixed = torch.tensor([[0, own + 1], [own + 3, 5]])
    audio, visual = data.features.of(train.videos[mixed])
    f_a = FeatureCache.open(cache).f_a
    assert audio[0, 0].numpy() == pytest.approx(f_a[0])
    assert audio[1, 1].numpy() == pytest.approx(f_a[5])
    assert ((audio[0, 1] == 101) & (visual[1, 0] == 103)).all()
    assert len(data.splits["val"]) == 12


def test_the_run_records_them_and_a_change_of_them_is_refused(tmp_path: Path) -> None:
    cache, more = write_cache(tmp_path / "c.h5"), negatives(tmp_path / "n.h5")
    options = QUICK | {"supervision": "weak", "negatives": str(more)}
    train_head(cache, tmp_path / "run", **options)
    inputs = Run.open(tmp_path / "run").read_inputs(HeadInputs)
    assert inputs.negatives == {str(more): FeatureCache.open(more).digest}
    negatives(more, prefix="other")
    with pytest.raises(Exception, match="negatives"):
        train_head(cache, tmp_path / "run", **options)


def test_a_change_of_their_named_features_is_refused_where_a_head_reads_them(tmp_path: Path) -> None:
    cache, more = write_cache(tmp_path / "c.h5"), negatives(tmp_path / "n.h5")

    def add(path: Path, value: float, **options: Any) -> None:
        folder = tmp_path / f"{path.stem}{value}"
        folder.mkdir()
        for video_id in FeatureCache.open(path).video_ids:
            np.save(folder / f"{video_id}.npy", np.full((T, 5), value, np.float32))
        import_features(None, path, audio=GivenFeatures(folder, "clap"), **options)

    add(cache, 1.0)
    add(more, 2.0)
    train_head(cache, tmp_path / "run", negatives=str(more), audio="clap", **QUICK)
    add(more, 3.0, overwrite=True)
    with pytest.raises(StoreError, match="negatives"):
        train_head(cache, tmp_path / "run", negatives=str(more), audio="clap", **QUICK)


def test_steps_that_read_them_are_no_cuda_graphs(tmp_path: Path) -> None:
    """Which clips of a batch they are is read on the host, and a graph cannot do that."""
    cache, more = write_cache(tmp_path / "c.h5"), negatives(tmp_path / "n.h5")
    for given, replays in (("", True), (str(more), False)):
        config = train_config(head="mlp", negatives=given, device="cpu")
        data = data_of(cache, config)
        group = Stacked([make_model(Trial("", config), data)], torch.device("cpu"))
        assert can_replay(group, data.features, torch.device("cuda")) is replays


def test_they_change_what_is_learned(tmp_path: Path) -> None:
    """Without them nothing of a weak run is background; with them segments that look like them are."""
    cache = write_cache(tmp_path / "c.h5")
    numbers = np.random.default_rng(1).normal(size=(NEGATIVES, T, 12))
    more = negatives(tmp_path / "n.h5", arrays={"f_a": numbers - 5, "f_v": numbers - 5})
    found = {}
    for name in ("", str(more)):
        train_head(cache, tmp_path / f"run{bool(name)}", supervision="weak", negatives=name, lr=1e-2,
                   epochs=20, head="mlp", device="cpu")  # fmt: skip
        model = load_head(tmp_path / f"run{bool(name)}")
        rows = torch.from_numpy(numbers - 5).float()
        found[name] = float((model(rows, rows).logits.argmax(-1) == EVENTS).float().mean())
    assert found[""] == 0
    assert found[str(more)] > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prefix": "-video"}, "video '-video0' is in .*c.h5 too"),
        (
            {"categories": ("bark",), "samples": cached_samples(np.zeros((1, T), int), 1)},
            "video 'negative0' holds events",
        ),
        ({"arrays": {"f_v": np.zeros((NEGATIVES, T, 5))}}, r"f_v is \(V, 6, 5\), .* has \(V, 6, 12\)"),
        ({"segment_seconds": 2.0}, "segments of 2 s, .* of 1 s"),
        (
            {"provenance": {"encoder": {"kind": "run", "digest": "ab"}}},
            "made by encoder run ab, .* by unknown",
        ),
    ],
    ids=["shared", "events", "widths", "seconds", "encoder"],
)
def test_clips_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    cache = write_cache(tmp_path / "c.h5")
    with pytest.raises(TrainingError, match=message):
        train_head(cache, tmp_path / "run", negatives=str(negatives(tmp_path / "n.h5", **changes)), **QUICK)
    assert not (tmp_path / "run").exists()


def test_several_labels_a_segment_take_them_too(tmp_path: Path) -> None:
    cache, more = write_cache(tmp_path / "c.h5"), negatives(tmp_path / "n.h5")
    config = train_config(
        head="mlp", task="multi_label", supervision="weak", negatives=str(more), device="cpu"
    )
    train, targets = data_of(cache, config).training(config)
    assert not targets[36:].any()
    assert targets.shape == (36 + NEGATIVES, EVENTS)
    assert not train.labels[36:].any()


def test_fractions_count_the_segments_of_each_class(tmp_path: Path) -> None:
    label = np.full((60, T), EVENTS)
    label[::2, :4], label[1::2, 2:] = 1, 2
    config = train_config(head="mlp", supervision="weak", weak_labels="fractions", device="cpu")
    _, targets = data_of(write_cache(tmp_path / "c.h5", label=label), config).training(config)
    torch.testing.assert_close(targets[:2], torch.tensor([[0, 4 / 6, 0, 2 / 6], [0, 0, 4 / 6, 2 / 6]]))


def test_each_head_learns_from_what_its_published_code_does(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "c.h5")
    loaded = LoadedCache.open(cache, "cpu")
    for head, shape in (
        ("mlp", (36,)),
        ("avel", (36,)),
        ("cmran", (36,)),
        ("psp", (36, 4)),
        ("lesp", (36, 4)),
    ):
        config = train_config(head=head, supervision="weak", device="cpu")
        assert loaded.data(config).training(config)[1].shape == shape
    config = train_config(head="psp", supervision="weak", weak_labels="event", device="cpu")
    assert loaded.data(config).training(config)[1].shape == (36,)


@pytest.mark.parametrize("options", [{"head": "cmran"}, {"head": "mlp", "task": "multi_label"}])
def test_fractions_are_refused_where_nothing_reads_them(tmp_path: Path, options: dict[str, str]) -> None:
    cache = write_cache(tmp_path / "c.h5")
    with pytest.raises(ConfigError, match=r"cannot learn task .*_label from --weak-labels fractions"):
        train_head(
            cache, tmp_path / "run", supervision="weak", weak_labels="fractions", device="cpu", **options
        )


def test_their_lengths_are_checked_for_every_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = write_cache(tmp_path / "c.h5")
    more = negatives(tmp_path / "n.h5", lengths=np.array([3, 4, 5, 6, 6, 6, 6]))
    monkeypatch.setattr(TACMA, "takes_differing_lengths", False)
    with pytest.raises(ConfigError, match="head 'tacma' takes clips of one length"):
        sweep(cache, tmp_path / "run", {"head": ["mlp", "tacma"]}, negatives=str(more), epochs=1)
