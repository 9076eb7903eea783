"""Says in words what predictions are worth: a line with a verdict, and tables, the main metric first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avel.heads.tasks.results import Decoder, PredictionMetrics, interval_text
from avel.heads.tasks.task import ORACLE, TaskName
from avel.text import plural, table


@dataclass(frozen=True)
class EvaluatedSplit:
    """Says what predictions were evaluated on, and how: those of a run or of another program.

    Attributes:
        measure: main metric of the task, in words.
        decoder: how labels were read from scores.
        samples: number of samples with known events, which the figures are about.
        unknown_samples: number of the others.
        leaked_samples: those of `samples` whose video is also in train.
        trivial_baselines_percent: rule that needs no model -> its score; empty without samples.
    """

    task: TaskName
    measure: str
    split: str
    decoder: Decoder
    samples: int
    unknown_samples: int
    leaked_samples: int
    trivial_baselines_percent: dict[str, float]


def headline(about: EvaluatedSplit, metrics: PredictionMetrics, sets: str, validation: str = "") -> str:
    """Returns the score on a split beside the trivial baselines, and the verdict.

    Args:
        sets: what the spread is over, and how many, such as "5 seeds".
        validation: the score by which the epoch was chosen, in words.
    """
    score = metrics.score_percent
    if score.mean is None:
        of_samples = f"the events of its {plural(about.unknown_samples, 'sample')} are not known"
        why = of_samples if about.unknown_samples else "it has no samples"
        return f"{about.split}: no figures, for {why}"
    beside = [validation] if validation else []
    for rule, percent in about.trivial_baselines_percent.items():
        beside.append(f"{rule} {percent:.1f}" + (", an oracle" if rule.startswith(ORACLE) else ""))
    figure = f"{about.split} {about.measure} {score} % over {sets}"
    return f"{figure} ({'; '.join(beside)}): {verdict(metrics, about.trivial_baselines_percent)}"


def verdict(metrics: PredictionMetrics, baselines: Mapping[str, float]) -> str:
    """Says whether a score is above the best trivial baseline that knows nothing of the clip."""
    rules = {rule: percent for rule, percent in baselines.items() if not rule.startswith(ORACLE)}
    if not rules or metrics.interval_percent is None:
        return "no baseline to compare with"
    rule = max(rules, key=lambda name: rules[name])
    low, high = metrics.interval_percent
    if low > rules[rule]:
        return f"better than {rule}"
    if high < rules[rule]:
        return f"worse than {rule}"
    return f"cannot be told apart from {rule} on these clips"


def metric_lines(about: EvaluatedSplit, metrics: PredictionMetrics) -> list[str]:
    """Returns the figures of one set of predictions or of several, the main metric first."""
    events = metrics.events
    tolerance = f"onset ± {events.onset_tolerance_segments:g}, offset ± {events.offset_tolerance_segments:g}"
    leaked = f"without the {plural(about.leaked_samples, 'sample')} whose video is in train"
    rows: list[tuple[str, Any]] = [
        (about.measure, metrics.score_percent),
        ("its 95 % interval over videos", interval_text(metrics.interval_percent)),
        *((rule, f"{percent:.1f}") for rule, percent in about.trivial_baselines_percent.items()),
        (leaked, metrics.score_without_leaked_percent if about.leaked_samples else ""),
        ("on samples that hold background", metrics.accuracy_holding_background_percent),
    ]
    if metrics.parsing is None:
        by_decoder = metrics.accuracy_by_decoder_percent
        rows += [
            ("segment F1", metrics.segment_f1_percent),
            (f"event F1, {tolerance} segments", events.f1_percent),
            ("event precision", events.precision_percent),
            ("event recall", events.recall_percent),
            *((f"accuracy of labels by {name}", each) for name, each in by_decoder.items()),
        ]
    else:
        for title, by_kind in (
            ("segments", metrics.parsing.segment_f1_percent),
            ("events", metrics.parsing.event_f1_percent),
        ):
            rows += [(f"F1 of {title}, {kind}", each) for kind, each in by_kind.items()]
    filled = [(name, str(value)) for name, value in rows if str(value)]
    title = f"{about.split}, {plural(about.samples, 'sample')}, labels by {about.decoder}"
    shown = table((title, "%"), filled)
    recall = {**metrics.recall_percent, "background": metrics.background_recall_percent}
    classes = [(name, f"{value:.1f}") for name, value in recall.items() if value is not None]
    if classes:
        shown += ["", *table(("class", "recall, %"), classes)]
    if metrics.by_tag:
        tags = [
            (tag, each.samples, each.accuracy_percent, each.segment_f1_percent, each.event_f1_percent)
            for tag, each in metrics.by_tag.items()
        ]
        shown += ["", *table(("tag", "samples", "accuracy", "segment F1", "event F1"), tags)]
    return shown
