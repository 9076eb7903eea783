"""The demo's table: every row with its spread over seeds and its interval over videos."""

from avel.heads.evaluation.evaluation import GroupEvaluation
from avel.heads.tasks.results import EventEvaluation, Spread
from avel.recipes.demo import DemoResult


def test_the_table_prints_intervals() -> None:
    spread = Spread(82.44, 3.6)
    found = GroupEvaluation(
        head="tacma",
        inputs="encoded",
        weak_labels=None,
        selected_by="segments",
        seeds=(0, 1),
        best_epochs=(3, 4),
        accuracy_percent=spread,
        interval_percent=(78.06, 86.5),
        accuracy_without_leaked_percent=spread,
        accuracy_holding_background_percent=spread,
        segment_f1_percent=spread,
        validation_score_percent=spread,
        score_at_best_test_epoch_percent=Spread(84.0, 1.0),
        accuracy_by_decoder_percent={},
        recall_percent={},
        background_recall_percent=None,
        events=EventEvaluation(0, 0, Spread(61.0, 2.0), spread, spread),
        by_tag={},
        parsing=None,
    )
    result = DemoResult({"tacma": found}, {"always background": 50.0}, {}, {"cache": "demo/features.h5"})
    header, rule, row, baseline, *rest = result.lines()
    names = ("best validation epoch", "95 % interval", "event F1", "best test epoch")
    columns = [header.index(name) for name in names]
    cells = [row[start:end].strip() for start, end in zip(columns, [*columns[1:], None], strict=True)]
    assert cells == ["82.4 ± 3.6", "78.1 to 86.5", "61.0 ± 2.0", "84.0 ± 1.0"]
    assert baseline.split() == ["trivial", "baseline:", "always", "background", "50.0"]
    assert any("demo/features.h5" in line for line in rest)
    assert set(rule) == {"-", " "}
