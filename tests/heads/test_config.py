"""Settings of heads: filled from the head, refused where unknown, the same after a round trip."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from avel.config import resolve, to_toml
from avel.errors import ConfigError
from avel.heads.config import HeadConfig
from avel.heads.models.head import HEADS, resolve_head


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": None, "lr": None}, "head 'mlp' has no default for lr, epochs"),
        ({"gain": 2.0}, "head 'mlp' has defaults for gain, which are no settings"),
    ],
)
def test_a_head_whose_defaults_are_not_whole_is_refused(
    change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HEADS["mlp"], "defaults", {**HEADS["mlp"].defaults, **change})
    with pytest.raises(ConfigError, match=message):
        resolve_head(HeadConfig(head="mlp"))


@pytest.mark.parametrize("name", list(HEADS))
def test_a_resolved_config_survives_its_toml(name: str, tmp_path: Path) -> None:
    config = resolve_head(HeadConfig(head=name, seeds=3))
    (tmp_path / "config.toml").write_text(to_toml(config, "train-head"))
    assert resolve(HeadConfig, "train-head", file=tmp_path / "config.toml") == config


def test_the_papers_settings() -> None:
    tacma = resolve_head(HeadConfig())
    assert (tacma.theta, tacma.routing, tacma.d_h, tacma.d_e) == (0.03, "cross", 256, 256)
    assert (tacma.lr, tacma.decay, tacma.decay_every, tacma.batch_size) == (1e-4, 0.98, 10, 128)


@pytest.mark.parametrize("setting", ["theta=-0.1", "routing=crossed", "d_h=0", "dropout=1", "epochs=2.5"])
def test_values_out_of_range_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting.split("=")[0]):
        resolve(HeadConfig, "train-head", sets=[setting])


def test_the_config_needs_no_torch() -> None:
    code = "import sys, avel.heads.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
