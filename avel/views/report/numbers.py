"""Numbers of the page: accuracies and learning curves of each run, sweeps, t-SNE panels."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from avel.config import as_dict, flat
from avel.errors import ConfigError
from avel.grid import evenly_spaced
from avel.heads.evaluation.evaluate import evaluate_split
from avel.heads.evaluation.evaluation import Evaluation, GroupEvaluation
from avel.heads.evaluation.paired import differences
from avel.heads.tasks.mistakes import class_scores, event_errors
from avel.heads.training.records import HeadInputs
from avel.progress import Progress
from avel.text import as_plain
from avel.views.embedding import Embedding, embed
from avel.views.reading import HeadRun
from avel.views.series import SEEDS, Curve, curves_of, sweep_of, swept_settings

CLOUD_RUNS = 6
"""Most runs with a t-SNE panel; each takes seconds."""
CLOUD_POINTS = 1000
CURVE_POINTS = 200
"""Most epochs of a curve on the page; more would not be visible."""


def split_by_setting(run: HeadRun) -> dict[str, HeadRun]:
    """Splits a run into groups of trials that differ in the seed alone, each under its name."""
    trials: dict[str, list[int]] = {}
    for place, record in enumerate(run.records):
        trials.setdefault(record.group, []).append(place)
    if len(trials) == 1:
        return {next(iter(trials)): run}
    return {
        name: replace(
            run,
            name=f"{run.name}: {name}",
            trials=tuple(run.trials[place] for place in places),
            probability=run.probability[places],
        )
        for name, places in trials.items()
    }


def evaluations_of(run: HeadRun) -> dict[str, Evaluation]:
    """Evaluates a run on each of its splits: split -> results."""
    return {
        split: evaluate_split(run.run, run.predictions(split), split)
        for split in sorted(set(run.split.tolist()))
    }


def comparisons(groups: Sequence[HeadRun]) -> dict[str, dict[str, Any]]:
    """Compares runs in pairs: split -> "0-1" for the first two -> metric -> run 0's minus run 1's.

    Pairs without labelled samples in common are left out. `needed` is added to what a `Difference` holds.
    """

    def labelled(run: HeadRun, split: str) -> set[int]:
        return {*run.number[run.known & (run.split == split)].tolist()}

    of_split: dict[str, dict[str, Any]] = {}
    for (place_a, a), (place_b, b) in itertools.combinations(enumerate(groups), 2):
        for split in sorted({*a.split.tolist(), *b.split.tolist()}):
            if labelled(a, split) & labelled(b, split):
                pair = differences(a.predictions(split), b.predictions(split), a.task)
                shown = {name: as_plain(each) | {"needed": each.needed} for name, each in pair.items()}
                of_split.setdefault(split, {})[f"{place_a}-{place_b}"] = shown
    return of_split


def run_summary(group: HeadRun, measured: Mapping[str, GroupEvaluation]) -> dict[str, Any]:
    """Returns the page's data of one run; `measured` is split -> its results."""
    curves = {
        title: [_thinned(curve) for curve in lines if curve.name in group.trials]
        for title, lines in curves_of(group.run).items()
    }
    return {
        "name": group.name,
        "trials": group.trials,
        "curves": curves,
        "measured": as_plain(measured),
        "mistakes": {split: mistakes(group, split) for split in measured if group.has_labels(split)},
        "settings": settings_of_run(group),
        "provenance": _provenance(group),
    }


def _thinned(curve: Curve) -> dict[str, Any]:
    """Returns a curve with at most CURVE_POINTS of its epochs, the first and the last among them."""
    places = evenly_spaced(len(curve.epoch), CURVE_POINTS, ends=True)
    return {"name": curve.name, "epoch": curve.epoch[places], "value": np.round(curve.value[places], 4)}


