"""`evaluate` over predictions written by hand: two seeds, three samples, one of them leaked."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avel.cli import cli
from avel.console import DONE, USAGE
from avel.console import run as run_command
from avel.errors import StoreError
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.evaluation.evaluation import Evaluation
from avel.heads.evaluation.predictions import Predictions, write_predictions
from avel.heads.models.head import Widths
from avel.heads.tasks.results import Spread
from avel.heads.training.fit import TrialOutcome
from avel.heads.training.records import HeadInputs, write_trial
from avel.heads.training.trials import Trial
from avel.stores.runs import Run
from avel.text import as_plain, from_plain
from tests.heads.synthetic import train_config

LABEL = np.array([[2, 0, 0, 2], [1, 1, 1, 1], [2, 1, 2, 2]])
BY_SEED = {
    0: np.array([[0, 0, 0, 2], [1, 1, 1, 1], [2, 2, 2, 2]]),  # 3 + 4 + 3 of 12
    1: np.array([[2, 0, 0, 2], [1, 1, 0, 0], [2, 1, 2, 2]]),  # 4 + 2 + 4 of 12
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    config = train_config(seeds=2)
    tags = {"seen": (0, 1), "unseen": (2, 7)}
    names = "single_label", ("",), ("bell", "dog, barking"), (), ("seed=0", "seed=1")
    inputs = HeadInputs("c.h5", "0123", {}, {}, 4, 1.0, *names, head_code={}, head_code_digest={}, tags=tags)
    opened = Run.create(tmp_path / "run", "heads", config, inputs=as_plain(inputs))
    items = []
    for seed, predicted in BY_SEED.items():
        trial = Trial(f"seed={seed}", train_config(seed=seed))
        outcome = TrialOutcome(
            trial,
            epochs=9,
            best_epoch=4 + seed,
            val_score=0.8,
            test_score=10 / 12,
            best_test_epoch=7,
            best_test_score=11 / 12,
        )
        write_trial(opened, outcome, Widths(8, 8, 3), "encoded")
        items.append(predictions(trial.name, predicted))
    write_predictions(opened, items)
    return opened.path


def predictions(trial: str, predicted: np.ndarray) -> Predictions:
    probabilities = 0.1 + 0.7 * np.eye(3, dtype=np.float32)[predicted]
    ids = np.array(["-a", "_b", "c"], object)
    leaked = np.array([False, False, True])
    return Predictions(trial, "test", np.arange(3), ids, leaked, LABEL, probabilities)


def test_numbers_worked_out_by_hand(run: Path) -> None:
    found = evaluate(run, onset_tolerance=0, offset_tolerance=0)
    group = found.groups["tacma"]
    assert (found.split, found.samples, found.leaked_samples, found.failed_trials) == ("test", 3, 1, ())
    assert (group.head, group.inputs, group.seeds, group.best_epochs) == ("tacma", "encoded", (0, 1), (4, 5))
    assert found.trivial_baselines_percent == {
        "always background": pytest.approx(500 / 12),
        "right class, never background": pytest.approx(700 / 12),
    }
    assert group.accuracy_percent == Spread(pytest.approx(1000 / 12), 0.0)
    clean = group.accuracy_without_leaked_percent
    assert clean.mean == pytest.approx(100 * (7 + 6) / 16)
    assert clean.std == pytest.approx(100 * (1 / 8) / np.sqrt(2))
    assert group.accuracy_holding_background_percent.mean == pytest.approx(100 * (6 + 8) / 16)
    segments = group.segment_f1_percent.mean  # 2 and 4 events' segments found right of 7 and 5, 7 are true
    assert segments == pytest.approx(50 * (2 * 6 / (7 + 7) + 2 * 5 / (7 + 7)))
    assert group.validation_score_percent == Spread(pytest.approx(80.0), 0.0)
    assert group.recall_percent == {"bell": 100.0, "dog, barking": pytest.approx(70.0)}
    assert group.background_recall_percent == pytest.approx(90.0)
    assert group.score_at_best_test_epoch_percent.mean == pytest.approx(1100 / 12)
    assert group.interval_percent is not None
    low, high = group.interval_percent
    assert 70 < low < 1000 / 12 < high <= 87.5


def test_events_exact_and_with_tolerance(run: Path) -> None:
    """Seed 0 finds 1 of 3 true events with 2; seed 1 finds 2 of 3 with 4."""
    events = evaluate(run, onset_tolerance=0, offset_tolerance=0).groups["tacma"].events
    assert events.f1_percent.mean == pytest.approx(50 * (2 / 5 + 4 / 7))
    assert events.precision_percent.mean == pytest.approx(50 * (1 / 2 + 2 / 4))
    assert events.recall_percent.mean == pytest.approx(50 * (1 / 3 + 2 / 3))
    near = evaluate(run, onset_tolerance=1, offset_tolerance=2).groups["tacma"].events
    assert (near.onset_tolerance_segments, near.offset_tolerance_segments) == (1, 2)
    assert near.recall_percent.mean == pytest.approx(50 * (2 / 3 + 3 / 3))


def test_the_event_decoder_is_shown_beside_argmax(run: Path) -> None:
    """Seed 1's second clip: class 0 and 1 tie in the mean, the first is taken; all else stays."""
    argmax = evaluate(run).groups["tacma"]
    event = evaluate(run, decoder="event").groups["tacma"]
    both = {"argmax": argmax.accuracy_percent, "event": event.accuracy_percent}
    assert argmax.accuracy_by_decoder_percent == event.accuracy_by_decoder_percent == both


