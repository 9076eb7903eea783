"""The verdict on a score: beside the best rule that knows nothing of a clip."""

from typing import cast

import pytest

from avel.heads.evaluation.wording import verdict
from avel.heads.tasks.results import PredictionMetrics

RULES = {"always background": 30.0, "right class, never background": 70.0}


class Interval:
    """Only the interval counts."""

    def __init__(self, low: float, high: float) -> None:
        self.interval_percent = (low, high)


@pytest.mark.parametrize(
    ("interval", "rules", "says"),
    [
        ((31.0, 50.0), RULES, "better than always background"),
        ((10.0, 29.0), RULES, "worse than always background"),
        ((29.0, 31.0), RULES, "cannot be told apart from always background on these clips"),
        ((80.0, 90.0), {"right class, never background": 70.0}, "no baseline to compare with"),
        ((35.0, 38.0), RULES | {"always Dog": 40.0}, "worse than always Dog"),
    ],
)
def test_a_score_is_told_beside_the_best_rule_that_knows_nothing(
    interval: tuple[float, float], rules: dict[str, float], says: str
) -> None:
    assert verdict(cast(PredictionMetrics, Interval(*interval)), rules) == says