def mistakes(group: HeadRun, split: str) -> dict[str, Any]:
    """Returns the scores of each class, and the mistakes in events, of a run's trials on a split."""
    places = group.known_places_of(split)
    label = group.task.class_masks(group.label[places])
    sets = [group.task.class_masks(trial[places]) for trial in group.prediction]
    events = event_errors([each[..., :-1] for each in sets], label[..., :-1])
    return {
        "classes": as_plain(class_scores(sets, label, group.task.class_names)),
        "events": as_plain(events),
    }


def settings_of_run(group: HeadRun) -> dict[str, str]:
    """Returns the settings of a run's first trial as text, by name, without its seed."""
    config = group.records[0].config
    # The head's own settings without the prefix "NAME.", so that those of two heads stand side by side
    values = flat(as_dict(config) | {config.head.name: {}} | as_dict(config.head))
    return {name: "" if value is None else str(value) for name, value in values.items() if name not in SEEDS}


def _provenance(group: HeadRun) -> dict[str, str]:
    """Returns the provenance of a run as text: features, code, machine, versions and time."""
    record, inputs = group.run.record, group.run.read_inputs(HeadInputs)
    return {
        "run": str(group.run.path),
        "features": inputs.cache,
        "digest of the features": inputs.cache_digest,
        "encoder": group.cache.encoder,
        "code of the head": ", ".join(f"{name} of {origin}" for name, origin in inputs.head_code.items()),
        "started": record.started,
        "machine": record.hardware,
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }


def sweep_summaries(read: Sequence[HeadRun], split: str) -> list[dict[str, Any]]:
    """Returns the chart of each setting that differs within a run; else of the one that differs between runs.

    Runs that differ in the head alone get none, since the accuracy chart compares heads.
    """
    tested = [run for run in read if run.has_labels(split)]
    sweeps = [(run.name, sweep_of([run], split, name)) for run in tested for name in swept_settings([run])]
    differing = swept_settings(tested)
    if not sweeps and len(differing) == 1 and differing != ["head"]:
        sweeps = [("", sweep_of(tested, split))]
    return [as_plain(sweep) | {"run": run if len(read) > 1 else ""} for run, sweep in sweeps]


def cloud_summary(
    groups: Sequence[HeadRun], split: str, clip_of_sample: dict[int, int]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns t-SNE panels, one set for each cache and its samples; notes on what was left out."""
    sets: dict[tuple[str, bytes], tuple[Embedding, HeadRun]] = {}
    labelled = [run for run in groups if run.has_labels(split)]
    notes = [] if labelled else ["t-SNE is left out: no sample has known events"]
    try:
        with Progress(len(labelled[:CLOUD_RUNS]), "runs", of="t-SNE") as progress:
            for run in labelled[:CLOUD_RUNS]:
                key = run.cache.digest, run.number[run.known_places_of(split)].tobytes()
                before = sets.get(key)
                panels = embed(run, split, points=CLOUD_POINTS, cached=before is None)
                notes += [f"t-SNE of {title} is left out: {why}" for title, why in panels.left_out.items()]
                if before is not None:
                    panels = replace(before[0], points=before[0].points | panels.points)
                sets[key] = (panels, before[1] if before else run)
                progress.advance()
    except ConfigError as error:
        return [], [f"t-SNE is left out: {error.message} ({error.hint})"]
    if len(labelled) > CLOUD_RUNS:
        notes.append(f"t-SNE shows the first {CLOUD_RUNS} of {len(labelled)} runs")
    return [_cloud_set(panels, run, clip_of_sample) for panels, run in sets.values() if panels.points], notes


def _cloud_set(panels: Embedding, run: HeadRun, clip_of_sample: dict[int, int]) -> dict[str, Any]:
    return {
        "clip": [clip_of_sample[number] for number in run.number[panels.place].tolist()],
        "segment": panels.segment,
        "class": panels.classes,
        "panels": [
            {"title": title, "x": np.round(points[:, 0], 4), "y": np.round(points[:, 1], 4)}
            for title, points in panels.points.items()
        ],
    }
