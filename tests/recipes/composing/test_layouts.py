"""The world in the layouts of published datasets: what is read back is what was composed."""

import dataclasses
from collections.abc import Sequence
from functools import reduce
from operator import getitem
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import avel
from avel.errors import DatasetError
from avel.grid import Grid
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.tasks.results import PredictionMetrics
from avel.heads.train import train_head
from avel.heads.training.records import task_of
from avel.recipes.composing.compose import CLASSES
from avel.recipes.composing.script import Script
from avel.stores.datasets.audit import audit
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.formats import find_format, read_dataset
from avel.stores.datasets.sample import Sample
from avel.stores.feature_samples import samples_of_videos
from avel.stores.features import write_features
from avel.stores.runs import Run
from avel.text import as_plain
from tests import layouts
from tests.layouts import LAYOUTS, EventPattern, events_of, write_annotations, write_layout

CLIPS, THREE = 12, CLASSES[:3]
SINGLE = tuple(name for name in LAYOUTS if name != "llp")
"""Layouts whose events are both visible and audible."""
VARYING = ("activitynet", "desed", "folder")
"""Those of them that can hold any pattern of events."""


def read(folder: Path, layout: str) -> Dataset:
    named = LAYOUTS[layout].annotations
    return read_dataset(folder, folder / named if named else None)


def scripts_of(layout: str, pattern: EventPattern | None = None) -> tuple[Script, ...]:
    return layouts.scripts_of(layout, CLIPS, THREE, pattern=pattern)


def in_order_of(scripts: Sequence[Script], dataset: Dataset, folder: Path, layout: str) -> list[Sample]:
    """The sample of each script, by the file of its clip."""
    file_of = {video.video_id: Path(video.path) for video in dataset.videos}
    sample_of = {file_of[sample.video_id]: sample for sample in dataset.samples}
    return [sample_of[LAYOUTS[layout].path(folder, script, n)] for n, script in enumerate(scripts)]


@pytest.mark.parametrize(
    ("layout", "pattern"), [*((name, None) for name in SINGLE), *((name, "overlapping") for name in VARYING)]
)
def test_what_is_read_back_is_what_was_composed(
    tmp_path: Path, layout: str, pattern: EventPattern | None
) -> None:
    scripts = scripts_of(layout, pattern)
    folder = write_layout(tmp_path / "set", layout, scripts)
    assert find_format(folder) == layout
    dataset = read(folder, layout)
    samples = in_order_of(scripts, dataset, folder, layout)
    assert [sample.split for sample in samples] == [script.split for script in scripts]
    found = audit(dataset)
    assert (found.missing_files, found.extra_files) == ((), ())
    assert found.leaked_samples == {"val": (), "test": ()}
    assert found.samples_of_events == {
        count: sum(len(events_of(script)) == count for script in scripts)
        for count in sorted({len(events_of(script)) for script in scripts})
    }
    if pattern == "overlapping":
        assert len(found.overlapping_samples) == CLIPS
        assert all(
            sorted(sample.events or (), key=lambda each: each.onset_seconds) == list(events_of(script))
            for sample, script in zip(samples, scripts, strict=True)
        )
        return
    assert found.overlapping_samples == ()
    for sample, script, row in zip(samples, scripts, dataset.labels(Grid(), samples), strict=True):
        truth = [next(iter(set(a) & set(v)), "") for a, v in zip(script.audio, script.video, strict=True)]
        assert [dataset.categories[label] if label < dataset.background else "" for label in row] == truth
        assert len(sample.events or ()) == len(events_of(script))


def test_llp_has_classes_for_train_and_what_is_heard_and_seen_for_the_rest(tmp_path: Path) -> None:
    scripts = scripts_of("llp")
    dataset = read(write_layout(tmp_path / "set", "llp", scripts), "llp")
    assert [sample.split for sample in dataset.samples] == [script.split for script in scripts]
    found = audit(dataset)
    assert (found.missing_files, found.extra_files) == ((), ())
    labels = dataset.segment_classes(Grid(), dataset.samples, [1, 2])
    for sample, script, row in zip(dataset.samples, scripts, labels, strict=True):
        there = {name for names in (*script.audio, *script.video) for name in names}
        if script.split == "train":
            assert sample.events is None
            assert set(sample.categories or ()) == there
            continue
        for second in range(10):
            for track, names in enumerate((script.audio, script.video)):
                held = {dataset.categories[number] for number in np.flatnonzero(row[second, track])}
                assert held == set(names[second])
    seconds = [
        (set(a), set(v)) for script in scripts for a, v in zip(script.audio, script.video, strict=True)
    ]
    assert any(audio - video for audio, video in seconds)
    assert any(video - audio for audio, video in seconds)
    assert all(events_of(script) for script in scripts)
    assert any(len(names) > 1 for script in scripts for names in (*script.audio, *script.video))