def test_the_best_test_epoch_was_found_by_argmax_and_is_shown_with_it_alone(run: Path) -> None:
    group = evaluate(run, decoder="event").groups["tacma"]
    assert group.score_at_best_test_epoch_percent == Spread(None, None)


def test_samples_of_a_tag_are_evaluated_apart(run: Path) -> None:
    by_tag = evaluate(run, onset_tolerance=0, offset_tolerance=0).groups["tacma"].by_tag
    assert {tag: found.samples for tag, found in by_tag.items()} == {"seen": 2, "unseen": 1, "all": 3}
    assert by_tag["seen"].accuracy_percent.mean == pytest.approx(100 * (7 / 8 + 6 / 8) / 2)
    assert by_tag["unseen"].accuracy_percent.mean == pytest.approx(100 * (3 / 4 + 4 / 4) / 2)
    assert by_tag["seen"].segment_f1_percent.mean == pytest.approx(100 * (12 / 13 + 8 / 12) / 2)
    assert by_tag["seen"].event_f1_percent.mean == pytest.approx(100 * (2 / 4 + 2 / 5) / 2)
    assert by_tag["unseen"].event_f1_percent.mean == pytest.approx(50)


def test_f1_over_clips_are_means_over_the_classes_of_each_clip(run: Path) -> None:
    """Background is a class there; a predicted event is right if it shares half of what either covers."""
    by_tag = evaluate(run).groups["tacma"].by_tag
    first = np.mean([4 / 5, 2 / 3]), np.mean([1, 2 / 3])  # [0, 0, 0, 2] for [2, 0, 0, 2]: bell, background
    second = np.mean([0, 4 / 6]), np.mean([0, 1])  # [1, 1, 0, 0] for four of 1: bell is wrong, dog half there
    third = np.mean([0, 6 / 7]), np.mean([0, 2 / 3])  # four of 2 for [2, 1, 2, 2]: dog is lost
    for place, name in enumerate(("segment_f1_over_clips_percent", "event_f1_over_clips_percent")):
        first_two = np.mean([first[place], 1, 1, second[place]])
        last = np.mean([third[place], 1])
        assert getattr(by_tag["seen"], name).mean == pytest.approx(100 * first_two)
        assert getattr(by_tag["unseen"], name).mean == pytest.approx(100 * last)
        assert getattr(by_tag["all"], name).mean == pytest.approx(100 * (2 * first_two + last) / 3)


def test_the_command_evaluates_as_the_function_does(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "evaluate",
        str(run),
        "--decoder",
        "event",
        "--onset-tolerance",
        "0",
        "--offset-tolerance",
        "2",
    ]
    assert run_command(cli, [*command, "--json"]) == DONE
    shown = json.loads(capsys.readouterr().out)
    found = evaluate(run, decoder="event", onset_tolerance=0, offset_tolerance=2)
    assert shown["groups"]["tacma"]["accuracy_percent"] == asdict(found.groups["tacma"].accuracy_percent)
    assert from_plain(Evaluation, shown) == found
    assert run_command(cli, ["evaluate", str(run), "--decoder", "viterbi"]) == USAGE
    assert run_command(cli, ["evaluate", str(run), "--onset-tolerance", "-1"]) == USAGE


def test_spread_of_one_seed_has_no_std() -> None:
    assert Spread.of([50]) == Spread(50.0, None)
    assert Spread.of([float("nan"), 50]) == Spread.of([]) == Spread(None, None)
    assert Spread.of([50, 70]) == Spread(pytest.approx(60.0), pytest.approx(np.sqrt(200)))
    assert [str(Spread.of(values)) for values in ([50, 70], [50], [])] == ["60.0 ± 14.1", "50.0", ""]


def test_results_are_read_back_as_they_were(run: Path) -> None:
    opened, found = Run.open(run), evaluate(run)
    opened.finish(found)
    assert opened.read_results(Evaluation) == found


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("groups.tacma.accuracy_percent.mean", "high", "is 'high', not a number"),
        ("groups.tacma.seeds.1", 0.5, "is 0.5, not a whole number"),
        (
            "groups.tacma.interval_percent",
            [70.0],
            r"is \[70.0\], not a list of 2, separated by commas, each a number",
        ),
        ("groups.tacma.accuracy_by_decoder_percent", [], r"is \[\], not an object"),
        ("decoder", "viterbi", "is 'viterbi', not one of argmax, event, threshold"),
        ("samples", True, "is True, not a whole number"),
        ("split", None, "is None, not text"),
        ("trivial_baselines_percent.always background", None, "is None, not a number"),
        ("groups.tacma.events.f1_percent", ..., "is missing"),
    ],
)
def test_damaged_results_are_named_by_file_and_field(run: Path, field: str, value: Any, says: str) -> None:
    opened = Run.open(run)
    opened.finish(evaluate(run))
    results = run / "results.json"
    whole = json.loads(results.read_text())
    *way, last = (int(step) if step.isdigit() else step for step in field.split("."))
    holder = whole
    for step in way:
        holder = holder[step]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    results.write_text(json.dumps(whole))
    with pytest.raises(StoreError, match=f"results.json: {field} {says}\\s+next: delete the file"):
        opened.read_results(Evaluation)


def test_results_cut_short_are_an_error(run: Path) -> None:
    (run / "results.json").write_text('{"run": ')
    with pytest.raises(StoreError, match=r"results\.json is damaged: no JSON: Expecting value"):
        Run.open(run).read_results(Evaluation)
