"""benchmarks/heads_baselines.py: what TACMA is timed against computes what TACMA computes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from avel.heads.models.head import Widths, build_model
from tests.heads.synthetic import train_config

NAMES = {
    **{f"query_{m}": f"W_{m}1" for m in "av"},
    **{f"value_{m}": f"W_{m}2" for m in "av"},
    **{f"out_{m}": f"W_{m}3" for m in "av"},
}
"""The plain loop's names for the paper's."""


@pytest.fixture(scope="module")
def baselines() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "heads_baselines.py"
    spec = importlib.util.spec_from_file_location("heads_baselines", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("theta", [0.0, 0.03, 0.3])
def test_the_plain_tacma_is_tacma(baselines: ModuleType, theta: float) -> None:
    width, classes = 12, 5
    config = train_config(theta=theta, d_h=width, d_e=width)
    head = build_model(config, Widths(width, width, classes), seed=2).double().head
    head.theta = torch.tensor(theta, dtype=torch.float64)
    plain = baselines.PlainTACMA(width, classes, theta).double()
    weights = head.state_dict()
    plain.load_state_dict(
        {
            name: weights[f"{NAMES[part]}.weight" if (part := name.split(".")[0]) in NAMES else name]
            for name in plain.state_dict()
        }
    )
    random = torch.Generator().manual_seed(3)
    audio, visual = 2 * torch.randn(2, 4, 6, width, generator=random, dtype=torch.float64)
    # the plain one takes theta |i - j| in float32
    torch.testing.assert_close(plain(audio, visual), head(audio, visual).logits, rtol=1e-5, atol=1e-6)
