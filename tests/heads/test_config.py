"""Settings of heads: each head's own, the same after a round trip, refused where they cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest

from avel.config import resolve, to_toml
from avel.errors import ConfigError
from avel.heads.config import HEADS, TrainConfig
from avel.heads.models.mlp import MLP
from avel.heads.models.tacma import TACMA
from tests.heads.synthetic import train_config


@pytest.mark.parametrize("name", list(HEADS))
def test_a_config_survives_its_toml(name: str, tmp_path: Path) -> None:
    config = train_config(head=name, seeds=3, lr=0.5)
    (tmp_path / "config.toml").write_text(to_toml(config, "train-head"))
    assert resolve(TrainConfig, "train-head", file=tmp_path / "config.toml") == config


def test_a_file_may_hold_settings_of_several_heads(tmp_path: Path) -> None:
    file = tmp_path / "heads.toml"
    file.write_text("[train-head]\nseeds = 2\n[train-head.tacma]\ntheta = 0.5\n[train-head.mlp]\nlr = 0.25\n")
    assert resolve(TrainConfig, "train-head", file=file) == TrainConfig(TACMA.Config(theta=0.5), seeds=2)
    mlp = resolve(TrainConfig, "train-head", file=file, options={"head": "mlp"})
    assert mlp == TrainConfig(MLP.Config(lr=0.25), seeds=2)


def test_a_head_comes_as_its_config_or_as_its_name_and_settings() -> None:
    config = TrainConfig(TACMA.Config(theta=0.1), seeds=2)
    assert train_config(head=TACMA.Config(theta=0.1), seeds=2) == config
    assert train_config(head="tacma", theta="0.1", seeds="2") == config
    assert resolve(TrainConfig, "train-head", base=config, options={"theta": 0.2}).head == TACMA.Config(
        theta=0.2
    )


def test_settings_of_one_head_are_dropped_with_it() -> None:
    config = TrainConfig(TACMA.Config(theta=0.1, epochs=7), seeds=2)
    changed = resolve(TrainConfig, "train-head", base=config, options={"head": "mlp"})
    assert changed == TrainConfig(MLP.Config(), seeds=2)


def test_the_papers_settings() -> None:
    tacma = TACMA.Config()
    assert (tacma.theta, tacma.routing, tacma.d_h, tacma.d_e) == (0.03, "cross", 256, 256)
    assert (tacma.lr, tacma.lr_decay, tacma.lr_decay_every, tacma.batch_size) == (1e-4, 0.98, 10, 128)


@pytest.mark.parametrize(
    "setting", ["theta=-0.1", "routing=crossed", "d_h=0", "epochs=2.5", "clip_norm=-1", "milestones=0"]
)
def test_values_out_of_range_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting.split("=")[0]):
        resolve(TrainConfig, "train-head", sets=[setting])


def test_the_config_needs_no_torch() -> None:
    code = "import sys, avel.heads.config; list(avel.heads.config.HEADS); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
