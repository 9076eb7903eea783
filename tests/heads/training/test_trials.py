"""Trials on a stand-in for a GPU: all their tensors lie there, stacked or alone."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from avel.heads.config import HEADS
from avel.heads.training import fit
from avel.heads.training.data import Data, read_data
from avel.heads.training.fit import Training, arithmetic
from avel.heads.training.trials import Stacked
from avel.nn import has_bfloat16_lstm
from avel.stores.features import FeatureCache
from tests.fake_cuda import CUDA, Watch, fake_cuda
from tests.heads.synthetic import train_config, trials_of, write_cache

ARRAYS = ("f_a", "f_v", "cnn_a", "cnn_v", "maps")
ONE_LABEL = [head for head in HEADS if "single_label" in HEADS[head].tasks]
GROUPS = [(head, count) for head in ONE_LABEL for count in (1, 3) if count == 1 or HEADS[head].stackable]
"""Heads, each alone, and stacked where that is possible."""
T, BATCHES = 8, 2
FEW_LAUNCHES, MANY_LAUNCHES = 300, 2500
"""Bounds of a training step; many are of heads that step through time or compare each clip with others."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Features of 24 clips of train, which are two batches, and of 8 of val."""
    path = tmp_path_factory.mktemp("trials") / "c.h5"
    return FeatureCache.open(write_cache(path, samples=40, arrays=ARRAYS, segments=T))


@pytest.fixture
def nothing_remembered() -> Iterator[None]:
    """What is computed once for a device: a fake one's must not meet a true one's."""
    has_bfloat16_lstm.cache_clear()
    yield
    has_bfloat16_lstm.cache_clear()


def on_fake_cuda(data: Data) -> Data:
    """The same data there; the videos of the samples too."""
    assert data.features.tensors is not None
    audio, visual = (values.to(CUDA) for values in data.features.tensors)
    splits = {
        name: dataclasses.replace(
            split,
            videos=split.videos.to(CUDA),
            labels=split.labels.to(CUDA),
            video_labels=split.video_labels.to(CUDA),
        )
        for name, split in data.splits.items()
    }
    features = dataclasses.replace(data.features, device=CUDA, tensors=(audio, visual))
    return dataclasses.replace(data, features=features, splits=splits)


@pytest.mark.usefixtures("nothing_remembered")
@pytest.mark.parametrize(("head", "count"), GROUPS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_trials_train_on_a_gpu(head: str, count: int, dtype: str, cache: FeatureCache) -> None:
    supervision = "weak" if dtype == "bfloat16" and HEADS[head].weak else "full"
    options = {"head": head, "dtype": dtype, "supervision": supervision}
    config = train_config(batch_size=16, standardise=False, **options)  # statistics need values
    data = read_data(cache, config, torch.device("cpu"))
    with fake_cuda():
        there = on_fake_cuda(data)
        training = Training(trials_of(config, count), there, CUDA)
        with Watch() as watch:
            losses = training.train_epoch(1)
        assert not watch.reads
        assert 0 < watch.launches / BATCHES < (FEW_LAUNCHES if HEADS[head].stackable else MANY_LAUNCHES)
        if count > 1:  # a CUDA graph takes neither
            assert sum(watch.sends.values()) == 1, f"the order of an epoch: {watch.sends}"
        training.group.train(False)
        with torch.no_grad(), arithmetic(config, CUDA):
            logits = training.group.logits(*there.features.of(there.splits["val"].videos))
        weights = training.group.parameters()
        assert {value.device for value in (losses, logits, *weights)} == {CUDA}
        assert {weight.grad.device for weight in weights if weight.grad is not None} == {CUDA}
        assert (losses.shape, logits.shape) == ((count,), (count, 8, T, 4))
        assert {value.device for value in training.group.state(count - 1).values()} == {CUDA}


@pytest.mark.usefixtures("nothing_remembered")
@pytest.mark.parametrize("count", [1, 3])
def test_an_epoch_on_a_gpu_scores_a_split_in_one_pass(
    count: int, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "CLIPS_AT_ONCE", 1)  # on a CPU a pass for each clip
    monkeypatch.setattr(FakeTensor, "tolist", lambda values: [0.0] * len(values))  # it has no numbers
    config = train_config(head="tacma", batch_size=16, standardise=False)
    data = read_data(cache, config, torch.device("cpu"))
    with fake_cuda():
        training = Training(trials_of(config, count), on_fake_cuda(data), CUDA)
        passes, score = [], training.group.logits
        monkeypatch.setattr(
            training.group, "logits", lambda *inputs: passes.append(len(inputs[0])) or score(*inputs)
        )
        lines = training.epoch()
        assert {value.device for value in training.outcomes[0].state.values()} == {CUDA}
    assert len(lines) == count
    assert passes == [len(split) for name, split in data.splits.items() if name != "train"]


@pytest.mark.usefixtures("nothing_remembered")
@pytest.mark.parametrize("count", [1, 3])
def test_training_on_a_gpu_takes_products_of_float32_in_tf32(
    count: int, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTensor, "tolist", lambda values: [0.0] * len(values))
    before, inside = torch.get_float32_matmul_precision(), set()
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda *_: inside.add(torch.get_float32_matmul_precision()) or step(*_)
    )
    config = train_config(head="mlp", batch_size=16, epochs=2, standardise=False)
    data = read_data(cache, config, torch.device("cpu"))
    with fake_cuda():
        outcomes = fit.fit(trials_of(config, count), on_fake_cuda(data), CUDA, lambda line: None)
    assert [outcome.epochs for outcome in outcomes] == [2] * count
    assert inside == {"high"}
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.usefixtures("nothing_remembered")
@pytest.mark.parametrize("head", [head for head in HEADS if HEADS[head].stackable])
def test_trials_leave_a_group_on_a_gpu(head: str, cache: FeatureCache) -> None:
    config = train_config(head=head, batch_size=16, standardise=False)
    data = read_data(cache, config, torch.device("cpu"))
    with fake_cuda():
        training = Training(trials_of(config, 3), on_fake_cuda(data), CUDA)
        training.train_epoch(1)
        assert isinstance(training.group, Stacked)
        training.group.keep([0, 2], training.optimizer)
        kept = [*training.group.parameters(), *training.group.buffers.values()]
        assert {value.device for value in kept} == {CUDA}
        assert {len(value) for value in kept} == {2}
