"""Steps as CUDA graphs, captured and replayed by a stand-in for CUDA: the training is the same."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from avel.heads.config import TrainConfig
from avel.heads.training import fit as fitting
from avel.heads.training.data import Data, read_data
from avel.heads.training.fit import TrialOutcome, fit
from avel.heads.training.graphs import EAGER_STEPS, ReplayedStep
from avel.heads.training.trials import Trial
from avel.stores.features import FeatureCache
from tests.fake_cuda import Graph, fake_graphs
from tests.heads.synthetic import train_config, write_cache

CPU = torch.device("cpu")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """The graphs that are captured, without CUDA, in place of CUDA's."""
    made: list[Graph] = []

    class Listed(Graph):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    fake_graphs(monkeypatch)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Listed)
    return made


def trained(config: TrainConfig, data: Data) -> tuple[list[TrialOutcome], list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    trials = [Trial(f"seed={seed}", dataclasses.replace(config, seed=seed)) for seed in range(3)]
    return fit(trials, data, CPU, lines.append), lines


def test_a_step_is_captured_without_being_done_and_replayed_on_new_rows(graphs: list[Graph]) -> None:
    weight, done = torch.ones(3), []

    def step(rows: torch.Tensor) -> None:
        done.append(len(rows))
        weight[:] = weight * 2 + rows

    replayed = ReplayedStep(step, CPU)
    expected = torch.ones(3)
    for turn in range(EAGER_STEPS + 4):
        rows = torch.arange(3.0) + turn
        replayed(rows)
        expected = expected * 2 + rows
        assert torch.equal(weight, expected)
    assert len(done) == EAGER_STEPS + 1
    assert [graph.replays for graph in graphs] == [4]


def test_a_step_that_cannot_be_captured_goes_on_as_it_is(
    graphs: list[Graph], capsys: pytest.CaptureFixture[str]
) -> None:
    weight = torch.ones(3)

    def step(rows: torch.Tensor) -> None:
        weight.add_(rows if float(weight[0]) > 0 else -rows)

    replayed = ReplayedStep(step, CPU)
    for _ in range(EAGER_STEPS + 3):
        replayed(torch.ones(3))
    assert torch.equal(weight, torch.full((3,), 1.0 + EAGER_STEPS + 3))
    assert len(graphs) == 1, "tried once"
    said = "training goes on without CUDA graphs: _local_scalar_dense"
    assert capsys.readouterr().err.count(said) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"head": "tacma", "d_h": 8, "d_e": 8},
        {"head": "tacma", "d_h": 8, "d_e": 8, "supervision": "weak", "clip_norm": 0.1, "dtype": "bfloat16"},
        {"head": "mlp", "lr_decay": 0.5, "lr_decay_every": 2, "weight_decay": 0.01, "standardise": True},
        {"head": "cross_attention", "d_h": 8, "d_e": 8, "patience": 2, "lr": 3e-2},
    ],
    ids=["tacma", "weak, clipped, bfloat16", "schedule", "trials that end"],
)
def test_training_by_graphs_is_the_same(
    settings: dict[str, Any], tmp_path: Path, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = train_config(**{"epochs": 8, "lr": 1e-3, "batch_size": 16} | settings)
    data = read_data(FeatureCache.open(write_cache(tmp_path / "c.h5")), config, CPU)
    plain, plain_lines = trained(config, data)
    assert not graphs
    monkeypatch.setattr(fitting, "can_replay", lambda *_: True)
    replayed, lines = trained(config, data)
    assert sum(graph.replays for graph in graphs) > 2
    for here, there in zip(lines, plain_lines, strict=True):
        assert here.pop("trial") == there.pop("trial")
        assert here == pytest.approx(there, rel=1e-4)
    for one, other in zip(replayed, plain, strict=True):
        assert (one.epochs, one.best_epoch, one.failure) == (other.epochs, other.best_epoch, other.failure)
        for name, value in other.state.items():
            torch.testing.assert_close(one.state[name], value, rtol=1e-4, atol=1e-5)
    if not config.patience:
        assert len(graphs) == 2, "of whole batches, and of the last one"
        assert [outcome.epochs for outcome in replayed] == [8] * 3
