"""Settings of heads: each head's own, the same after a round trip, refused where they cannot be."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from avel.config import resolve, to_toml
from avel.errors import ConfigError
from avel.heads.config import HEADS, TrainConfig
from avel.heads.models.mlp import MLP
from avel.heads.models.psp import PSP
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
    tacma = TrainConfig(TACMA.Config(theta=0.5), seeds=2, standardise=True)
    assert resolve(TrainConfig, "train-head", file=file) == tacma
    mlp = resolve(TrainConfig, "train-head", file=file, options={"head": "mlp"})
    assert mlp == TrainConfig(MLP.Config(lr=0.25), seeds=2, standardise=True)


@pytest.mark.parametrize("head", ["tacma", "mlp"])
@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        ("[train-head.tacma]\nthetta = 0.5", r"no setting named 'tacma\.thetta'\s+next: did .* tacma\.theta"),
        ("[train-head.mlp]\nepochz = 3", r"no setting named 'mlp\.epochz'\s+next: did .* mlp\.epochs"),
        ("[train-head.mlp]\nepochs = 'many'", "epochs='many' is not a whole number"),
        ("[train-head.tacmo]\ntheta = 0.5", r"no setting named 'tacmo\.theta'"),
    ],
)
def test_a_misspelt_key_in_the_table_of_any_head_is_an_error(
    head: str, table: str, wrong: str, tmp_path: Path
) -> None:
    (tmp_path / "heads.toml").write_text(f"[train-head]\nhead = '{head}'\n{table}\n")
    with pytest.raises(ConfigError, match=wrong):
        resolve(TrainConfig, "train-head", file=tmp_path / "heads.toml")


def test_a_head_comes_as_its_config_or_as_its_name_and_settings() -> None:
    config = TrainConfig(TACMA.Config(theta=0.1), seeds=2, standardise=True)
    assert train_config(head=TACMA.Config(theta=0.1), seeds=2) == config
    assert train_config(head="tacma", theta="0.1", seeds="2") == config
    assert resolve(TrainConfig, "train-head", base=config, options={"theta": 0.2}).head == TACMA.Config(
        theta=0.2
    )


def test_settings_of_one_head_are_dropped_with_it() -> None:
    config = TrainConfig(TACMA.Config(theta=0.1, epochs=7), seeds=2)
    changed = resolve(TrainConfig, "train-head", base=config, options={"head": "mlp"})
    assert changed == TrainConfig(MLP.Config(), seeds=2)


@pytest.mark.parametrize("name", list(HEADS))
def test_the_papers_heads_standardise_unless_told_otherwise(name: str) -> None:
    papers = name in ("tacma", "cross_attention", "mlp")
    assert TrainConfig(HEADS[name].Config()).standardise == papers
    assert not TrainConfig(HEADS[name].Config(), standardise=False).standardise
    assert train_config(head=name).standardise == papers
    weak = train_config(head=name, supervision="weak", standardise=not papers)
    assert weak.standardise != papers


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


WEAK_DEFAULTS = {
    "avel": {"epochs": 250},
    "avsdn": {"milestones": (5, 20, 40)},
    "cmbs": {"alpha": 0.2, "beta": 0.5, "input_dropout": 0.1, "lr": 6e-4, "milestones": (10, 20, 40)},
    "cmran": {"clip_norm": 0.5, "milestones": (5, 20, 40)},
    "cpsp": {"threshold": 0.095, "margin": 0.6, "milestones": (5, 20, 40)},
    "lesp": {"bank_size": 20, "margin": 0.9},
    "psp": {"threshold": 0.095, "milestones": (80, 160)},
    "vscg": {"dropout": 0.1, "out_dropout": 0.5, "milestones": (80, 180, 240)},
}
"""Settings of published weak training that are not those of full supervision."""
WEAK = {"supervision": "weak"}


@pytest.mark.parametrize("name", [name for name in HEADS if HEADS[name].weak])
def test_weak_supervision_brings_its_published_defaults(name: str) -> None:
    full, weak = (train_config(head=name, supervision=kind).head for kind in ("full", "weak"))
    changed = {key: value for key, value in vars(weak).items() if value != getattr(full, key)}
    assert changed == WEAK_DEFAULTS.get(name, {})


def test_what_is_given_wins_over_the_defaults_of_weak_supervision(tmp_path: Path) -> None:
    given = train_config(head="psp", supervision="weak", threshold=0.3)
    assert (given.head.threshold, given.head.milestones) == (0.3, (80, 160))  # type: ignore[attr-defined]
    assert train_config(head="psp", supervision="weak", milestones=(60, 120)).head.milestones == (60, 120)
    (tmp_path / "config.toml").write_text(to_toml(given, "train-head"))
    assert resolve(TrainConfig, "train-head", file=tmp_path / "config.toml") == given


def test_a_config_made_in_python_has_the_defaults_of_weak_supervision_too() -> None:
    config = TrainConfig(PSP.Config(), supervision="weak")
    assert (config.head.threshold, config.head.milestones) == (0.095, (80, 160))  # type: ignore[attr-defined]
    assert config == train_config(head=PSP.Config(), supervision="weak")
    two = resolve(TrainConfig, "train-head", base=TrainConfig(PSP.Config(), seeds=2), options=WEAK)
    assert two == replace(config, seeds=2)
    back = resolve(TrainConfig, "train-head", base=config, options={"supervision": "full"})
    assert back == replace(config, supervision="full") == TrainConfig(PSP.Config())


def test_a_setting_named_in_python_wins_although_it_is_the_default_of_full_supervision() -> None:
    head = PSP.Config(threshold=0.099)
    for config in (
        TrainConfig(head, supervision="weak"),
        train_config(head=head, supervision="weak"),
        resolve(TrainConfig, "train-head", base=TrainConfig(head), options=WEAK),
        resolve(TrainConfig, "train-head", base=TrainConfig(head), options=WEAK | {"lr": 0.5}),
        pickle.loads(pickle.dumps(TrainConfig(head, supervision="weak"))),
    ):
        assert (config.head.threshold, config.head.milestones) == (0.099, (80, 160))


def test_a_whole_config_takes_the_place_of_another_one() -> None:
    base = TrainConfig(PSP.Config(threshold=0.3, dropout=0.4), seeds=2)
    config = resolve(TrainConfig, "train-head", base=base, options={"head": PSP.Config(dropout=0.2)})
    assert config == TrainConfig(PSP.Config(dropout=0.2), seeds=2)