SAY_TWICE = ("ov-avebench", "vggsound-avel", "desed", "folder")
"""Layouts that can say of a clip that it is in two splits; AVE and LLP refuse it, others cannot say it."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_audit_finds_leaks_and_missing_and_surplus_media(tmp_path: Path, layout: str) -> None:
    scripts = scripts_of(layout)
    folder = write_layout(tmp_path / "set", layout, scripts)
    missing = LAYOUTS[layout].path(folder, scripts[1], 1)
    surplus = missing.rename(missing.with_name("surplus.mp4"))
    if layout in SAY_TWICE:
        write_annotations(folder, layout, (*scripts, dataclasses.replace(scripts[0], split="test")))
    dataset = read(folder, layout)
    found = audit(dataset)
    absent = [video.video_id for video in dataset.videos if not video.path]
    assert list(found.missing_files) == absent
    assert len(absent) == 1
    assert [Path(path) for path in found.extra_files] == [surplus]
    assert len(found.leaked_samples["test"]) == (layout in SAY_TWICE)
    assert {"val", "test"} <= set(found.trivial_baselines or found.parsing_baselines)


def test_classes_that_train_lacks_are_tagged(tmp_path: Path) -> None:
    scripts = scripts_of("ov-avebench")
    folder = write_layout(tmp_path / "set", "ov-avebench", scripts)
    dataset = read_dataset(folder)
    samples = in_order_of(scripts, dataset, folder, "ov-avebench")
    assert [sample.tag == "unseen" for sample in samples] == [each.category == THREE[-1] for each in scripts]
    assert {each.split for each in samples if each.tag == "unseen"} == {"val", "test"}


def cached(folder: Path, layout: str, path: Path, pattern: EventPattern | None = None) -> Path:
    """A cache in the place of encoders that see and hear everything: features are the classes of events."""
    dataset, scripts = read(folder, layout), scripts_of(layout, pattern)
    place = {video.video_id: number for number, video in enumerate(dataset.videos)}
    features = np.zeros((len(place), 10, len(THREE)), np.float32)
    for sample, script in zip(in_order_of(scripts, dataset, folder, layout), scripts, strict=True):
        for second, names in enumerate(zip(script.audio, script.video, strict=True)):
            for name in set(names[0]) & set(names[1]):
                features[place[sample.video_id], second, THREE.index(name)] = 1
    samples, _ = samples_of_videos(dataset, tuple(place), {})
    arrays = {"f_a": features, "f_v": features}
    write_features(
        path, video_ids=tuple(place), categories=dataset.categories, samples=samples, arrays=arrays
    )
    return path


@pytest.mark.parametrize("layout", SINGLE)
def test_a_head_that_is_told_everything_is_right_about_what_it_has_seen(tmp_path: Path, layout: str) -> None:
    folder = write_layout(tmp_path / "set", layout, scripts_of(layout))
    cache = cached(folder, layout, tmp_path / "features.h5")
    train_head(cache, tmp_path / "run", head="mlp", seeds=1, epochs=60, lr=0.01, device="cpu")
    (group,) = evaluate(tmp_path / "run").groups.values()
    if layout != "ov-avebench":
        assert group.accuracy_percent.mean == group.events.f1_percent.mean == 100
        assert group.by_tag == {}
        return
    test = [script for script in scripts_of(layout) if script.split == "test"]
    of_train, others = group.by_tag["seen"], group.by_tag["unseen"]
    assert others.samples == sum(script.category == THREE[-1] for script in test)
    assert of_train.samples + others.samples == len(test)
    assert of_train.accuracy_percent.mean == of_train.event_f1_percent.mean == 100
    assert others.event_f1_percent.mean == others.segment_f1_percent.mean == 0
    assert group.recall_percent[THREE[-1]] == 0


@pytest.mark.parametrize("layout", VARYING)
def test_events_of_two_classes_at_once_are_learned_as_several_labels(tmp_path: Path, layout: str) -> None:
    folder = write_layout(tmp_path / "set", layout, scripts_of(layout, "overlapping"))
    cache = cached(folder, layout, tmp_path / "features.h5", "overlapping")
    options = {"head": "mlp", "seeds": 1, "epochs": 60, "lr": 0.01, "device": "cpu"}
    with pytest.raises(DatasetError, match="overlap from"):
        train_head(cache, tmp_path / "single", **options)
    found = train_head(cache, tmp_path / "run", task="multi_label", **options)
    parsing = found.groups["mlp"].parsing
    assert parsing is not None
    for f1_percent in (parsing.segment_f1_percent, parsing.event_f1_percent):
        assert {spread.mean for spread in f1_percent.values()} == {100}


def truth_of(script: Script, categories: Sequence[str], task: str) -> list[object]:
    """Labels of each second: a class or background; or 0 and 1 for each class, of LLP in each modality."""
    found: list[object] = []
    for audio, video in zip(map(set, script.audio), map(set, script.video), strict=True):
        both = audio & video
        if task == "single_label":
            found.append(categories.index(min(both)) if both else len(categories))
        else:
            sides = (audio, video) if task == "llp" else (both,)
            found.append([int(name in side) for side in sides for name in categories])
    return found


@pytest.mark.parametrize(
    ("layout", "pattern"), [(name, "overlapping" if name == "activitynet" else None) for name in LAYOUTS]
)
def test_from_clips_to_a_report(tmp_path: Path, layout: str, pattern: EventPattern | None) -> None:
    """Test clips have the composed labels, `score` and `evaluate` agree, and a page is there."""
    chosen, folder = LAYOUTS[layout], tmp_path / "set"
    seconds = chosen.seconds
    scripts = layouts.scripts_of(layout, 9, THREE, seconds, pattern)
    write_layout(folder, layout, scripts, recorded=True)
    annotations = folder / chosen.annotations if chosen.annotations else None
    tiny = dict.fromkeys(("visual_backbone", "audio_backbone"), "tiny")
    random = dict.fromkeys(("visual_weights", "audio_weights"), "random")
    store, cache, run = tmp_path / "s.zarr", tmp_path / "c.h5", tmp_path / "run"
    avel.extract(folder, store, annotations=annotations, segments=seconds, size=48, workers=1)
    avel.cache_features(store, cache, crop_size=42, device="cpu", **tiny, **random)
    options = {"head": "mlp", "task": "multi_label" if pattern else "auto", "seeds": 1, "epochs": 2}
    if layout == "llp":
        options |= {"head": "han", "supervision": "weak"}
    found = avel.train_head(cache, run, device="cpu", **options)

    task = "llp" if layout == "llp" else found.task
    dataset = read(folder, layout)
    samples = in_order_of(scripts, dataset, folder, layout)
    rows = pq.read_table(run / "predictions.parquet", filters=[("split", "=", "test")]).to_pylist()
    label_of = {(row["sample"], row["segment"]): row["label"] for row in rows}
    tested = [pair for pair in zip(samples, scripts, strict=True) if pair[1].split == "test"]
    assert found.samples == len(tested) == len(label_of) / seconds
    for sample, script in tested:
        truth = truth_of(script, dataset.categories, task)
        assert [label_of[sample.number, second] for second in range(seconds)] == truth

    names = {"annotations": annotations, "segments": seconds, "task": options["task"]}
    scored, group = avel.score(run / "predictions.parquet", folder, **names), found.groups[options["head"]]
    assert scored.trivial_baselines_percent == found.trivial_baselines_percent
    if not pattern:  # the audit counts a second as one label, or LLP's by their modalities
        audited = audit(dataclasses.replace(dataset, longest_seconds=float(seconds)))
        baselines = audited.trivial_baselines or audited.parsing_baselines
        rules = list(dataclasses.asdict(baselines["test"]).values())
        assert rules == pytest.approx(list(found.trivial_baselines_percent.values()))
    for field in dataclasses.fields(PredictionMetrics):
        assert getattr(scored, field.name) == getattr(group, field.name)
    columns = [
        (title, reduce(getitem, place, as_plain(group))) for title, place in task_of(Run.open(run)).columns
    ]
    assert columns[0][1] == as_plain(group.score_percent)  # the report has a column for each
    made = avel.report([run], tmp_path / "page", tsne=False)
    assert made.clips == len([script for script in scripts if script.split != "train"])


def test_predictions_of_what_was_composed_score_100_where_events_overlap(tmp_path: Path) -> None:
    scripts = scripts_of("llp")
    folder = write_layout(tmp_path / "set", "llp", scripts)
    categories = read(folder, "llp").categories
    tested = [script for script in scripts if script.split == "test"]
    assert any(len(names) > 1 for script in tested for names in (*script.audio, *script.video))
    np.save(tmp_path / "truth.npy", [truth_of(script, categories, "llp") for script in tested])
    parsing = avel.score(tmp_path / "truth.npy", folder).parsing
    assert parsing is not None
    for f1_percent in (parsing.segment_f1_percent, parsing.event_f1_percent):
        assert len(f1_percent) == 5
        assert {spread.mean for spread in f1_percent.values()} == {100}
