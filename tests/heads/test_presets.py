"""`--preset paper` of heads: the paper's values whatever the defaults are, and weaker than what is given."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import avel
from avel.cli import cli
from avel.config import resolve
from avel.console import DONE, USAGE, run
from avel.heads.config import HEADS, TrainConfig
from avel.heads.presets import PRESETS
from avel.recipes.leaderboard.leaderboard import plan_heads

SECTION_4_1 = {
    "lr": 1e-4,
    "lr_decay": 0.98,
    "lr_decay_every": 10,
    "batch_size": 128,
    "weight_decay": 0.0,
    "dropout": 0.0,
    "epochs": 300,
}
OTHERS = {"lr": 0.5, "lr_decay": 0.5, "lr_decay_every": 1, "batch_size": 2, "weight_decay": 0.1}
"""Other values of the same settings, as if the defaults had become these."""
OTHERS |= {"dropout": 0.5, "epochs": 3, "warmup_epochs": 2, "cosine": True, "clip_norm": 1.0}


def settings_of(config: TrainConfig) -> dict[str, Any]:
    return {"standardise": config.standardise, "patience": config.patience} | dataclasses.asdict(config.head)


@pytest.mark.parametrize(
    ("head", "own", "changed"),
    [
        ("mlp", {"merge": "add"}, {"merge": "concatenate"}),
        ("tacma", {"theta": 0.03, "routing": "cross", "d_h": 256, "d_e": 256}, {"theta": 1, "d_h": 2}),
        ("cross_attention", {"routing": "cross", "d_e": 256}, {"routing": "printed", "d_e": 2}),
    ],
)
def test_the_papers_values_do_not_depend_on_the_defaults(
    head: str, own: dict[str, Any], changed: dict[str, Any]
) -> None:
    options = {"head": head, "standardise": True, "patience": 7, **OTHERS, **changed}
    other = resolve(TrainConfig, "train-head", options=options)
    found = settings_of(resolve(TrainConfig, "train-head", base=other, preset=PRESETS["paper"]))
    expected = SECTION_4_1 | own | {"standardise": False, "patience": 0}
    expected |= {"warmup_epochs": 0, "cosine": False, "clip_norm": 0.0}
    assert {name: found[name] for name in expected} == expected


def test_heads_of_other_publications_keep_their_settings() -> None:
    for head in sorted(set(HEADS) - {"mlp", "tacma", "cross_attention"}):
        own = resolve(TrainConfig, "train-head", options={"head": head})
        assert resolve(TrainConfig, "train-head", base=own, preset=PRESETS["paper"]).head == own.head


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Replaces the functions of commands that train heads by recorders of what they are called with."""
    calls: dict[str, dict[str, Any]] = {}

    class Result:
        run = page = "r"

        def headline(self) -> str:
            return "done"

    for name in ("train_head", "sweep", "leaderboard", "reproduce"):

        def record(*args: Any, _name: str = name, **options: Any) -> Result:
            calls[_name] = {**options, "positional": args}
            return Result()

        monkeypatch.setattr(avel, name, record, raising=False)
    return calls


def test_commands_take_the_preset_below_everything_that_is_given(
    received: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[train-head]\nstandardise = true\n[train-head.tacma]\nlr = 0.25\n")
    given = ["--preset", "paper", "--config", str(file)]
    assert run(cli, ["train-head", "c.h5", "r", *given, "--epochs", "5"]) == DONE
    config = received["train_head"]["positional"][2]
    assert (config.standardise, config.patience, config.head.lr) == (True, 0, 0.25)
    assert (config.head.epochs, config.head.theta, config.head.dropout) == (5, 0.03, 0.0)

    assert run(cli, ["sweep", "c.h5", "r", *given, "--set", "theta=0,1", "--set", "dropout=0.5"]) == DONE
    swept = {**received["sweep"]}
    theta = swept.pop("settings")["theta"][1]
    options = {name: value for name, value in swept.items() if name not in ("positional", "overwrite")}
    resolved = resolve(TrainConfig, "train-head", options=options | {"theta": theta})
    assert (resolved.standardise, resolved.head.lr, resolved.head.batch_size) == (True, 0.25, 128)
    assert (resolved.head.dropout, resolved.head.theta) == (0.5, 1.0)


def test_the_tables_of_several_heads_take_it_too(received: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    wanted = ["--set", "tacma.theta=0.3", "--heads", "mlp,tacma,psp"]
    assert run(cli, ["leaderboard", "c.h5", "b", "--preset", "paper", *wanted]) == DONE
    planned = plan_heads(["mlp", "tacma", "psp"], 2, "full", received["leaderboard"]["settings"])
    psp = resolve(TrainConfig, "train-head", options={"head": "psp"}).head
    assert (planned["tacma"].head.theta, planned["psp"].head) == (0.3, psp)
    assert received["leaderboard"]["settings"]["mlp.lr"] == 1e-4

    store = tmp_path / "s.zarr"
    assert run(cli, ["reproduce", "table2", str(store), "o", "--preset", "paper"]) == DONE
    assert received["reproduce"]["heads"] == PRESETS["paper"]
    assert run(cli, ["reproduce", "table2", str(store), "o", "--preset", "small"]) == DONE
    assert received["reproduce"]["heads"] == {}
    assert received["reproduce"]["pretraining"].freeze_backbone


def test_an_unknown_preset_is_refused() -> None:
    assert run(cli, ["train-head", "c.h5", "r", "--preset", "papper"]) == USAGE
