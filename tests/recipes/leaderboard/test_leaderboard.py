"""`leaderboard`: what is trained, read again, left out, and said of each head."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import avel.heads.train
from avel.cli import cli
from avel.console import DONE, ERROR, INTERRUPTED
from avel.console import run as run_command
from avel.errors import ConfigError, StoreError, TrainingError, UnknownNameError
from avel.heads.config import HEADS
from avel.heads.evaluation.compare import compare
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.models.head import Widths
from avel.heads.train import train_head
from avel.heads.training.records import read_trials
from avel.recipes.leaderboard import leaderboard as module
from avel.recipes.leaderboard.board import Leaderboard
from avel.recipes.leaderboard.leaderboard import leaderboard, plan_heads
from avel.stores.runs import Run
from avel.text import from_plain
from tests.chromium import phone
from tests.heads.synthetic import write_cache

QUICK: dict[str, Any] = {"epochs": 2, "lr": 1e-3, "device": "cpu"}
HEADS_HERE = ("mlp", "cross_attention", "tacma")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cache(tmp_path_factory.mktemp("cache") / "features.h5")


@pytest.fixture(scope="module")
def out(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def board(cache: Path, out: Path) -> Leaderboard:
    heads = (*HEADS_HERE, "bilstm", "vscg")  # one needs CNN vectors, one eight segments at least
    return leaderboard(cache, out, heads=heads, seeds=2, against="tacma", settings=QUICK)


def test_each_line_is_what_evaluate_and_compare_find(board: Leaderboard, out: Path) -> None:
    assert {line.head for line in board.heads} == set(HEADS_HERE)
    means = [line.accuracy_percent.mean or 0 for line in board.heads]
    assert means == sorted(means, reverse=True)
    for line in board.heads:
        group = evaluate(out / line.head).groups[line.head]
        assert line.accuracy_percent == group.accuracy_percent
        assert line.interval_percent == group.interval_percent
        assert line.event_f1_percent == group.events.f1_percent
        assert line.segment_f1_percent == group.segment_f1_percent
        assert line.best_test_epoch_percent == group.score_at_best_test_epoch_percent
        if line.head == "tacma":
            assert line.differences == {}
        else:
            assert line.differences == compare(out / line.head, out / "tacma").differences
    level = [line.head for line in board.heads if line.differences and line.differences["accuracy"].level]
    assert list(board.level) == level


def test_parameters_and_seconds_are_those_of_the_trials(board: Leaderboard, out: Path) -> None:
    line = next(line for line in board.heads if line.head == "mlp")
    widths = Widths(12, 12, 4, segments=6)
    assert line.parameters == sum(
        a * b + b for a, b in ((widths.audio, 128), (128, 64), (64, widths.classes))
    )
    trials = read_trials(Run.open(out / "mlp"))
    assert all(trial.train_seconds > 0 for trial in trials)
    assert line.epoch_seconds == pytest.approx(np.mean([trial.train_seconds / 2 for trial in trials]))
    assert line.published is not None
    assert (line.published.percent, line.published.features) == (75.6, "AV-BT")


def test_heads_that_cannot_run_here_are_left_out_with_the_reason(board: Leaderboard, out: Path) -> None:
    reasons = {each.head: each.reason for each in board.skipped}
    assert set(reasons) == {"bilstm", "vscg"}
    assert "needs cnn_a and cnn_v" in reasons["bilstm"]
    assert "takes 8 to 11 segments" in reasons["vscg"]
    assert not (out / "bilstm").exists()


def test_the_same_call_trains_nothing_again(
    board: Leaderboard, cache: Path, out: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(avel.heads.train, "fit", lambda *arguments: pytest.fail("trained again"))
    heads = (*HEADS_HERE, "bilstm", "vscg")
    again = leaderboard(cache, out, heads=heads, seeds=2, against="tacma", settings=QUICK)
    assert again.heads == board.heads
    with pytest.raises(StoreError, match="epochs was 2, is now 3"):
        leaderboard(cache, out, heads="mlp", seeds=2, settings=QUICK | {"epochs": 3})


def test_json_csv_and_page_hold_the_board(board: Leaderboard, out: Path) -> None:
    kept = json.loads((out / "leaderboard.json").read_text())
    assert from_plain(Leaderboard, kept).heads == board.heads
    assert kept["heads"][0]["accuracy_percent"]["mean"] == board.heads[0].accuracy_percent.mean
    rows = list(csv.DictReader((out / "leaderboard.csv").read_text().splitlines()))
    assert [row["head"] for row in rows] == [line.head for line in board.heads]
    for row, line in zip(rows, board.heads, strict=True):
        assert float(row["accuracy_percent.mean"]) == line.accuracy_percent.mean
        assert row["differences.event_f1.points"] == (
            str(line.differences["event_f1"].points) if line.differences else ""
        )
    text = Path(board.page).read_text()
    assert "script" not in text.replace("Content-Security", "")
    cells = Cells()
    cells.feed(text)
    assert [cell for cell in cells.first if cell] == [line.head for line in board.heads]
    assert str(board.heads[-1].accuracy_percent) in text
    assert "75.6<small>AV-BT; Ran et al. 2022, Table 2</small>" in text  # in sight, not in a tooltip


def test_an_interrupted_one_leaves_table_and_page_of_the_finished_heads(
    cache: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def until(last: str) -> Any:
        def train(loaded: Any, run: Path, config: Any) -> Any:
            if config.head.name == last:
                raise KeyboardInterrupt
            return train_head(loaded, run, config)

        return train

    command = ["leaderboard", str(cache), str(tmp_path), "--heads", "mlp,bilstm,tacma,cross_attention"]
    command += [word for key, value in QUICK.items() for word in ("--set", f"{key}={value}")]
    monkeypatch.setattr(module, "train_head", until("tacma"))
    assert run_command(cli, [*command, "--seeds", "1"]) == INTERRUPTED
    assert f"{tmp_path}/leaderboard.html: 1 of 4 heads so far" in capsys.readouterr().err
    kept = from_plain(Leaderboard, json.loads((tmp_path / "leaderboard.json").read_text()))
    assert [line.head for line in kept.heads] == ["mlp"]
    assert kept.waiting == ("tacma", "cross_attention")
    assert "not trained yet: tacma, cross_attention; the same" in (tmp_path / "leaderboard.html").read_text()
    assert len((tmp_path / "leaderboard.csv").read_text().splitlines()) == 2

    # heads in another order: what is trained stays on the board
    train_head(cache, tmp_path / "tacma", head="tacma", **QUICK)
    monkeypatch.setattr(module, "train_head", until("cross_attention"))
    command[4] = "cross_attention,tacma,mlp,bilstm"
    assert run_command(cli, [*command, "--seeds", "1"]) == INTERRUPTED
    kept = from_plain(Leaderboard, json.loads((tmp_path / "leaderboard.json").read_text()))
    assert {line.head for line in kept.heads} == {"mlp", "tacma"}
    monkeypatch.setattr(module, "train_head", train_head)
    assert run_command(cli, [*command, "--seeds", "1"]) == DONE
    kept = from_plain(Leaderboard, json.loads((tmp_path / "leaderboard.json").read_text()))
    assert kept.waiting == ()
    assert [each.head for each in kept.skipped] == ["bilstm"]
    assert "not trained yet" not in (tmp_path / "leaderboard.html").read_text()


def test_a_phone_shows_the_whole_board_without_sideways_scrolling(board: Leaderboard, driver: Any) -> None:
    driver.get(Path(board.page).resolve().as_uri())
    wide = driver.execute_script("return document.querySelectorAll('tbody tr')[0].offsetHeight")
    phone(driver)
    driver.refresh()
    assert driver.execute_script("return innerWidth") == 390
    for element in ("document.documentElement", "document.querySelector('.scroll')"):
        assert driver.execute_script(f"return {element}.scrollWidth") <= 390
    cards = driver.execute_script(
        "return [...document.querySelectorAll('tbody tr')].map(row => row.innerText)"
    )
    assert len(cards) == len(board.heads)
    for card, line in zip(cards, board.heads, strict=True):
        assert line.head in card
        assert str(line.event_f1_percent) in card
    named = driver.execute_script(
        "return getComputedStyle(document.querySelector('tbody td'), '::before').content"
    )
    assert named == '"test accuracy"'
    assert driver.execute_script("return document.querySelectorAll('tbody tr')[0].offsetHeight") > wide


def test_the_page_names_the_cache_without_its_folders(board: Leaderboard, cache: Path) -> None:
    text = Path(board.page).read_text()
    assert f"of {cache.name} (" in text
    assert str(cache.parent) not in text


class Cells(HTMLParser):
    """The text of the first cell of every row of the body."""

    def __init__(self) -> None:
        super().__init__()
        self.first: list[str] = []
        self.body = self.open = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.body = self.body or tag == "tbody"
        self.open = self.body and tag == "th"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.first.append(data.strip())
            self.open = False


def test_the_terminal_names_what_is_level_and_what_is_left_out(board: Leaderboard) -> None:
    shown = "\n".join(board.lines())
    assert f"level with tacma: {', '.join(board.level) or 'none'}" in shown
    assert "left out: bilstm: " in shown
    assert "resolve about" in shown
    told = [line for line in board.heads if line.head in board.level]
    for line in told:
        assert line.difference is not None
        assert f"{line.head} {line.difference.needed}" in shown
    assert "right class, never background" in shown


def test_the_head_to_compare_with_is_the_best_on_validation(
    cache: Path, out: Path, board: Leaderboard
) -> None:
    found = leaderboard(cache, out, heads=HEADS_HERE, seeds=2, settings=QUICK)
    best = max(board.heads, key=lambda line: line.validation_percent.mean or 0)
    assert found.against == best.head


def test_all_means_every_head_and_each_keeps_its_own_defaults() -> None:
    planned = plan_heads("all", 3, "full", {"tacma.theta": 0.3, "patience": 7})
    assert set(planned) == set(HEADS)
    assert all((config.seeds, config.patience) == (3, 7) for config in planned.values())
    assert planned["tacma"].head.theta == 0.3
    for name, config in planned.items():
        assert config.head.epochs == HEADS[name].Config().epochs


def test_wrong_requests_end_before_anything_is_trained(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no head named 'tacmo'"):
        leaderboard(cache, tmp_path / "a", heads=["tacmo"])
    with pytest.raises(ConfigError, match="names no head"):
        leaderboard(cache, tmp_path / "a", heads=[])
    with pytest.raises(UnknownNameError, match="no head named 'psp'"):
        leaderboard(cache, tmp_path / "a", heads=["mlp"], against="psp")
    with pytest.raises(ConfigError, match="seeds=3 cannot be a setting of all heads"):
        leaderboard(cache, tmp_path / "a", heads=["mlp"], settings={"seeds": 3})
    with pytest.raises(ConfigError, match="next: give --heads"):
        leaderboard(cache, tmp_path / "a", heads=["mlp"], settings={"head": "tacma"})
    with pytest.raises(UnknownNameError, match="theta"):
        leaderboard(cache, tmp_path / "a", heads=["tacma", "mlp"], settings={"theta": 0.1})
    assert not (tmp_path / "a").exists()
    with pytest.raises(TrainingError, match="no head can be trained here; bilstm: "):
        leaderboard(cache, tmp_path / "a", heads=["bilstm"])


def test_a_cache_without_labels_for_test_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "c.h5", splits=(0.6, 1.0))
    with pytest.raises(TrainingError, match="there is no test sample, by which"):
        leaderboard(cache, tmp_path / "board", heads=["mlp", "tacma"])
    unknown = write_cache(tmp_path / "u.h5", known=np.arange(60) < 48)
    with pytest.raises(TrainingError, match="no test sample has known events, by which"):
        leaderboard(unknown, tmp_path / "board", heads=["mlp", "tacma"])
    assert not (tmp_path / "board").exists()


def test_the_command_is_the_function(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [word for key, value in QUICK.items() for word in ("--set", f"{key}={value}")]
    weak = ["leaderboard", str(cache), str(tmp_path / "weak"), "--seeds", "1", "--supervision", "weak", *sets]
    assert run_command(cli, [*weak, "--heads", "mlp,jcan", "--json"]) == DONE
    shown = from_plain(Leaderboard, json.loads(capsys.readouterr().out))
    assert ([line.head for line in shown.heads], shown.supervision) == (["mlp"], "weak")
    assert shown.skipped[0].reason == "head 'jcan' cannot learn from video labels"
    assert shown.notes()[:2] == [
        "epochs of all heads were chosen by labels of validation videos",
        "all heads learned from the videos' event",
    ]
    (tmp_path / "weak" / "mlp" / "results.json").unlink()
    assert run_command(cli, [*weak, "--heads", "mlp,jcan", "--against", "jcan"]) == ERROR
    assert "--against jcan: head 'jcan' cannot learn from video labels" in capsys.readouterr().err
    assert not (tmp_path / "weak" / "mlp" / "results.json").exists()  # nothing was trained before
