"""`search`: ranges are drawn from, trials are pruned and chosen on validation, the best is trained."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

import avel.heads.search
from avel.cli import cli
from avel.console import DONE, USAGE
from avel.console import run as run_command
from avel.errors import ConfigError, StoreError, TrainingError
from avel.heads.config import HEADS
from avel.heads.models.head import build_model
from avel.heads.search import SearchResult, search
from avel.heads.train import LoadedCache
from avel.heads.training.records import read_trial
from avel.options import varied
from avel.stores.runs import Run
from avel.text import from_plain
from avel.values import Range, parse_range
from tests.heads.synthetic import train_config, write_cache, write_negatives

QUICK: dict[str, Any] = {"head": "mlp", "epochs": 2, "device": "cpu"}
SPACE: dict[str, Any] = {"lr": Range(1e-4, 1e-1, log=True), "merge": ["add", "concatenate"]}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cache(tmp_path_factory.mktemp("cache") / "c.h5")


def test_the_best_on_validation_is_trained_with_all_seeds(cache: Path, tmp_path: Path) -> None:
    found = search(cache, tmp_path / "s", SPACE, trials=6, seeds=2, **QUICK)
    assert len(found.trials) == 6
    for each in found.trials:
        assert 1e-4 <= each.settings["lr"] <= 1e-1
        assert each.settings["merge"] in ("add", "concatenate")
    finished = [each for each in found.trials if each.state == "finished"]
    assert found.best == max(finished, key=lambda each: each.validation_percent or 0).settings
    run = Run.open(found.run, "heads")
    trial = read_trial(run, "seed=1")
    assert trial.config.head.lr == found.best["lr"]
    assert found.evaluation.groups["mlp"].seeds == (0, 1)
    assert from_plain(SearchResult, json.loads((tmp_path / "s" / "search.json").read_text())) == found
    assert any(line.startswith("best on validation: lr=") for line in found.lines())


def test_trials_see_no_test_split(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits: list[set[str]] = []
    real = avel.heads.search.fit

    def watched(trials: Any, data: Any, *more: Any) -> Any:
        splits.append(set(data.splits))
        return real(trials, data, *more)

    monkeypatch.setattr(avel.heads.search, "fit", watched)
    search(cache, tmp_path / "s", SPACE, trials=2, **QUICK)
    assert splits == [{"train", "val"}] * 2


def test_trials_behind_the_median_are_pruned(cache: Path, tmp_path: Path) -> None:
    """A learning rate of 0 never learns; with as many good ones before it, it is cut after the warm-up."""
    space = {"lr": [0.0, 3e-3, 1e-2, 2e-2, 3e-2, 4e-2]}
    found = search(cache, tmp_path / "s", space, trials=14, head="mlp", epochs=9, device="cpu")
    pruned = [each for each in found.trials if each.state == "pruned"]
    assert pruned
    assert all(each.epochs < 9 for each in pruned)
    assert all(each.epochs == 9 for each in found.trials if each.state == "finished")


def test_a_search_goes_on_and_refuses_another(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = avel.heads.search.fit, []

    def killed_in_the_third(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(avel.heads.search, "fit", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        search(cache, tmp_path / "s", SPACE, trials=4, **QUICK)
    found = search(cache, tmp_path / "s", SPACE, trials=4, **QUICK)
    assert len(calls) == 3 + 2
    assert len(found.trials) == 4
    assert len({each.settings["lr"] for each in found.trials}) == 4
    assert search(cache, tmp_path / "s", SPACE, trials=4, **QUICK) == found
    with pytest.raises(StoreError, match="search with other ranges"):
        search(cache, tmp_path / "s", {"lr": Range(1e-4, 1e-2)}, trials=4, **QUICK)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(StoreError, match="is not a search"):
        search(cache, tmp_path / "mine", SPACE, trials=4, **QUICK)


def test_a_search_refuses_other_negatives_and_other_weights_to_start_from(
    cache: Path, tmp_path: Path
) -> None:
    weights, negatives = tmp_path / "head.pt", write_negatives(tmp_path / "n.h5")
    data = LoadedCache.open(cache, "cpu").data(train_config(**QUICK))
    model = build_model(train_config(**QUICK), data.widths, 0)
    torch.save(model.head.state_dict(), weights)
    options = QUICK | {"negatives": str(negatives), "init": str(weights)}
    search(cache, tmp_path / "s", {"lr": [1e-3]}, trials=1, **options)
    write_negatives(negatives, prefix="other")
    with pytest.raises(StoreError, match="search with other negatives"):
        search(cache, tmp_path / "s", {"lr": [1e-3]}, trials=2, **options)
    write_negatives(negatives)
    torch.save({name: value + 1 for name, value in model.head.state_dict().items()}, weights)
    with pytest.raises(StoreError, match="search with other init"):
        search(cache, tmp_path / "s", {"lr": [1e-3]}, trials=2, **options)


def test_every_input_that_is_searched_over_is_held_to_its_content(cache: Path, tmp_path: Path) -> None:
    given = {"negatives": [str(write_negatives(tmp_path / f"{name}.h5")) for name in "ab"]}
    search(cache, tmp_path / "s", given, trials=1, **QUICK)
    write_negatives(tmp_path / "b.h5", prefix="other")
    with pytest.raises(StoreError, match="search with other negatives"):
        search(cache, tmp_path / "s", given, trials=1, **QUICK)


@pytest.mark.parametrize("space", [{"lr": [1e-3]}, {"head": ["mlp", "tacma"]}])
def test_a_search_refuses_a_head_whose_code_has_changed(
    space: dict[str, Any], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {name: value for name, value in QUICK.items() if name not in space}
    search(cache, tmp_path / "s", space, trials=1, **options)
    search(cache, tmp_path / "s", space, trials=1, **options)
    monkeypatch.setattr(avel.heads.search, "code_digest", lambda head: "edited")
    with pytest.raises(StoreError, match="search with other code"):
        search(cache, tmp_path / "s", space, trials=2, **options)


def test_failed_trials_are_counted_and_not_chosen(cache: Path, tmp_path: Path) -> None:
    found = search(cache, tmp_path / "s", {"lr": [1e-3, 1e38]}, trials=6, **QUICK)
    states = {each.settings["lr"]: each.state for each in found.trials}
    assert states == {1e-3: "finished", 1e38: "failed"}
    assert found.best == {"lr": 1e-3}
    with pytest.raises(TrainingError, match="every trial failed"):
        search(cache, tmp_path / "t", {"lr": Range(1e37, 1e38)}, trials=2, **QUICK)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"merge": Range(1, 2)}, "merge=1 is not one of add, concatenate"),
        ({"together": Range(1, 2)}, "together=1 is not"),
        ({"metrics_hook": Range(1, 2)}, "metrics_hook=1..2 is a range, and metrics_hook is text"),
        ({"project": Range(1, 8)}, "project=1..8 is a range, and project is a whole number or none"),
        ({"batch_size": Range(0.5, 8)}, "batch_size=0.5 is not a whole number"),
        ({"lr": Range(-1.0, 1.0)}, "lr=-1.0 must be at least 0"),
        ({"theta": Range(0.0, 1.0)}, "no setting named 'theta'"),
        ({"seed": Range(0, 9)}, "cannot vary 'seed'"),
        ({"task": ["single_label", "multi_label"]}, "cannot vary 'task': a run has one task"),
        ({"lr": []}, "cannot vary 'lr': it has no values"),
        ({"head": Range(0, 1)}, "cannot vary 'head': 0..1 is a range"),
        ({"merge": "add"}, "cannot vary 'merge': 'add' is not a list"),
    ],
)
def test_what_has_no_range_is_refused_before_anything_is_written(
    space: dict[str, Any], message: str, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        search(cache, tmp_path / "s", space, trials=1, **QUICK)
    assert not (tmp_path / "s").exists()


def test_ranges_of_the_command_line() -> None:
    assert parse_range("log:1e-4..1e-2") == Range(1e-4, 1e-2, log=True)
    assert parse_range("-1..8") == Range(-1, 8)
    assert isinstance(parse_range("1..8").low, int)
    assert [parse_range(text) for text in ("0.5", "both", "log:3", "a..b")] == [None] * 4
    for text in ("8..1", "log:0..1", "1..inf", "-inf..1", "nan..1"):
        with pytest.raises(ConfigError, match="two numbers, the lower first"):
            parse_range(text)
    assert varied(["lr=1e-3..1", "d=1,2", "epochs=3"])[1] == {"lr": Range(1e-3, 1), "d": ["1", "2"]}
    with pytest.raises(ConfigError, match="names lr again"):
        varied(["lr=1", "lr=1..2"])


def test_the_command_searches_with_trials_and_refuses_ranges_without(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", str(cache), str(tmp_path / "s"), "--head", "mlp", "--epochs", "2", "--device", "cpu"]
    ranged = [*command, "--set", "lr=log:1e-3..1e-1", "--set", "batch_size=8,16"]
    assert run_command(cli, [*ranged, "--trials", "3", "--json"]) == DONE
    shown = from_plain(SearchResult, json.loads(capsys.readouterr().out))
    assert len(shown.trials) == 3
    assert {each.settings["batch_size"] for each in shown.trials} <= {8, 16}
    assert run_command(cli, ranged) == USAGE
    assert "--trials N searches it" in capsys.readouterr().err


def test_without_optuna_the_error_says_what_to_install(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'avel\[search\]'"):
        search(cache, tmp_path / "s", SPACE, trials=1, **QUICK)
    assert optuna.__version__  # the module itself is there


def test_heads_may_be_files_and_settings_named_as_in_a_file(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HEADS, "_entries", {name: HEADS[name] for name in HEADS})
    idea = tmp_path / "searched.py"
    idea.write_text(
        "from avel.heads.config import HEADS\n"
        "from avel.heads.models.mlp import MLP\n\n"
        "@HEADS.register('searched')\n"
        "class Searched(MLP):\n    pass\n"
    )
    space = {"head": [str(idea), "mlp"], "batch-size": Range(8, 16)}
    options: dict[str, Any] = {"epochs": 1, "device": "cpu"}
    found = search(cache, tmp_path / "s", space, trials=2, **options)
    assert {each.settings["head"] for each in found.trials} <= {"searched", "mlp"}
    assert all(8 <= each.settings["batch_size"] <= 16 for each in found.trials)
    assert search(cache, tmp_path / "s", space, trials=2, **options) == found


def test_a_setting_of_one_head_is_searched_in_its_trials_alone(cache: Path, tmp_path: Path) -> None:
    space = {"tacma.theta": Range(0.0, 1.0), "head": ["mlp", "tacma"]}
    found = search(cache, tmp_path / "s", space, trials=4, epochs=1, device="cpu")
    names = {each.settings["head"]: {*each.settings} for each in found.trials}
    assert names == {"mlp": {"head"}, "tacma": {"head", "tacma.theta"}}


def test_trials_are_not_chosen_by_scores_of_different_kinds(cache: Path, tmp_path: Path) -> None:
    """Under weak supervision an epoch is chosen by the classes of videos, whose scores are higher."""
    both: dict[str, Any] = {"supervision": ["full", "weak"]}
    for space in (both, {"select_by": ["segments", "videos"]}):
        with pytest.raises(ConfigError, match="not comparable"):
            search(cache, tmp_path / "s", space, trials=2, **QUICK)
    assert len(search(cache, tmp_path / "s", both, trials=2, select_by="segments", **QUICK).trials) == 2
